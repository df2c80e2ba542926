"""The loss functions, by the names that users write in their configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from fsdeploy.config.option import nearest
from fsdeploy.config.training import LOSS_NAMES
from fsdeploy.errors import ConfigError, InputError
from fsdeploy.training.losses.flip import LDRFlip
from fsdeploy.training.losses.frequency import FocalFrequencyLoss
from fsdeploy.training.losses.lpips import LPIPS, TrunkName
from fsdeploy.training.losses.pixel import (
    MAE,
    MSE,
    LaplacianPyramidLoss,
    LInfNorm,
    LogCosh,
    PixelGradientDiff,
    SmoothLoss,
)
from fsdeploy.training.losses.structural import GMSD, MSSSIM, SSIM

_PLAIN: dict[str, type[nn.Module]] = {
    "ffl": FocalFrequencyLoss,
    "gmsd": GMSD,
    "l_inf_norm": LInfNorm,
    "laploss": LaplacianPyramidLoss,
    "logcosh": LogCosh,
    "mae": MAE,
    "ms_ssim": MSSSIM,
    "mse": MSE,
    "pixel_gradient_diff": PixelGradientDiff,
    "smooth_loss": SmoothLoss,
    "ssim": SSIM,
}
_LPIPS: dict[str, TrunkName] = {"lpips_alex": "alex", "lpips_squeeze": "squeeze", "lpips_vgg16": "vgg16"}

MASK_IMAGES = frozenset({"ffl", "l_inf_norm"})
"""Functions whose result has no place in the image: masks are laid on the images instead of on a loss map."""


def build_loss(name: str, color_order: Literal["bgr", "rgb"] = "bgr", weights: Path | None = None) -> nn.Module:
    """Build a loss function: a module called with (true, predicted), each (N, C, H, W) float32 in 0..1.

    Args:
        weights: Folder with pretrained weights; the `lpips_*` functions need one.

    Raises:
        ConfigError: no function of that name (names the nearest).
        InputError: weights are needed and missing.
    """
    if name in _PLAIN:
        return _PLAIN[name]()
    if name == "flip":
        return LDRFlip(color_order)
    if name not in _LPIPS:
        raise ConfigError(f"unknown loss function '{name}'{nearest(name, LOSS_NAMES)}")
    if weights is None:
        raise InputError(
            f"loss '{name}' needs pretrained weights, which are never downloaded on their own: put the ImageNet trunk "
            "(https://download.pytorch.org/models) and the LPIPS v0.1 heads (https://github.com/richzhang/"
            "PerceptualSimilarity, lpips/weights/v0.1) in a folder and pass it with --loss-weights"
        )
    return LPIPS(_LPIPS[name], color_order, weights)
