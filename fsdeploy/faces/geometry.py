"""Alignment maths: from landmarks in a frame to the crop that training and convert see.

Units: points are (x, y) in pixels with pixel centres at integers; "normalised" means the box of the mean face. S is the
crop's edge, k the coverage (0.625..1), R the padding share of a centering.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.faces.landmarks import MEAN_BOX, MEAN_FACE, LandmarkType, landmark_type, to_68
from fsdeploy.faces.pose import Centering, Pose, centering_offsets, solve_pose

__all__ = [
    "PADDING",
    "Centering",
    "Pose",
    "adjusted_matrix",
    "centering_offsets",
    "crop_matrix",
    "interpolators",
    "invert",
    "normalise",
    "padding",
    "similarity",
    "solve_pose",
    "sub_crop",
    "sub_crop_window",
    "transform",
    "window",
]

Array = NDArray[np.float64]
Offsets = Mapping[Centering, NDArray[np.floating]]

PADDING: Final[dict[Centering, float]] = {"legacy": 0.375, "face": 0.5, "head": 0.625}
"""Share of a crop's edge that is padding around the mean-face box, at coverage 1."""

EXTRACT_SIZE: Final = 512
"""Edge of the stored face that training crops are taken from by default."""


def similarity(landmarks: NDArray[np.floating]) -> Array:
    """Least-squares similarity (rotation, one scale, translation; no reflection) onto the mean face.

    Closed form of S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    1991, for two dimensions. 98 points are reduced to 68, of which the 51 after the jaw are used.

    Args:
        landmarks: (..., n, 2) in frame pixels; n is 4, 51, 68 or 98.

    Returns:
        (..., 2, 3) float64 maps frame pixels -> normalised units.

    Raises:
        InputError: an unknown number of points, or all points of a face in one place.
    """
    kind = landmark_type(landmarks)
    points = to_68(landmarks).astype(np.float64)
    if kind in (LandmarkType.FULL_68, LandmarkType.WFLW_98):
        points = points[..., 17:, :]
    mean = MEAN_BOX if kind is LandmarkType.ROI_4 else MEAN_FACE
    source_centre, target_centre = points.mean(axis=-2), mean.mean(axis=0)
    x, y = np.moveaxis(points - source_centre[..., None, :], -1, 0)
    u, v = (mean - target_centre).T
    variance = (x * x + y * y).sum(axis=-1)
    if not (variance > 0.0).all():
        raise InputError("landmarks that all lie in one point cannot be aligned")
    a = (x * u + y * v).sum(axis=-1) / variance
    b = (x * v - y * u).sum(axis=-1) / variance
    linear = np.stack([a, -b, b, a], axis=-1).reshape(*a.shape, 2, 2)
    shift = target_centre - (linear @ source_centre[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], axis=-1)


