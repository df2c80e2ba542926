"""LDR-FLIP: how different two images look when one flips between them (Andersson et al., HPG 2020)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsdeploy.training.losses.kernels import correlate

_PIXELS_PER_DEGREE = 3840.0 * math.pi / 180.0
_RGB_TO_XYZ = (
    (10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794),
    (2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897),
    (1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382),
)
_WHITE = (0.950428545, 1.0, 1.088900371)
# Contrast sensitivity of the achromatic, red-green and blue-yellow channels: (a1, b1, a2, b2).
_SENSITIVITY = ((1.0, 0.0047, 0.0, 1e-5), (1.0, 0.0053, 0.0, 1e-5), (34.1, 0.04, 13.5, 0.025))
_HYAB_EXPONENT, _CUTOFF, _CUTOFF_ERROR = 0.7, 0.4, 0.95
_FEATURE_WIDTH_DEGREES, _FEATURE_EXPONENT = 0.082, 0.5
_TINY = 1e-15


class LDRFlip(nn.Module):
    """FLIP error per pixel (N, 1, H, W) in 0..1 for a viewer at 67 pixels per degree."""

    to_xyz: Tensor
    to_rgb: Tensor
    white: Tensor
    sensitivity: Tensor
    features: Tensor
    largest_colour_error: Tensor

    def __init__(self, color_order: Literal["bgr", "rgb"] = "bgr") -> None:
        super().__init__()
        self.flip_channels = color_order == "bgr"
        to_xyz = torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)
        self._buffer("to_xyz", to_xyz)
        self._buffer("to_rgb", torch.linalg.inv(to_xyz))
        self._buffer("white", torch.tensor(_WHITE).view(1, 3, 1, 1))
        self._buffer("sensitivity", _sensitivity_kernels())
        self._buffer("features", _feature_kernels())
        green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
        blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
        self._buffer("largest_colour_error", _hyab(self._hunt(green), self._hunt(blue)).pow(_HYAB_EXPONENT).squeeze())

    def _buffer(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values.to(torch.float32), persistent=False)

    def _hunt(self, linear: Tensor) -> Tensor:
        """Linear RGB to L*a*b* with chroma scaled by lightness (Hunt effect)."""
        delta = 6.0 / 29.0
        ratio = _mix(linear, self.to_xyz) / self.white
        bright = ratio > delta**3
        root = torch.where(bright, ratio, 1.0).pow(1.0 / 3.0)  # the slope at 0 is infinite: never taken
        f = torch.where(bright, root, ratio / (3.0 * delta**2) + 4.0 / 29.0)
        x, y, z = f.unbind(1)
        lightness = 116.0 * y - 16.0
        scale = 0.01 * lightness
        return torch.stack([lightness, scale * 500.0 * (x - y), scale * 200.0 * (y - z)], dim=1)

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        pair = torch.cat([true, pred])
        if self.flip_channels:
            pair = pair.flip(1)
        relative = _mix(_srgb_to_linear(pair.clamp(0.0, 1.0)), self.to_xyz) / self.white
        x, y, z = relative.unbind(1)
        opponent = torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=1)
        colour = self._colour_error(opponent)
        error: Tensor = colour.pow(1.0 - self._feature_error(opponent[:, :1]))
        return error

    def _colour_error(self, opponent: Tensor) -> Tensor:
        radius = self.sensitivity.shape[-1] // 2
        padded = F.pad(opponent, (radius,) * 4, mode="replicate")
        # All images' channels as groups of one: several times quicker than three groups.
        planes = padded.reshape(1, -1, *padded.shape[2:])
        seen = F.conv2d(planes, self.sensitivity.repeat(len(padded), 1, 1, 1), groups=planes.shape[1])
        seen = seen.view(opponent.shape)
        y = (seen[:, :1] + 16.0) / 116.0
        xyz = torch.cat([seen[:, 1:2] / 500.0 + y, y, y - seen[:, 2:] / 200.0], dim=1) * self.white
        lab_t, lab_p = self._hunt(_mix(xyz, self.to_rgb).clamp(0.0, 1.0)).chunk(2)
        error = _hyab(lab_t, lab_p).pow(_HYAB_EXPONENT)
        knee = _CUTOFF * self.largest_colour_error
        over = _CUTOFF_ERROR + (1.0 - _CUTOFF_ERROR) * (error - knee) / (self.largest_colour_error - knee)
        return torch.where(error < knee, _CUTOFF_ERROR * error / knee, over)

    def _feature_error(self, achromatic: Tensor) -> Tensor:
        radius = self.features.shape[-1] // 2
        padded = F.pad((achromatic + 16.0) / 116.0, (radius,) * 4, mode="replicate")
        response = correlate(padded, self.features)
        edges = torch.linalg.vector_norm(response[:, :2], dim=1, keepdim=True)
        points = torch.linalg.vector_norm(response[:, 2:], dim=1, keepdim=True)
        edges_t, edges_p = edges.chunk(2)
        points_t, points_p = points.chunk(2)
        difference = torch.maximum((edges_t - edges_p).abs(), (points_t - points_p).abs())
        return (difference.clamp_min(_TINY) / math.sqrt(2.0)).pow(_FEATURE_EXPONENT)


def _mix(image: Tensor, matrix: Tensor) -> Tensor:
    """Apply a 3 x 3 colour matrix to (N, 3, H, W)."""
    return F.conv2d(image, matrix.to(image.dtype).view(3, 3, 1, 1))


def _srgb_to_linear(image: Tensor) -> Tensor:
    return torch.where(image > 0.04045, ((image + 0.055) / 1.055).pow(2.4), image / 12.92)


def _hyab(lab_t: Tensor, lab_p: Tensor) -> Tensor:
    """HyAB distance (N, 1, H, W): city-block between lightness and chroma, Euclidean within chroma."""
    difference = lab_t - lab_p
    lightness = difference[:, :1].square().clamp_min(_TINY).sqrt()
    chroma: Tensor = torch.linalg.vector_norm(difference[:, 1:], dim=1, keepdim=True)
    return lightness + chroma


def _squared_grid(radius: int) -> tuple[Tensor, Tensor]:
    """x (columns, in pixels) and x^2 + y^2 on a (2 radius + 1) square, float64."""
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return axis.repeat(len(axis), 1), axis.square()[:, None] + axis.square()[None, :]


def _sensitivity_kernels() -> Tensor:
    """Three low-pass kernels (3, 1, k, k), each summing to 1."""
    radius = math.ceil(3.0 * math.sqrt(0.04 / (2.0 * math.pi**2)) * _PIXELS_PER_DEGREE)
    squared = _squared_grid(radius)[1] / _PIXELS_PER_DEGREE**2
    kernels = []
    for a1, b1, a2, b2 in _SENSITIVITY:
        first = a1 * math.sqrt(math.pi / b1) * torch.exp(-(math.pi**2) * squared / b1)
        kernel = first + a2 * math.sqrt(math.pi / b2) * torch.exp(-(math.pi**2) * squared / b2)
        kernels.append(kernel / kernel.sum())
    return torch.stack(kernels)[:, None]


def _feature_kernels() -> Tensor:
    """Edge and point detectors (4, k, k): edge along x, along y, point along x, along y."""
    deviation = 0.5 * _FEATURE_WIDTH_DEGREES * _PIXELS_PER_DEGREE
    x, squared = _squared_grid(math.ceil(3.0 * deviation))
    bell = torch.exp(-squared / (2.0 * deviation**2))
    kernels = []
    for kernel in (-x * bell, (x.square() / deviation**2 - 1.0) * bell):
        balanced = torch.where(kernel < 0.0, kernel / -kernel[kernel < 0].sum(), kernel / kernel[kernel > 0].sum())
        kernels += [balanced, balanced.T]
    return torch.stack(kernels)
