"""Colour by the Monge-Kantorovich map."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import ColorPlugin, Float
from fsdeploy_plugins.color.statistics import pair

_NOISE = (2.0 / 255.0) ** 2
"""Variance added to both pictures, so that a flat channel is not stretched into noise."""


@dataclass(frozen=True)
class MKLOptions:
    """How far colours are moved."""

    strength: float = option(100.0, "Percent of the way to the target's colours.", minimum=0.0, maximum=100.0)
    gain_limit: float = option(1.5, "Contrast is changed by no more than this factor.", minimum=1.0, maximum=4.0)


class MKL(ColorPlugin):
    """Mean and full covariance of the face's colours are moved onto the target's by the shortest linear map.

    F. Pitie, A. Kokaram: The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer (2007):
    T = Cs^-1/2 (Cs^1/2 Ct Cs^1/2)^1/2 Cs^-1/2.
    """

    Options = MKLOptions

    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        samples = pair(target, swapped, mask)
        if samples is None:
            return swapped
        wanted, given = samples
        limit = self.options.gain_limit
        noise = np.eye(3) * _NOISE
        transport = _transport(given.covariance() + noise, wanted.covariance() + noise, limit)
        strength = self.options.strength / 100.0
        linear = np.eye(3) * (1.0 - strength) + transport * strength
        shift = (wanted.mean * strength + given.mean * (1.0 - strength)) - linear @ given.mean
        matrix = np.concatenate([linear, shift[:, None]], axis=1)
        return np.asarray(cv2.transform(swapped, matrix.astype(np.float32)), np.float32)


def _transport(source: NDArray[np.float64], target: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """The symmetric (3, 3) map that takes one covariance to the other, its gains limited to 1/limit..limit."""
    root = _power(source, 0.5)
    inverse = _power(source, -0.5)
    transport = inverse @ _power(root @ target @ root, 0.5) @ inverse
    values, vectors = np.linalg.eigh((transport + transport.T) / 2.0)
    return np.asarray((vectors * np.clip(values, 1.0 / limit, limit)) @ vectors.T)


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 1e-12) ** exponent) @ vectors.T)
