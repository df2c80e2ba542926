"""The focal frequency loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FocalFrequencyLoss(nn.Module):
    """Focal frequency loss (Jiang et al., ICCV 2021), alpha 1: squared spectrum difference weighted by its own size.

    The map (N, C, H, W) is indexed by frequency (the constant part at [0, 0]), so masks apply to the images instead.
    As in the paper the weight carries no gradient.
    """

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        spectrum = torch.view_as_real(torch.fft.fft2(pred - true, norm="ortho"))
        power = spectrum.square().sum(dim=-1)
        with torch.no_grad():
            weight = power.sqrt()
            weight = (weight / weight.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)).clamp(0.0, 1.0)
        return weight * power
