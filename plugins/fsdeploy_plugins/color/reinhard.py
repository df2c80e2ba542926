"""Colour by mean and spread per Lab channel."""

from dataclasses import dataclass

import cv2
import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import ColorPlugin, Float
from fsdeploy_plugins.color.statistics import pair


@dataclass(frozen=True)
class ReinhardOptions:
    """How far colours are moved."""

    strength: float = option(100.0, "Percent of the way to the target's colours.", minimum=0.0, maximum=100.0)
    gain_limit: float = option(2.0, "Contrast is changed by no more than this factor.", minimum=1.0, maximum=4.0)


class Reinhard(ColorPlugin):
    """Mean and spread of each Lab channel are moved onto the target's, in float and under the mask only.

    E. Reinhard et al.: Color Transfer between Images (2001).
    """

    Options = ReinhardOptions

    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        old = np.asarray(cv2.cvtColor(np.clip(target, 0, 1), cv2.COLOR_BGR2LAB), np.float32)
        new = np.asarray(cv2.cvtColor(np.clip(swapped, 0, 1), cv2.COLOR_BGR2LAB), np.float32)
        samples = pair(old, new, mask, clip=0.0)
        if samples is None:
            return swapped
        wanted, given = samples
        limit = self.options.gain_limit
        spread = np.sqrt((np.diag(wanted.covariance()) + 1.0) / (np.diag(given.covariance()) + 1.0))
        gain = np.clip(spread, 1.0 / limit, limit)
        moved = (new - given.mean) * gain + wanted.mean
        mixed = new + (moved - new) * (self.options.strength / 100.0)
        return np.asarray(cv2.cvtColor(mixed.astype(np.float32), cv2.COLOR_LAB2BGR), np.float32)
