"""The blocks that architectures are built from. Tensors are (N, C, H, W); activations are LeakyReLU.

Sub-pixel convolutions are stored in `nn.PixelShuffle` order and are activated before the shuffle.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsdeploy.nn.conv import SameConv2d
from fsdeploy.nn.initializers import Initializer, he_uniform_, residual_uniform_


class Conv2DBlock(nn.Module):
    """Convolution, then LeakyReLU: (N, in, H, W) -> (N, out, ⌈H / stride⌉, ⌈W / stride⌉).

    `slope` is that of the LeakyReLU; None leaves the activation out. `norm` runs between the two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        stride: int = 2,
        *,
        slope: float | None = 0.1,
        norm: nn.Module | None = None,
        bias: bool = True,
        initializer: Initializer = he_uniform_,
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(in_channels, out_channels, kernel_size, stride, bias=bias, initializer=initializer)
        self.norm = norm
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.slope is None else F.leaky_relu(x, self.slope)


class UpscaleBlock(nn.Module):
    """Convolution to out·scale² channels, LeakyReLU, PixelShuffle: (N, in, H, W) -> (N, out, H·scale, W·scale)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        scale: int = 2,
        *,
        slope: float | None = 0.1,
        initializer: Initializer = he_uniform_,
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(in_channels, out_channels * scale**2, kernel_size, initializer=initializer)
        self.slope = slope
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.slope is not None:
            x = F.leaky_relu(x, self.slope)
        return F.pixel_shuffle(x, self.scale)


class Upscale2xBlock(nn.Module):
    """Sub-pixel and bilinear upscaling side by side: (N, in, H, W) -> (N, out, H·scale, W·scale).

    `fast` adds the two branches at full width; otherwise each has half the channels (an odd `out_channels` gives one
    more) and they are concatenated, the sub-pixel branch first. Only the sub-pixel branch is activated.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        scale: int = 2,
        *,
        fast: bool = False,
        slope: float | None = 0.1,
        initializer: Initializer = he_uniform_,
    ) -> None:
        super().__init__()
        width = out_channels if fast else out_channels - out_channels // 2
        self.shuffled = UpscaleBlock(in_channels, width, kernel_size, scale, slope=slope, initializer=initializer)
        self.resized = SameConv2d(in_channels, width, 3, initializer=initializer)
        self.resized.reflectable = False
        self.scale = scale
        self.fast = fast
        self.out_channels = width if fast else 2 * width

    def forward(self, x: Tensor) -> Tensor:
        shuffled = self.shuffled(x)
        resized = F.interpolate(self.resized(x), scale_factor=self.scale, mode="bilinear", align_corners=False)
        return shuffled + resized if self.fast else torch.cat((shuffled, resized), dim=1)


class ResidualBlock(nn.Module):
    """LeakyReLU(x + conv(LeakyReLU(conv(x)))), slope 0.2; the caller has activated x. Shape is kept."""

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        *,
        bias: bool = True,
        slope: float = 0.2,
        initializer: Initializer = he_uniform_,
    ) -> None:
        super().__init__()
        self.conv_1 = SameConv2d(channels, channels, kernel_size, bias=bias, initializer=initializer)
        self.conv_2 = SameConv2d(channels, channels, kernel_size, bias=bias, initializer=residual_uniform_)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv_2(F.leaky_relu(self.conv_1(x), self.slope))
        return F.leaky_relu(x + branch, self.slope)


class SeparableConv2DBlock(nn.Module):
    """Depth-wise 5×5, then 1×1 convolution, then ReLU: (N, in, H, W) -> (N, out, ⌈H / stride⌉, ⌈W / stride⌉)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 2) -> None:
        super().__init__()
        # Every input channel counts into the fan of the depth-wise kernel, although each sees only its own.
        depth_init = partial(he_uniform_, fan_in=kernel_size**2 * in_channels)
        self.depthwise = SameConv2d(
            in_channels, in_channels, kernel_size, stride, groups=in_channels, bias=False, initializer=depth_init
        )
        self.depthwise.reflectable = False
        self.pointwise = SameConv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)))


class Conv2DOutput(SameConv2d):
    """The last convolution: (N, in, H, W) -> (N, out, H, W) float32 in 0..1.

    The sigmoid runs in float32 even under autocast: half precision has too few steps near 0 and 1 for images.
    """

    reflectable = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        image = super().forward(x)
        # Not a plain .float(): it would be exported as a Cast even where nothing is to be cast.
        return torch.sigmoid(image if image.dtype == torch.float32 else image.float())
