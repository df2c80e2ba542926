"""Colour by mean and spread, as the original program's plugin of this name, with its statistics put right."""

from dataclasses import dataclass

import cv2
import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import ColorPlugin, Float
from fsdeploy_plugins.color.statistics import pair


@dataclass(frozen=True)
class ColorTransferOptions:
    """The two switches that users of the original know."""

    clip: bool = option(True, "Cut values outside the valid range; off: scale the channel to fit.")
    preserve_paper: bool = option(
        False, "Use the inverse gain, as the original's default does: less spread where the target has more."
    )


class ColorTransfer(ColorPlugin):
    """Mean and spread of each Lab channel, with the switches of the original program.

    Its statistics are of the masked face only; the original counted the black around it as well.
    """

    Options = ColorTransferOptions

    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        old = np.asarray(cv2.cvtColor(np.clip(target, 0, 1), cv2.COLOR_BGR2LAB), np.float32)
        new = np.asarray(cv2.cvtColor(np.clip(swapped, 0, 1), cv2.COLOR_BGR2LAB), np.float32)
        samples = pair(old, new, mask, clip=0.0)
        if samples is None:
            return swapped
        wanted, given = samples
        gain = np.sqrt((np.diag(wanted.covariance()) + 1e-3) / (np.diag(given.covariance()) + 1e-3))
        if self.options.preserve_paper:
            gain = 1.0 / gain
        moved = (new - given.mean) * gain + wanted.mean
        lowest, highest = np.array([0.0, -127.0, -127.0]), np.array([100.0, 127.0, 127.0])
        if not self.options.clip:
            moved = _fitted(moved, lowest, highest)
        moved = np.clip(moved, lowest, highest)
        return np.asarray(cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2BGR), np.float32)


def _fitted(values: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Scale each channel that leaves its range back into it."""
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    new_low, new_high = np.maximum(low, lowest), np.minimum(high, highest)
    return np.asarray((values - low) * ((new_high - new_low) / np.maximum(high - low, 1e-6)) + new_low)
