"""Masks of a training or convert crop: drawn from landmarks, or taken from a stored mask."""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.faces.geometry import PADDING, Centering, window
from fsdeploy.faces.landmarks import LandmarkType, landmark_type, to_68
from fsdeploy.faces.records import StoredMask

MaskKind = Literal["components", "extended", "eye", "mouth"]
LANDMARK_MASKS: Final[tuple[MaskKind, ...]] = ("components", "extended", "eye", "mouth")

STORED_MASK_SIZE: Final = 128
"""Edge at which masks are usually stored, in which the blur option counts its pixels."""
_FEATURE_DILATION: Final = 2.5
"""Percent of the crop's edge by which eye and mouth masks grow."""

_JAW_68 = ((*range(9), 17), (*range(8, 17), 26))
_CHEEKS_68 = ((17, 18, 19, 8), (24, 25, 26, 8))
_MIDDLE_68 = (
    (*range(19, 25), 8),
    (*range(17, 22), 27, *range(31, 36), 8),
    (*range(22, 27), 27, *range(31, 36), 8),
    (*range(27, 36),),
)
_FACE_68 = (*_JAW_68, *_CHEEKS_68, *_MIDDLE_68)
_FACE_98 = (
    (*range(17), 33),
    (*range(16, 33), 46),
    (33, 34, 35, 16),
    (44, 45, 46, 16),
    (*range(35, 45), 16),
    (*range(33, 38), 51, *range(55, 60), 16),
    (*range(42, 47), 51, *range(55, 60), 16),
    (*range(51, 60),),
)
_GROUPS: Final[dict[LandmarkType, dict[MaskKind, tuple[tuple[int, ...], ...]]]] = {
    LandmarkType.FULL_68: {
        "components": _FACE_68,
        "extended": _FACE_68,
        "eye": (tuple(range(36, 42)), tuple(range(42, 48))),
        "mouth": (tuple(range(48, 60)),),
    },
    LandmarkType.WFLW_98: {
        "components": _FACE_98,
        "eye": (tuple(range(60, 68)), tuple(range(68, 76))),
        "mouth": (tuple(range(76, 88)),),
    },
}
"""Landmark type and mask -> groups of points; the mask is the union of their convex hulls."""


