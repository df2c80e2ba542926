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


def blur(values: Tensor, kernel: Tensor, border: Literal["reflect", "replicate"]) -> Tensor:
    """Filter each channel of (N, C, H, W) with the separable window `kernel` (odd size); the size is kept."""
    count, channels, height, width = values.shape
    pad = len(kernel) // 2
    kernel = kernel.to(values.dtype)
    planes = F.pad(values.reshape(count * channels, 1, height, width), (pad, pad, pad, pad), mode=border)
    planes = F.conv2d(planes, kernel.view(1, 1, -1, 1))
    return F.conv2d(planes, kernel.view(1, 1, 1, -1)).view(count, channels, height, width)
