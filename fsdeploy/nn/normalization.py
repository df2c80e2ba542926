"""Normalisations that torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InstanceNormalization(nn.Module):
    """Normalise each sample over height, width and channels together: (x - mean) / (deviation + eps) · weight + bias.

    One scalar weight and bias; eps is added to the deviation, outside the root. Computed in float32 under autocast.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        values = x.float()
        mean = values.mean(dim=(1, 2, 3), keepdim=True)
        centred = values - mean
        deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (centred / (deviation + self.eps) * self.weight + self.bias).to(x.dtype)
