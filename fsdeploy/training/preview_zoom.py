"""Zoom arithmetic of the preview window: limits, fitting, and drawing of the visible part. No window in here."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
"""(width, height) in pixels."""

STEP: Final = 25
"""Percent by which keys and the mouse wheel zoom."""
PRESETS: Final = (10, 25, 50, 75, 100, 200, 300, 400, 800)
_LARGEST_FACTOR: Final = 8


def limits(image: Size, screen: Size) -> Size:
    """Smallest and largest zoom in percent: half the screen and eight screens, 800 % at most, 100 % always inside."""
    half = min(edge / 2 / own for edge, own in zip(screen, image, strict=True))
    eight = min(_LARGEST_FACTOR * edge / own for edge, own in zip(screen, image, strict=True))
    smallest = 10 * math.ceil(10 * min(1.0, half))
    largest = 10 * math.floor(10 * min(float(_LARGEST_FACTOR), max(1.0, eight)))
    return smallest, largest


def clamped(zoom: float, zoom_limits: Size) -> int:
    """A zoom in whole percent inside the limits."""
    return int(min(max(round(zoom), zoom_limits[0]), zoom_limits[1]))


def fitting(image: Size, canvas: Size, zoom_limits: Size) -> int:
    """The largest zoom at which the image fits the canvas, inside the limits."""
    share = min(edge / own for edge, own in zip(canvas, image, strict=True))
    return clamped(math.floor(100.0 * share), zoom_limits)


def choices(zoom_limits: Size) -> list[int]:
    """The zooms that a list offers: the presets inside the limits, and the limits themselves."""
    inside = {preset for preset in PRESETS if zoom_limits[0] <= preset <= zoom_limits[1]}
    return sorted(inside | set(zoom_limits))


def scaled_size(image: Size, zoom: int) -> Size:
    """Size of the image at a zoom, at least one pixel."""
    return max(1, round(image[0] * zoom / 100)), max(1, round(image[1] * zoom / 100))


def visible_part(
    image: NDArray[np.uint8], zoom: int, left: int, top: int, size: Size, smooth: bool
) -> NDArray[np.uint8]:
    """Draw the part of a zoomed image that a canvas shows.

    Args:
        image: (H, W, 3) uint8.
        zoom: Percent.
        left, top: Of the part, in pixels of the zoomed image.
        size: Of the part; it lies inside the zoomed image.
        smooth: Enlarge bicubically instead of by nearest pixels.

    Returns:
        (height, width, 3) uint8 of `size`; at any zoom no more pixels are drawn than are seen.
    """
    width, height = size
    if zoom == 100:
        return image[top : top + height, left : left + width]
    whole = scaled_size((image.shape[1], image.shape[0]), zoom)
    if zoom < 100:
        small = cv2.resize(image, whole, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)[top : top + height, left : left + width]
    scale_x, scale_y = image.shape[1] / whole[0], image.shape[0] / whole[1]
    if not smooth:
        columns = ((left + np.arange(width) + 0.5) * scale_x).astype(np.intp)
        rows = ((top + np.arange(height) + 0.5) * scale_y).astype(np.intp)
        nearest: NDArray[np.uint8] = image[rows[:, None], columns[None, :]]
        return nearest
    # Canvas pixel -> image pixel, with pixel centres at integers on both.
    inverse = np.array([[scale_x, 0.0, (left + 0.5) * scale_x - 0.5], [0.0, scale_y, (top + 0.5) * scale_y - 0.5]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(image, inverse, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
