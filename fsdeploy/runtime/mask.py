"""Where a swapped face is blended: masks in crop pixels, their fade, and the colour shift under them.

Everything here has a twin inside the `--graph frame` export (fsdeploy/export/frame.py): a change of the maths must be
made in both.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FEATHER = 0.03
"""Width of the soft edge as a share of the patch."""
THRESHOLD = 0.04
"""Values this close to 0 or 1 count as 0 or 1."""
WINDOW = 0.06
"""Share of the patch over which its own border fades to zero."""
HULL_DIRECTIONS = 64
"""Directions of the support function that outlines a face: 64 keep the outline within 0.12 % of its radius."""
FACE_ELLIPSE = ((0.50, 0.41), (0.60, 0.78))
"""Centre and half axes of a face in the mean-face frame: brow to chin, ear to ear."""


def cut(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values within `THRESHOLD` of 0 become 0, within it of 1 become 1. (S, S) float32."""
    low = np.where(mask < np.float32(THRESHOLD), np.float32(0), mask)
    return np.asarray(np.where(low > np.float32(1 - THRESHOLD), np.float32(1), low), np.float32)


def feather(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fade a mask inside its own outline, and to exactly zero at the border of the patch. Nothing grows outwards.

    The same soft edge as the convert step's "feather": by the distance to the outline, smoothstep profile.

    Args:
        mask: (S, S) float32, 0..1.

    Returns:
        (S, S) float32, 0..1.
    """
    size = mask.shape[0]
    inside = (mask >= 0.5).astype(np.uint8)
    # Beyond the patch counts as inside: the window alone fades the patch's border.
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    soft = smoothstep(np.asarray(distance, np.float32) / np.float32(fade_width(size)))
    return np.asarray(np.minimum(mask, soft) * border_window(size), np.float32)


def fade_width(size: int) -> float:
    """Distance in pixels from the outline at which a mask is whole."""
    return FEATHER * size + 0.5


def border_window(size: int) -> NDArray[np.float32]:
    """(S, S) window: 1 inside, smoothly to exactly 0 on the outermost pixels."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) / max(2.0, WINDOW * size)
    side = smoothstep(distance.astype(np.float32))
    window: NDArray[np.float32] = np.outer(side, side).astype(np.float32)
    return window


def smoothstep(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """3x^2 - 2x^3 on 0..1, constant outside."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x), np.float32)


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
        mask: (S, S) float32; where it is all zero `reference` is returned.
    """
    weight = float(mask.sum())
    if weight == 0:
        return reference.copy()
    shift = ((reference - swapped) * mask[..., None]).sum(axis=(0, 1), dtype=np.float64) / weight
    return np.asarray(np.clip(swapped + shift.astype(np.float32), 0.0, 1.0), np.float32)