def transform(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> Array:
    """Send (..., n, 2) points through (..., 2, 3) matrices."""
    linear = np.swapaxes(matrix[..., :2], -1, -2)
    result: Array = points.astype(np.float64) @ linear + matrix[..., None, :, 2]
    return result


def normalise(landmarks: NDArray[np.floating], matrix: NDArray[np.floating]) -> Array:
    """Landmarks (..., n, 2) in frame pixels -> normalised units, by the matrices of `similarity`."""
    return transform(landmarks, matrix)


def invert(matrix: NDArray[np.floating]) -> Array:
    """Inverse of one (2, 3) map."""
    linear = np.linalg.inv(matrix[:, :2].astype(np.float64))
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def padding(size: int, centering: Centering, coverage: float) -> int:
    """Pixels between a crop's border and the mean-face box; negative when coverage cuts into the box."""
    return round(size * (PADDING[centering] + coverage - 1.0) / (2.0 * coverage))


def adjusted_matrix(
    matrix: NDArray[np.floating], offset: NDArray[np.floating], size: int, centering: Centering, coverage: float
) -> Array:
    """(..., 2, 3) map frame -> crop with whole-pixel padding; a vertical offset is not part of it.

    Args:
        matrix: (..., 2, 3) of `similarity`.
        offset: (..., 2) of `centering_offsets` for `centering`.
    """
    pad = padding(size, centering, coverage)
    core = size - 2 * pad
    adjusted = matrix.astype(np.float64) * core
    adjusted[..., 2] += pad - core * np.asarray(offset, np.float64)
    return adjusted


def crop_matrix(
    matrix: NDArray[np.floating],
    offset: NDArray[np.floating],
    size: int,
    centering: Centering,
    coverage: float,
    vertical_offset: float = 0.0,
) -> Array:
    """(..., 2, 3) map frame -> S x S crop exactly as training saw it, without rounding to whole pixels.

    Training takes a window of even edge P from a stored face and resizes it to S; this is the same map in one step,
    with pixel centres kept at integers. A positive `vertical_offset` moves the face down.
    """
    ratio = PADDING[centering]
    edge = 2 * round(EXTRACT_SIZE * (1.0 - PADDING["head"]) / (1.0 - ratio) * coverage / 2.0)
    core = edge * (1.0 - ratio) / coverage
    scale = size / edge
    shifted = matrix.astype(np.float64)
    shifted[..., 2] += (0.0, vertical_offset) - np.asarray(offset, np.float64)
    window_map = shifted * core
    window_map[..., 2] += (edge - core) / 2.0
    result: Array = window_map * scale
    result[..., 2] += (scale - 1.0) / 2.0
    return result


def interpolators(matrix: NDArray[np.floating]) -> tuple[int, int]:
    """OpenCV interpolation flags (forward, backward) for a map: cubic towards the finer grid, area to the coarser."""
    scale_x = float(np.hypot(matrix[0, 0], matrix[0, 1]))
    determinant = float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    scale_y = determinant / scale_x if scale_x else 0.0
    if (scale_x + scale_y) / 2.0 >= 1.0:
        return cv2.INTER_CUBIC, cv2.INTER_AREA
    return cv2.INTER_AREA, cv2.INTER_CUBIC


def sub_crop_window(
    stored_size: int,
    offsets: Offsets,
    stored_centering: Centering,
    centering: Centering,
    coverage: float,
    vertical_offset: float = 0.0,
) -> tuple[int, int, int]:
    """The square window (left, top, edge) of a stored face that shows it with another centering and coverage."""
    stored = PADDING[stored_centering]
    if centering == stored_centering and coverage == 1.0:
        edge = stored_size
    else:
        edge = 2 * round(stored_size * (1.0 - stored) / (1.0 - PADDING[centering]) * coverage / 2.0)
    base = 2 * round(stored_size * (1.0 - stored) / 2.0)
    shift = np.asarray(offsets[centering], np.float64) - np.asarray(offsets[stored_centering], np.float64)
    shift = shift - (0.0, vertical_offset)
    left, top = np.rint(shift * base + (stored_size - edge) / 2.0).astype(int)
    return int(left), int(top), edge


def window(image: NDArray[np.uint8], left: int, top: int, edge: int) -> NDArray[np.uint8]:
    """Copy an edge x edge window of an image (H, W[, C]); what lies outside the image is 0."""
    height, width = image.shape[:2]
    result = np.zeros((edge, edge, *image.shape[2:]), image.dtype)
    x0, x1 = max(left, 0), min(left + edge, width)
    y0, y1 = max(top, 0), min(top + edge, height)
    if x0 < x1 and y0 < y1:
        result[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return result


def sub_crop(
    image: NDArray[np.uint8],
    offsets: Offsets,
    stored_centering: Centering,
    centering: Centering,
    coverage: float,
    vertical_offset: float,
    size: int,
) -> NDArray[np.uint8]:
    """Crop a stored face image (S0, S0, 3) to (size, size, 3), as training feeds it.

    Raises:
        InputError: the image is legacy-centred and another centering is asked for: it lacks the pixels.
    """
    if stored_centering == "legacy" and centering != "legacy":
        raise InputError(
            f"a legacy-centred face lacks the pixels for '{centering}' centering: "
            "train with centering 'legacy' or extract the face again"
        )
    left, top, edge = sub_crop_window(image.shape[0], offsets, stored_centering, centering, coverage, vertical_offset)
    cut = window(image, left, top, edge)
    if edge == size:
        return cut
    interpolation = cv2.INTER_CUBIC if edge < size else cv2.INTER_AREA
    return np.asarray(cv2.resize(cut, (size, size), interpolation=interpolation), np.uint8)
