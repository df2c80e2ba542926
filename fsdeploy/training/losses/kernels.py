"""Filter kernels that loss functions share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_1d(size: int, sigma: float) -> Tensor:
    """Gaussian window of `size` taps that sums to 1, float32. The outer product with itself is the 2-D window."""
    taps = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-taps.square() / (2.0 * sigma**2))
    return (window / window.sum()).to(torch.float32)


Border = Literal["reflect", "replicate"]
_DENSE_UP_TO = 128
"""Largest edge for which a CPU multiplies dense matrices faster than it filters."""


def blur(values: Tensor, kernel: Tensor, border: Border) -> Tensor:
    """Filter each channel of (N, C, H, W) with the separable window `kernel` (odd size); the size is kept."""
    kernel = kernel.to(values.dtype)
    height, width = values.shape[2:]
    if values.device.type == "cpu" and max(height, width) <= _DENSE_UP_TO:
        return _band(kernel, height, border) @ values @ _band(kernel, width, border).T
    pad = len(kernel) // 2
    padded = F.pad(values, (pad, pad, pad, pad), mode=border)
    return correlate(correlate(padded, kernel.view(1, -1, 1)), kernel.view(1, 1, -1))


def _band(kernel: Tensor, length: int, border: Border) -> Tensor:
    """Matrix (length, length) that filters a column, borders included: forward and backward far quicker on a CPU than
    a convolution with one channel."""
    pad = len(kernel) // 2
    impulses = torch.eye(length, dtype=kernel.dtype)[:, None]
    return F.conv1d(F.pad(impulses, (pad, pad), mode=border), kernel.view(1, 1, -1))[:, 0].T


def correlate(values: Tensor, kernels: Tensor) -> Tensor:
    """Correlate every channel of (N, C, H, W) with each of `kernels` (K, h, w), without border: (N, C * K, H', W').

    Channels of all images are filtered as groups of one, which has a kernel of its own in torch: quick, and in full
    float32 on GPUs that would else round the factors.
    """
    count, channels, height, width = values.shape
    planes = count * channels
    weights = kernels[:, None].repeat(planes, 1, 1, 1)
    filtered = F.conv2d(values.reshape(1, planes, height, width), weights, groups=planes)
    return filtered.view(count, channels * len(kernels), *filtered.shape[2:])
