"""Operations without weights: activations, padding, pooling, resizing, joining, re-ordering."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsdeploy.model.graph.layers import standardise

Numbers = Sequence[int]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    # An output in half precision would lose the last bits of a colour: always in float32.
    "sigmoid": lambda x: torch.sigmoid(x.float()),
    "tanh": torch.tanh,
    "swish": F.silu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "softmax": lambda x: F.softmax(x, dim=1 if x.dim() == 4 else -1),
    # 0.2 x + 0.5 clipped, and relu6(x + 3) / 6: the rule changed between generations of the format.
    "hard_sigmoid_fifth": lambda x: (0.2 * x + 0.5).clamp(0.0, 1.0),
    "hard_sigmoid_sixth": F.hardsigmoid,
    "hard_swish": F.hardswish,
}
ACTIVATIONS = frozenset(_ACTIVATIONS)


class Activation(nn.Module):
    """An elementwise function by name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._function = _ACTIVATIONS[kind]

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input)


class LeakyReLU(nn.Module):
    """x where x >= 0, else slope * x; `ceiling` clips the positive side."""

    def __init__(self, slope: float = 0.0, ceiling: float | None = None, threshold: float = 0.0) -> None:
        super().__init__()
        self.slope, self.ceiling, self.threshold = slope, ceiling, threshold

    def forward(self, input: Tensor) -> Tensor:
        if self.threshold:
            output = torch.where(input >= self.threshold, input, self.slope * (input - self.threshold))
        else:
            output = F.leaky_relu(input, self.slope) if self.slope else F.relu(input)
        return output if self.ceiling is None else output.clamp_max(self.ceiling)


