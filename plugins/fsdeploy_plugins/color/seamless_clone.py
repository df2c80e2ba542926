"""Colour by Poisson blending."""

import cv2
import numpy as np

from fsdeploy.convert.plugin import ColorPlugin, Float

_SMALLEST = 5
"""Edge in pixels of the smallest region that OpenCV clones: a thinner one has no inside to solve for, and it fails."""


class SeamlessClone(ColorPlugin):
    """The swapped face takes the target's colours along the mask's edge (Poisson blending: slow, may flicker)."""

    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        chosen = mask > 0
        if not chosen.any():
            return swapped
        size = mask.shape[0]
        rows, columns = np.flatnonzero(chosen.any(axis=1)), np.flatnonzero(chosen.any(axis=0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if min(bottom - top, right - left) < _SMALLEST:
            return swapped
        pad = size // 2
        room = cv2.copyMakeBorder(_bytes(target), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
        source = _bytes(swapped)[top:bottom, left:right]
        inside = np.where(chosen[top:bottom, left:right], np.uint8(255), np.uint8(0))
        centre = (pad + (left + right) // 2, pad + (top + bottom) // 2)
        cloned = cv2.seamlessClone(source, room, inside, (int(centre[0]), int(centre[1])), cv2.NORMAL_CLONE)
        return cloned[pad : pad + size, pad : pad + size].astype(np.float32) / np.float32(255.0)


def _bytes(picture: Float) -> np.ndarray:
    return np.asarray(np.rint(np.clip(picture, 0.0, 1.0) * 255.0), np.uint8)
