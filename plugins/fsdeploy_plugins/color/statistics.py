"""What colour methods measure: weighted statistics of the face's pixels in float, never of the black around it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.convert.plugin import Float

_EDGE = 96
"""Statistics are taken from patches averaged down to this edge: the same figures, a fraction of the time."""


@dataclass(frozen=True)
class Samples:
    """Pixels of one picture under the mask, as a list."""

    values: NDArray[np.float64]
    """(n, 3)."""
    weights: NDArray[np.float64]
    """(n,), sum 1."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """(3,)."""
        return self.weights @ self.values

    def covariance(self) -> NDArray[np.float64]:
        """(3, 3)."""
        centred = self.values - self.mean
        return (centred * self.weights[:, None]).T @ centred


def pair(target: Float, swapped: Float, mask: Float, clip: float = 1.0) -> tuple[Samples, Samples] | None:
    """Samples of both pictures under the mask, without the darkest and brightest `clip` percent of either.

    Returns:
        (target, swapped), or None when the mask is empty.
    """
    if mask.shape[0] > _EDGE:
        size = (_EDGE, _EDGE)
        target, swapped, mask = (
            np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)
            for picture in (target, swapped, mask)
        )
    weights = mask.astype(np.float64)
    chosen = weights > 0.05
    if chosen.sum() < 16:
        return None
    weights = weights[chosen]
    pictures = [picture[chosen].astype(np.float64) for picture in (target, swapped)]
    return _trimmed(pictures[0], weights, clip), _trimmed(pictures[1], weights, clip)


def _trimmed(values: NDArray[np.float64], weights: NDArray[np.float64], percent: float) -> Samples:
    """Drop highlights, hair and nostrils: pixels whose brightness lies outside the percentiles."""
    brightness = values @ np.array([0.114, 0.587, 0.299])
    low, high = np.percentile(brightness, [percent, 100.0 - percent])
    keep = (brightness >= low) & (brightness <= high)
    return Samples(values[keep], weights[keep] / weights[keep].sum())
