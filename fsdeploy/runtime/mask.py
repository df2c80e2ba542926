"""Where a swapped face is blended: masks in crop pixels, their fade, and the colour shift under them.

Everything here has a twin inside the `--graph frame` export (fsdeploy/export/frame.py): a change of the maths must be
made in both.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FEATHER = 0.06
"""Share of the patch edge over which a mask fades to zero."""
HULL_DIRECTIONS = 64
"""Directions of the support function that outlines a face: 64 keep the outline within 0.12 % of its radius."""
FACE_ELLIPSE = ((0.50, 0.41), (0.60, 0.78))
"""Centre and half axes of a face in the mean-face frame: brow to chin, ear to ear."""


def feather(mask: NDArray[np.float32], share: float = FEATHER) -> NDArray[np.float32]:
    """Fade a mask to zero inside its own outline and inside the patch edge.

    Erodes by the fade's width, then two box blurs spread it back: nothing grows outwards, and the outermost pixels of
    the patch are exactly 0 whatever the mask (so an all-ones mask gets a soft square edge).

    Args:
        mask: (S, S) float32, 0..1.
        share: width of the fade as a share of S.

    Returns:
        (S, S) float32, 0..1.
    """
    width = fade_width(mask.shape[0], share)
    edge = 2 * width + 3  # one pixel more than the blurs spread: the border stays exactly 0
    kernel = np.ones((edge, edge), np.uint8)
    inner = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0.0, 0.0, 0.0, 0.0))
    for radius in (width - width // 2, width // 2):
        inner = cv2.blur(inner, (2 * radius + 1, 2 * radius + 1))
    return np.clip(inner, 0.0, 1.0).astype(np.float32)


def fade_width(size: int, share: float) -> int:
    """Half the fade of `feather` in pixels, at least 1."""
    return max(1, round(size * share / 2))


def hull_mask(points: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Inside of the outline of a face, raised over the brows, with an edge one pixel wide.

    The outline is the hull of the landmarks given by its support function: a pixel is inside when no direction sees it
    beyond the farthest landmark. That needs no polygon, so the same formula runs inside an ONNX graph.

    Args:
        points: (68, 2) landmarks in crop pixels.

    Returns:
        (size, size) float32, 0..1.
    """
    outline = raise_brows(np.asarray(points, np.float64))
    angles = np.arange(HULL_DIRECTIONS) * (2 * np.pi / HULL_DIRECTIONS)
    directions = np.stack([np.cos(angles), np.sin(angles)])  # (2, D)
    support = (outline @ directions).max(axis=0)  # (D,)
    axis = np.arange(size, dtype=np.float32)
    depth = np.full((size, size), np.inf, np.float32)
    for (dx, dy), reach in zip(directions.T.astype(np.float32), support.astype(np.float32), strict=True):
        np.minimum(depth, reach - (axis[:, None] * dy + axis[None, :] * dx), out=depth)
    clipped: NDArray[np.float32] = np.clip(depth + 0.5, 0.0, 1.0)
    return clipped


def raise_brows(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move the brows (17..26) of 68 landmarks up by half their height over the eyes, to include the forehead."""
    raised = points.copy()
    right, left = points[36:40].mean(axis=0), points[42:46].mean(axis=0)
    raised[17:22] += (points[17:22] - right) / 2
    raised[22:27] += (points[22:27] - left) / 2
    return raised


def ellipse_mask(size: int, center: tuple[float, float], half_axes: tuple[float, float]) -> NDArray[np.float32]:
    """Ellipse with an edge two pixels wide. `center` and `half_axes` (x, y) are shares of the patch edge.

    Returns:
        (size, size) float32, 0..1.
    """
    axis = (np.arange(size) + 0.5) / size
    x = (axis[None, :] - center[0]) / half_axes[0]
    y = (axis[:, None] - center[1]) / half_axes[1]
    depth = (1 - np.sqrt(x * x + y * y)) * min(half_axes) * size
    return np.clip(depth / 2 + 0.5, 0.0, 1.0).astype(np.float32)


def match_mean(
    swapped: NDArray[np.float32], reference: NDArray[np.float32], mask: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Shift each channel of `swapped` so that its mean under `mask` is that of `reference`. Result clipped to 0..1.

    Args:
        swapped, reference: (S, S, 3) float32, 0..1.
        mask: (S, S) float32; where it is all zero the picture is only clipped.
    """
    weight = float(mask.sum())
    if weight > 0:
        shift = ((reference - swapped) * mask[..., None]).sum(axis=(0, 1), dtype=np.float64) / weight
        swapped = swapped + shift.astype(np.float32)
    return np.clip(swapped, 0.0, 1.0)
