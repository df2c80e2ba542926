"""How weights start. Formulas: He et al. 2015 (arXiv:1502.01852), Glorot and Bengio 2010, Aitken et al. 2017
(ICNR, arXiv:1707.02937), Aghajanyan 2017 (convolution-aware, arXiv:1702.06295)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Initializer = Callable[[Tensor], object]
"""Fills a weight in place: (out, in, kh, kw) of a convolution or (out, in) of a dense layer."""


def he_uniform_(weight: Tensor, fan_in: int | None = None) -> Tensor:
    """Uniform in ±√(6 / fan_in); `fan_in` is counted from the shape unless given."""
    bound = math.sqrt(6.0 / (fan_in or weight[0].numel()))
    return nn.init.uniform_(weight, -bound, bound)


def glorot_uniform_(weight: Tensor) -> Tensor:
    """Uniform in ±√(6 / (fan_in + fan_out))."""
    return nn.init.xavier_uniform_(weight)


def residual_uniform_(weight: Tensor) -> Tensor:
    """Uniform in ±√(0.6 / fan_in): a tenth of he_uniform's variance, so that a residual branch starts small."""
    bound = math.sqrt(0.6 / weight[0].numel())
    return nn.init.uniform_(weight, -bound, bound)


def normal_(weight: Tensor) -> Tensor:
    """Normal with deviation 0.02, not truncated."""
    return nn.init.normal_(weight, std=0.02)


def icnr_(weight: Tensor, initializer: Initializer, scale: int) -> Tensor:
    """Start a convolution before `nn.PixelShuffle(scale)` so that the scale² pixels of a group are equal.

    The upscaled image then starts as nearest-neighbour resizing does, without a checkerboard.

    Raises:
        ValueError: the output channels are no multiple of scale².
    """
    if weight.shape[0] % scale**2:
        raise ValueError(f"{weight.shape[0]} output channels cannot be shuffled by {scale}")
    group = torch.empty_like(weight[:: scale**2])
    with torch.no_grad():
        initializer(group)
        weight.copy_(group.repeat_interleave(scale**2, dim=0))
    return weight


def convolution_aware_(weight: Tensor, noise: float = 0.05) -> Tensor:
    """Start a convolution (out, in, kh, kw) with filters that are orthogonal in the frequency domain.

    Per output filter the spectra of the input channels are rows of random orthogonal matrices; the inverse real FFT
    gives the kernel, normal noise of deviation `noise` breaks ties, and the variance is scaled to 2 / fan_in.
    """
    filters, channels, height, width = weight.shape
    bins = height * (width // 2 + 1)
    blocks = channels // bins + 1
    random = torch.randn(filters * blocks, bins, bins)
    symmetric = random + random.mT - torch.diag_embed(random.diagonal(dim1=-2, dim2=-1))
    rows = torch.linalg.svd(symmetric).U.mT.reshape(filters, blocks * bins, bins)[:, :channels]
    kernel = torch.fft.irfft2(rows.reshape(filters, channels, height, width // 2 + 1), s=(height, width))
    kernel = kernel + noise * torch.randn_like(kernel)
    kernel = kernel * math.sqrt(2.0 / (channels * height * width) / float(kernel.var(correction=0)))
    with torch.no_grad():
        weight.copy_(kernel)
    return weight
