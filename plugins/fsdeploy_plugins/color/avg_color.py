"""Colour by the mean."""

import numpy as np

from fsdeploy.convert.plugin import ColorPlugin, Float


class AvgColor(ColorPlugin):
    """The mean colour under the mask becomes the target's; with an empty mask the target is taken as it is."""

    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        weight = float(mask.sum())
        if weight == 0.0:
            return target.copy()
        shift = np.einsum("hwc,hw->c", target - swapped, mask, dtype=np.float64) / weight
        return np.asarray(swapped + shift, np.float32)