class Swish(nn.Module):
    """t * sigmoid(t) with t = beta * x."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(self.beta * input)


class Affine(nn.Module):
    """x * scale + offset, each one number or one per channel."""

    def __init__(self, scale: float | Sequence[float] = 1.0, offset: float | Sequence[float] = 0.0) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset

    def _constant(self, value: float | Sequence[float], like: Tensor) -> float | Tensor:
        if isinstance(value, (int, float)):
            return float(value)
        shape = (1, -1, 1, 1) if like.dim() == 4 else (-1,)
        return torch.tensor(list(value), dtype=like.dtype, device=like.device).view(shape)

    def forward(self, input: Tensor) -> Tensor:
        return input * self._constant(self.scale, input) + self._constant(self.offset, input)


class Pad(nn.Module):
    """Pad (top, bottom, left, right) with zeros, or by mirroring without repeating the edge."""

    def __init__(self, pad: Numbers, mode: str = "zeros") -> None:
        super().__init__()
        top, bottom, left, right = pad
        self._pad, self._mode = [left, right, top, bottom], {"zeros": "constant", "reflect": "reflect"}[mode]

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self._pad, self._mode)


class Crop(nn.Module):
    """Keep rows top..top + height and columns left..left + width."""

    def __init__(self, top: int, left: int, height: int, width: int) -> None:
        super().__init__()
        self.window = (top, left, height, width)

    def forward(self, input: Tensor) -> Tensor:
        top, left, height, width = self.window
        return input[:, :, top : top + height, left : left + width]


class Pool(nn.Module):
    """Largest or mean value of each window; padded places never count."""

    def __init__(self, kind: str, size: Numbers, stride: Numbers, pad: Numbers = (0, 0, 0, 0)) -> None:
        super().__init__()
        top, bottom, left, right = pad
        self.size, self.stride = (size[0], size[1]), (stride[0], stride[1])
        self._pad, self._largest = [left, right, top, bottom], {"max": True, "mean": False}[kind]

    def forward(self, input: Tensor) -> Tensor:
        if self._largest:
            padded = F.pad(input, self._pad, value=float("-inf")) if any(self._pad) else input
            return F.max_pool2d(padded, self.size, self.stride)
        if not any(self._pad):
            return F.avg_pool2d(input, self.size, self.stride)
        inside = F.avg_pool2d(F.pad(torch.ones_like(input[:1, :1]), self._pad), self.size, self.stride)
        return F.avg_pool2d(F.pad(input, self._pad), self.size, self.stride) / inside


class GlobalPool(nn.Module):
    """Mean, largest, smallest value or population deviation of each channel."""

    def __init__(self, kind: str, keep: bool = False) -> None:
        super().__init__()
        self.kind, self.keep = kind, keep

    def forward(self, input: Tensor) -> Tensor:
        if self.kind == "mean":
            return input.mean((2, 3), keepdim=self.keep)
        if self.kind == "max":
            return input.amax((2, 3), keepdim=self.keep)
        if self.kind == "min":
            return input.amin((2, 3), keepdim=self.keep)
        centred = input - input.mean((2, 3), keepdim=True)
        return centred.square().mean((2, 3), keepdim=self.keep).sqrt()


class Resize(nn.Module):
    """Resize to `size` (H, W): "nearest" repeats, "half_pixel" is bilinear between pixel centres, "corner" is bilinear
    with source = target / factor and the far edge repeated."""

    def __init__(self, source: Numbers, size: Numbers, mode: str) -> None:
        super().__init__()
        self.source, self.size, self.mode = (source[0], source[1]), (size[0], size[1]), mode

    def forward(self, input: Tensor) -> Tensor:
        height, width = self.size
        if self.mode == "corner":
            # With one more edge row, the grid 0, 1/f, 2/f, ... ends exactly on a corner.
            padded = F.pad(input, [0, 1, 0, 1], mode="replicate")
            grid = F.interpolate(padded, size=(height + 1, width + 1), mode="bilinear", align_corners=True)
            return grid[:, :, :height, :width]
        # A whole factor instead of a size: an exporter then writes constants only.
        whole = height % self.source[0] == 0 and width % self.source[1] == 0
        factor = (float(height // self.source[0]), float(width // self.source[1])) if whole else None
        size = None if whole else self.size
        if self.mode == "nearest":
            return F.interpolate(input, size=size, scale_factor=factor, mode="nearest")
        return F.interpolate(input, size=size, scale_factor=factor, mode="bilinear", align_corners=False)


class PixelShuffle(nn.Module):
    """Depth to space of an input (C, H, W). Channel (i * r + j) * O + o goes to pixel (i, j) of channel o ("dcr"), or
    channel o * r * r + i * r + j does ("crd", torch's own)."""

    def __init__(self, factor: int, source: Numbers, order: str = "dcr") -> None:
        super().__init__()
        self.factor, self.order = factor, order
        self.source = (source[0], source[1], source[2])

    def forward(self, input: Tensor) -> Tensor:
        if self.order == "crd":
            return F.pixel_shuffle(input, self.factor)
        r = self.factor
        channels, height, width = self.source[0] // (r * r), self.source[1], self.source[2]
        split = input.reshape(-1, r, r, channels, height, width)
        return split.permute(0, 3, 4, 1, 5, 2).reshape(-1, channels, height * r, width * r)


class Flatten(nn.Module):
    """All axes but the batch in one, channel fastest ("hwc") or slowest ("chw")."""

    def __init__(self, order: str = "hwc") -> None:
        super().__init__()
        self.order = order

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 4 and self.order == "hwc":
            input = input.permute(0, 2, 3, 1)
        return input.flatten(1)


class Reshape(nn.Module):
    """Another `shape`, (H, W, C) or (T, D) or (D,), read and written with the channel fastest ("hwc"); with "chw" a
    vector becomes an image with the channel slowest."""

    def __init__(self, shape: Numbers, order: str = "hwc") -> None:
        super().__init__()
        self.shape, self.order = tuple(shape), order

    def forward(self, input: Tensor) -> Tensor:
        if self.order == "chw":
            height, width, channels = self.shape
            return input.reshape(-1, channels, height, width)
        if input.dim() == 4:
            input = input.permute(0, 2, 3, 1)
        output = input.reshape(-1, *self.shape)
        return output.permute(0, 3, 1, 2) if len(self.shape) == 3 else output


class Join(nn.Module):
    """Combine any number of inputs elementwise."""

    def __init__(self, kind: str, scale: float = 1.0) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.kind == "add":
            return reduce(operator.add, inputs)
        if self.kind == "multiply":
            return reduce(operator.mul, inputs)
        if self.kind == "subtract":
            return inputs[0] - inputs[1]
        if self.kind == "average":
            return reduce(operator.add, inputs) / len(inputs)
        if self.kind == "scaled_add":
            return inputs[0] + self.scale * inputs[1]
        return reduce({"maximum": torch.maximum, "minimum": torch.minimum}[self.kind], inputs)


class Concat(nn.Module):
    """Join along an axis, in the order given."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.axis)


class Dot(nn.Module):
    """Sum over the last axes: (N, D) and (N, P, D) give (N, P)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if first.dim() == 2 and second.dim() == 2:
            return (first * second).sum(1, keepdim=True)
        left = first.unsqueeze(1) if first.dim() == 2 else first
        right = second.unsqueeze(1) if second.dim() == 2 else second
        product = left @ right.transpose(1, 2)
        if first.dim() == 2:
            return product.squeeze(1)
        return product.squeeze(2) if second.dim() == 2 else product


class Select(nn.Module):
    """Indexing: per axis an integer or [start, stop, step]."""

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__()
        self._items = tuple(slice(*item) if isinstance(item, list) else item for item in items)

    def forward(self, input: Tensor) -> Tensor:
        return input[self._items]


class Standardise(nn.Module):
    """Adaptive instance normalisation: (x - mean) / (deviation + eps) * third input + second input, per channel over
    (H, W)."""

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, input: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        if shift.dim() == 2:
            shift, scale = shift[:, :, None, None], scale[:, :, None, None]
        return standardise(input, (2, 3), self.eps) * scale.float() + shift.float()


class UnitLength(nn.Module):
    """x / sqrt(max(sum of squares, 1e-12)) along an axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, input: Tensor) -> Tensor:
        return input * torch.rsqrt(input.square().sum(self.axis, keepdim=True).clamp_min(1e-12))


class Dropout(nn.Module):
    """Zero single elements, whole channels or whole samples ("elements", "channels", "samples") in training."""

    def __init__(self, rate: float, unit: str = "elements") -> None:
        super().__init__()
        self.rate, self.unit = rate, unit

    def forward(self, input: Tensor) -> Tensor:
        if self.unit == "channels":
            return F.dropout2d(input, self.rate, self.training)
        if self.unit == "samples" and self.training:
            ones = torch.ones([len(input)] + [1] * (input.dim() - 1), device=input.device, dtype=input.dtype)
            return input * F.dropout(ones, self.rate)
        return F.dropout(input, self.rate, self.training)


class Noise(nn.Module):
    """Add normal noise in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, input: Tensor) -> Tensor:
        return input + self.deviation * torch.randn_like(input) if self.training else input
