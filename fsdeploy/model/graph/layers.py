"""Operations with weights of their own, (N, C, H, W) or (N, D); names and defaults are torch's, exact sizes are
attributes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Numbers = Sequence[int]


class Conv2d(nn.Conv2d):
    """Convolution with zero padding (top, bottom, left, right), which may be asymmetric."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Numbers,
        stride: Numbers = (1, 1),
        pad: Numbers = (0, 0, 0, 0),
        dilation: Numbers = (1, 1),
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        top, bottom, left, right = pad
        # Symmetric padding stays in the convolution, so that an exporter writes no Pad node.
        inside = (top, left) if (top, left) == (bottom, right) else (0, 0)
        super().__init__(
            inputs,
            outputs,
            (kernel[0], kernel[1]),
            (stride[0], stride[1]),
            inside,
            (dilation[0], dilation[1]),
            groups,
            bias,
        )
        self._outside = [left, right, top, bottom] if inside == (0, 0) and any(pad) else None

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self._outside) if self._outside else input)


class ConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution of which rows `crop`..`crop + size` are kept, and columns alike."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Numbers,
        stride: Numbers,
        crop: Numbers,
        size: Numbers,
        source: Numbers,
        bias: bool = True,
    ) -> None:
        full = [(source[axis] - 1) * stride[axis] + kernel[axis] for axis in (0, 1)]
        end = [full[axis] - crop[axis] - size[axis] for axis in (0, 1)]
        # torch drops `padding` at both ends and `output_padding` gives back some at the end: use that where it can.
        back = [crop[axis] - end[axis] for axis in (0, 1)]
        inside = all(0 <= back[axis] < max(stride[axis], 1) for axis in (0, 1))
        super().__init__(
            inputs,
            outputs,
            (kernel[0], kernel[1]),
            (stride[0], stride[1]),
            (crop[0], crop[1]) if inside else (0, 0),
            (back[0], back[1]) if inside else (0, 0),
            bias=bias,
        )
        self._slice = None if inside else (crop[0], crop[1], size[0], size[1])
        self._fill = [0, max(-end[1], 0), 0, max(-end[0], 0)]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        output = super().forward(input, output_size)
        if self._slice is None:
            return output
        if any(self._fill):
            output = F.pad(output, self._fill)
        top, left, height, width = self._slice
        return output[:, :, top : top + height, left : left + width]


class Linear(nn.Linear):
    """Matrix product over the last axis of vectors and tokens, over the channels of an image."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 4:
            return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return super().forward(input)


class BatchNorm(nn.Module):
    """Batch normalisation; `momentum` is the share of the old average that is kept."""

    def __init__(
        self, channels: int, eps: float, momentum: float = 0.99, scale: bool = True, center: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if center else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.eps, self.momentum = eps, momentum

    def forward(self, input: Tensor) -> Tensor:
        # Frozen: the stored statistics are used and stay as they are.
        learning = self.training and any(p.requires_grad for p in self.parameters())
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, learning, 1 - self.momentum, self.eps
        )


class InstanceNorm(nn.Module):
    """(x - mean) / (deviation + eps) * weight + bias: eps stands outside the root. One scalar pair over all of (C, H,
    W), or per channel over (H, W)."""

    def __init__(
        self, channels: int, eps: float = 1e-3, joint: bool = True, scale: bool = True, center: bool = True
    ) -> None:
        super().__init__()
        count = 1 if joint else channels
        self.weight = nn.Parameter(torch.ones(count)) if scale else None
        self.bias = nn.Parameter(torch.zeros(count)) if center else None
        self.eps, self.axes = eps, (1, 2, 3) if joint else (2, 3)

    def forward(self, input: Tensor) -> Tensor:
        output = standardise(input, self.axes, self.eps)
        if self.weight is not None:
            output = output * self.weight.view(1, -1, 1, 1)
        if self.bias is not None:
            output = output + self.bias.view(1, -1, 1, 1)
        return output


def standardise(input: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    """(x - mean) / (population deviation + eps) over `axes`, in float32."""
    centred = input.float() - input.float().mean(list(axes), keepdim=True)
    return centred / (centred.square().mean(list(axes), keepdim=True).sqrt() + eps)


class GroupNorm(nn.Module):
    """Group normalisation over consecutive channels."""

    def __init__(self, channels: int, groups: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.groups, self.eps = groups, eps

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.groups, self.weight, self.bias, self.eps)


class LayerNorm(nn.Module):
    """Normalisation over the channels of each position, or over the last axis of tokens and vectors."""

    def __init__(self, channels: int, eps: float, scale: bool = True, center: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if center else None
        self.shape, self.eps = [channels], eps

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 4:
            normed = F.layer_norm(input.permute(0, 2, 3, 1), self.shape, self.weight, self.bias, self.eps)
            return normed.permute(0, 3, 1, 2)
        return F.layer_norm(input, self.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the channels of each position, or over the last axis."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(channels)), eps

    def forward(self, input: Tensor) -> Tensor:
        axis = 1 if input.dim() == 4 else -1
        output = input * torch.rsqrt(input.float().square().mean(axis, keepdim=True) + self.eps)
        return output * (self.weight.view(1, -1, 1, 1) if input.dim() == 4 else self.weight)


class FixedNorm(nn.Module):
    """(x - mean) / max(sqrt(variance), 1e-7) with stored statistics per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, input: Tensor) -> Tensor:
        shape = (1, -1, 1, 1) if input.dim() == 4 else (-1,)
        return (input - self.mean.view(shape)) / self.variance.sqrt().clamp_min(1e-7).view(shape)


class PReLU(nn.Module):
    """Leaky rectifier with a learned slope per element; axes of extent 1 share theirs."""

    def __init__(self, shape: Numbers) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tuple(shape)))

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input) - self.weight * F.relu(-input)


class ChannelScale(nn.Module):
    """x * weight, one per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, input: Tensor) -> Tensor:
        return input * (self.weight.view(1, -1, 1, 1) if input.dim() == 4 else self.weight)


class Table(nn.Module):
    """A learned (T, D) table, given once per sample whatever comes in."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns))

    def forward(self, input: Tensor) -> Tensor:
        return self.weight.unsqueeze(0).expand(input.shape[0], -1, -1)


class Attention(nn.Module):
    """Multi-head attention over tokens (N, T, D): query and value, and the key if it is not the value."""

    def __init__(
        self, dimension: int, heads: int, key_size: int, value_size: int, outputs: int, bias: bool = True
    ) -> None:
        super().__init__()
        self.query = nn.Linear(dimension, heads * key_size, bias)
        self.key = nn.Linear(dimension, heads * key_size, bias)
        self.value = nn.Linear(dimension, heads * value_size, bias)
        self.output = nn.Linear(heads * value_size, outputs, bias)
        self.heads, self.scale = heads, key_size**-0.5

    def forward(self, query: Tensor, value: Tensor, key: Tensor | None = None) -> Tensor:
        q, k, v = self.query(query), self.key(value if key is None else key), self.value(value)
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        weights = torch.softmax(q @ k.transpose(2, 3) * self.scale, dim=-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
