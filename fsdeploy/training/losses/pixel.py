"""Loss functions that compare pixels, their gradients or their pyramids. Inputs are (N, C, H, W) float32 in 0..1.

Each returns a map (N, C, H, W) of loss per value, except `LInfNorm`, which returns one value per image (N,).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsdeploy.training.losses.kernels import blur, gaussian_1d


class MAE(nn.Module):
    """Absolute difference `|p - t|`."""

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        return (pred - true).abs()


class MSE(nn.Module):
    """Squared difference `(p - t)^2`."""

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        return (pred - true).square()


class LogCosh(nn.Module):
    """`log(cosh(t - p))`, written so that it cannot overflow: `d + softplus(-2d) - ln 2`."""

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        difference = true - pred
        return difference + F.softplus(-2.0 * difference) - math.log(2.0)


def general_loss(difference: Tensor, alpha: float, beta: float) -> Tensor:
    """Barron's general robust loss (A General and Adaptive Robust Loss Function, CVPR 2019), times `beta`."""
    curve = abs(2.0 - alpha)
    return beta * (curve / alpha) * (((difference / beta).square() / curve + 1.0).pow(alpha / 2.0) - 1.0)


class SmoothLoss(nn.Module):
    """Barron's general loss: squared below about `beta`, absolute above."""

    def __init__(self, alpha: float = 1.0, beta: float = 1.0 / 255.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        return general_loss(pred - true, self.alpha, self.beta)


class LInfNorm(nn.Module):
    """Largest absolute difference of each channel's image, mean over channels: (N,)."""

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        return (true - pred).abs().amax(dim=(2, 3)).mean(dim=1)


class PixelGradientDiff(nn.Module):
    """General loss of the difference of first and second image derivatives along rows and columns.

    The values are tens of times those of `ssim`: give it a small weight.
    """

    alpha, beta = 1.9999, 1.0 / 255.0

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        # Every derivative is linear, so the derivative of the difference is the difference of derivatives.
        difference = pred - true
        up, down = _neighbours(difference, 2)
        left, right = _neighbours(difference, 3)
        up_left, up_right = _neighbours(up, 3)
        down_left, down_right = _neighbours(down, 3)
        terms = (
            0.5 * (right - left),
            0.5 * (down - up),
            right + left - 2.0 * difference,
            down + up - 2.0 * difference,
        )
        mixed = 0.25 * (down_right + up_left - up_right - down_left)
        total = 2.0 * general_loss(mixed, self.alpha, self.beta)
        for term in terms:
            total = total + general_loss(term, self.alpha, self.beta)
        return 0.5 * total


def _neighbours(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The values one step before and after along `axis`; at the edge the value itself."""
    length = values.shape[axis]
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, length - 1, 1)
    before = torch.cat([first, values.narrow(axis, 0, length - 1)], dim=axis)
    after = torch.cat([values.narrow(axis, 1, length - 1), last], dim=axis)
    return before, after


class LaplacianPyramidLoss(nn.Module):
    """Absolute difference of Laplacian pyramids; level l counts `4^-l` and is resized to the image."""

    kernel: Tensor

    def __init__(self, levels: int = 5, size: int = 5, sigma: float = 1.0) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("kernel", gaussian_1d(size, sigma), persistent=False)

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        level = pred - true  # the pyramid is linear: that of the difference is the difference of pyramids
        height, width = level.shape[2:]
        total = torch.zeros_like(level)
        for index in range(self.levels):
            smooth = blur(level, self.kernel, "replicate")
            total = total + 4.0**-index * _resize((level - smooth).abs(), height, width)
            level = F.avg_pool2d(smooth, 2)
        return total + 4.0**-self.levels * _resize(level.abs(), height, width)


def _resize(values: Tensor, height: int, width: int) -> Tensor:
    if values.shape[2:] == (height, width):
        return values
    return F.interpolate(values, size=(height, width), mode="bilinear", align_corners=False)
