"""Convolution with SAME padding, and the dense layer: both start with zero biases."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsdeploy.nn.initializers import Initializer, glorot_uniform_, he_uniform_


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows (or columns) to add before and after so that the output has ⌈size / stride⌉ of them.

    An odd total puts the extra one after: kernel 5, stride 2 on an even size gives (1, 2).
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _UnevenConv(torch.autograd.Function):
    """Pad and convolve, written to ONNX as one Conv with uneven `pads` instead of a dozen nodes around a Pad."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int, pads: tuple[int, ...]
    ) -> Tensor:
        top, left, bottom, right = pads
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, groups=groups)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any, stride: int, groups: int, pads: tuple[int, ...]) -> Any:
        inputs = (x, weight) if bias is None else (x, weight, bias)
        kernel = weight.type().sizes()[2:]
        return g.op("Conv", *inputs, kernel_shape_i=kernel, strides_i=[stride] * 2, pads_i=pads, group_i=groups)


class SameConv2d(nn.Conv2d):
    """Convolution (N, C, H, W) -> (N, out, ⌈H / stride⌉, ⌈W / stride⌉) with SAME padding.

    Symmetric padding is left to the convolution, so that exporters emit no Pad node; only a strided convolution whose
    padding is uneven pads on its own.
    """

    reflect = False
    """Pad by mirroring without the edge instead of zeros; set on a built network by `reflect_padding`."""
    reflectable = True
    """Whether `reflect_padding` applies to this convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = True,
        initializer: Initializer = he_uniform_,
    ) -> None:
        # Before the parent, which calls reset_parameters: large weights are then drawn once.
        self.initializer = initializer
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=bias)

    def reset_parameters(self) -> None:
        self.initializer(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:  # known without looking at the input, odd kernels are symmetric
            top, bottom = left, right = same_padding(kernel, kernel, 1)
        else:
            top, bottom = same_padding(int(x.shape[2]), kernel, stride)
            left, right = same_padding(int(x.shape[3]), kernel, stride)
        if self.reflect:
            x = F.pad(x, (left, right, top, bottom), mode="reflect")
        elif (top, left) != (bottom, right):
            if torch.onnx.is_in_onnx_export() and torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
                pads = (top, left, bottom, right)
                exported: Tensor = _UnevenConv.apply(  # type: ignore[no-untyped-call]
                    x, self.weight, self.bias, stride, self.groups, pads
                )
                return exported
            x = F.pad(x, (left, right, top, bottom))
        else:
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class Dense(nn.Linear):
    """Linear layer (N, in) -> (N, out), started glorot_uniform with zero bias."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, initializer: Initializer = glorot_uniform_
    ) -> None:
        self.initializer = initializer
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        self.initializer(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
