"""Colour by histogram."""

from dataclasses import dataclass

import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import ColorPlugin, Float

_BINS = 1024


@dataclass(frozen=True)
class MatchHistOptions:
    """How much of the histogram is matched."""

    threshold: float = option(99.0, "Percent of the histogram that is matched.", minimum=90.0, maximum=100.0)


class MatchHist(ColorPlugin):
    """The histogram of each channel becomes the target's, counted with the mask as weight."""

    Options = MatchHistOptions

    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        if not mask.any():
            return swapped
        out = swapped.copy()
        centres = (np.arange(_BINS) + 0.5) / _BINS
        for channel in range(3):
            given = _cumulative(swapped[..., channel], mask) * (self.options.threshold / 100.0)
            wanted = _cumulative(target[..., channel], mask)
            # A touch of slope makes the curve invertible where no pixel falls.
            curve = np.interp(given, wanted + np.arange(_BINS) * 1e-9, centres)
            out[..., channel] = np.interp(swapped[..., channel], centres, curve)
        return np.where(mask[..., None] > 0, out, swapped)


def _cumulative(values: Float, mask: Float) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, 0.0, 1.0), bins=_BINS, range=(0.0, 1.0), weights=mask)
    total = np.cumsum(counts, dtype=np.float64)
    return np.asarray(total / total[-1])