def landmark_mask(
    kind: MaskKind,
    aligned_landmarks: NDArray[np.floating],
    size: int,
    dilation: float = 0.0,
    blur_kernel: int = 0,
) -> NDArray[np.uint8]:
    """Draw a mask from landmarks.

    Args:
        kind: "components" (the face up to the brows), "extended" (up to the forehead), "eye" (both) or "mouth".
        aligned_landmarks: (68, 2) or (98, 2) pixels of the crop (`AlignedFace.aligned_landmarks`).
        size: edge of the crop.
        dilation: percent of the edge, -5..5; negative erodes. Eye and mouth masks always grow by 2.5 %.
        blur_kernel: the blur option in pixels of a 128 px mask, scaled to the crop; 0 = none. Eye and mouth masks
            always use a sixteenth of the edge.

    Returns:
        (size, size) uint8: 0 background, 255 face.

    Raises:
        InputError: the landmark type has no such mask.
    """
    points = np.asarray(aligned_landmarks, np.float64)
    if kind == "extended":
        points = raise_brows(points)
    groups = _GROUPS.get(landmark_type(points), {}).get(kind)
    if groups is None:
        raise InputError(
            f"a '{kind}' mask cannot be drawn from {len(points)} landmarks: choose a stored mask type, "
            "and eye and mouth multipliers of 1"
        )
    canvas = np.zeros((size, size), np.uint8)
    for group in groups:
        hull = cv2.convexHull(np.rint(points[list(group)]).astype(np.int32))
        cv2.fillConvexPoly(canvas, hull, 255, lineType=cv2.LINE_AA)
    if kind in ("eye", "mouth"):
        return _blurred(_dilated(canvas, _FEATURE_DILATION), size // 16)
    return _blurred(_dilated(canvas, dilation), round(blur_kernel * size / STORED_MASK_SIZE) if blur_kernel else 0)


def raise_brows(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """68 points of 68 or 98, with the brows moved up the forehead by half their height over the eyes.

    Coordinates are pixels of the crop; the halves are floored to whole ones.

    Raises:
        InputError: neither 68 nor 98 points.
    """
    points = np.asarray(to_68(points), np.float64)
    if len(points) != LandmarkType.FULL_68:
        raise InputError(f"an 'extended' mask cannot be drawn from {len(points)} landmarks: choose a stored mask type")
    outer_right, outer_left = (points[36] + points[0]) // 2, (points[16] + points[45]) // 2
    right_end, left_end = (points[36] + outer_right) // 2, (points[45] + outer_left) // 2
    below_right = np.stack([right_end, *points[36:40]])
    below_left = np.stack([*points[42:46], left_end])
    raised = points.copy()
    raised[17:22] += (points[17:22] - below_right) // 2
    raised[22:27] += (points[22:27] - below_left) // 2
    return raised


def stored_mask(
    mask: StoredMask,
    offsets: dict[Centering, NDArray[np.float64]],
    centering: Centering,
    coverage: float,
    vertical_offset: float,
    size: int,
    dilation: float = 0.0,
    blur_kernel: int = 0,
    threshold: float = 0.0,
) -> NDArray[np.uint8]:
    """Bring a stored mask to a crop.

    Args:
        mask: of the face.
        offsets: the face's centering offsets.
        centering, coverage, vertical_offset, size: of the crop.
        dilation: percent of the stored mask's edge, -5..5; negative erodes.
        blur_kernel: Gaussian kernel in stored-mask pixels, 0..9; 0 = none.
        threshold: percent, 0..50: values this near to black or white become black or white.

    Returns:
        (size, size) uint8.

    Raises:
        InputError, HostileFileError: the mask's data is damaged.
    """
    pixels = _thresholded(_dilated(mask.decompress(), dilation), threshold)
    pixels = _blurred(pixels, blur_kernel)
    if centering != mask.stored_centering or coverage != 1.0 or vertical_offset != 0.0:
        left, top, edge = stored_mask_window(mask, offsets, centering, coverage, vertical_offset)
        pixels = window(pixels, left, top, edge)
    if pixels.shape[0] == size:
        return pixels
    interpolation = cv2.INTER_CUBIC if mask.stored_size < size else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=interpolation), np.uint8)


def stored_mask_window(
    mask: StoredMask,
    offsets: dict[Centering, NDArray[np.float64]],
    centering: Centering,
    coverage: float,
    vertical_offset: float,
) -> tuple[int, int, int]:
    """The square window (left, top, edge) of a stored mask that belongs to a crop."""
    stored = PADDING[mask.stored_centering]
    edge = 2 * round(mask.stored_size * (1.0 - stored) / (1.0 - PADDING[centering]) * coverage / 2.0)
    shift = offsets[centering] - offsets[mask.stored_centering] - (0.0, vertical_offset)
    left, top = np.rint(shift * mask.stored_size * (1.0 - stored) + mask.stored_size / 2.0).astype(int) - edge // 2
    return int(left), int(top), edge


def _dilated(mask: NDArray[np.uint8], percent: float) -> NDArray[np.uint8]:
    """Dilate (or erode) once with an ellipse of `percent` of the edge; nothing when that is less than a pixel."""
    edge = round(mask.shape[0] * abs(percent) / 100.0)
    if edge == 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge))
    operation = cv2.dilate if percent > 0.0 else cv2.erode
    return np.asarray(operation(mask, kernel, iterations=1), np.uint8)


def _thresholded(mask: NDArray[np.uint8], percent: float) -> NDArray[np.uint8]:
    if percent == 0.0:
        return mask
    level = percent / 100.0 * 255.0
    result = mask.copy()
    result[mask < level] = 0
    result[mask > 255.0 - level] = 255
    return result


def _blurred(mask: NDArray[np.uint8], kernel: int) -> NDArray[np.uint8]:
    """Gaussian blur with an odd kernel (even ones grow by one), sigma from the kernel."""
    if kernel == 0:
        return mask
    kernel += 1 - kernel % 2
    return np.asarray(cv2.GaussianBlur(mask, (kernel, kernel), 0), np.uint8)
