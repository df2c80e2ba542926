"""Landmark types, the mean face and the mean head that faces are aligned to, and the parts that landmarks draw."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError


class LandmarkType(IntEnum):
    """Kind of a landmark set; the value is its number of points."""

    ROI_4 = 4
    """Corners of a box, clockwise from top left."""
    CORE_51 = 51
    """The 68-point set without its jaw line."""
    FULL_68 = 68
    """Jaw (17), brows (10), nose (9), eyes (12), mouth (20)."""
    WFLW_98 = 98
    """The 98-point set of the WFLW data set."""


# fmt: off
MEAN_FACE: Final[NDArray[np.float64]] = np.array(
    [
        (0.010086, 0.106454), (0.085135, 0.038915), (0.191003, 0.018748), (0.300643, 0.034489),
        (0.403270, 0.077391), (0.596729, 0.077391), (0.699356, 0.034489), (0.808997, 0.018748),
        (0.914864, 0.038915), (0.989913, 0.106454), (0.500000, 0.203352), (0.500000, 0.307009),
        (0.500000, 0.409805), (0.500000, 0.515625), (0.376753, 0.587326), (0.435909, 0.609345),
        (0.500000, 0.628106), (0.564090, 0.609345), (0.623246, 0.587326), (0.131610, 0.216423),
        (0.196995, 0.178758), (0.275698, 0.179852), (0.344479, 0.231733), (0.270791, 0.245099),
        (0.192616, 0.244077), (0.655520, 0.231733), (0.724301, 0.179852), (0.803005, 0.178758),
        (0.868389, 0.216423), (0.807383, 0.244077), (0.729208, 0.245099), (0.264022, 0.780233),
        (0.350858, 0.745405), (0.438731, 0.727388), (0.500000, 0.742578), (0.561268, 0.727388),
        (0.649141, 0.745405), (0.735977, 0.780233), (0.652032, 0.864805), (0.566594, 0.902192),
        (0.500000, 0.909281), (0.433405, 0.902192), (0.347967, 0.864805), (0.300252, 0.784792),
        (0.437969, 0.778746), (0.500000, 0.785343), (0.562030, 0.778746), (0.699747, 0.784792),
        (0.563237, 0.824182), (0.500000, 0.831803), (0.436763, 0.824182),
    ]
)
"""(51, 2) float64: mean points (x, y) in a 0..1 box; entry i pairs with point 17 + i of the 68-point set."""

MEAN_BOX: Final[NDArray[np.float64]] = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
"""(4, 2) float64: what the corners of a 4-point set are aligned to."""

HEAD_3D_INDICES: Final[NDArray[np.intp]] = np.array(
    [6, 7, 8, 9, 10, 17, 21, 22, 26, 31, 32, 33, 34, 35, 36, 39, 42, 45, 48, 50, 51, 52, 54, 56, 57, 58]
)
"""(26,): indices into the 68-point set that HEAD_3D pairs with."""

HEAD_3D: Final[NDArray[np.float64]] = np.array(
    [
        (4.056931, -11.432347, 1.636229), (1.833492, -12.542305, 4.061275), (0.000000, -12.901019, 4.070434),
        (-1.833492, -12.542305, 4.061275), (-4.056931, -11.432347, 1.636229), (6.825897, 1.275284, 4.402142),
        (1.330353, 1.636816, 6.903745), (-1.330353, 1.636816, 6.903745), (-6.825897, 1.275284, 4.402142),
        (1.930245, -5.060977, 5.914376), (0.746313, -5.136947, 6.263227), (0.000000, -5.485328, 6.763430),
        (-0.746313, -5.136947, 6.263227), (-1.930245, -5.060977, 5.914376), (5.311432, 0.000000, 3.987654),
        (1.789930, -0.091703, 4.413414), (-1.789930, -0.091703, 4.413414), (-5.311432, 0.000000, 3.987654),
        (2.774015, -7.566103, 5.048531), (0.509714, -7.056507, 6.566167), (0.000000, -7.131772, 6.704956),
        (-0.509714, -7.056507, 6.566167), (-2.774015, -7.566103, 5.048531), (-0.589441, -8.443925, 6.109526),
        (0.000000, -8.601736, 6.097667), (0.589441, -8.443925, 6.109526),
    ]
)
"""(26, 3) float64: the mean head (X, Y, Z), Y upward, Z out of the face."""

INDICES_98_TO_68: Final[NDArray[np.intp]] = np.array(
    [
        *range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60),
        60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75, *range(76, 88), *range(88, 96),
    ]
)
"""(68,): which of the 98 points stands for each of the 68."""
# fmt: on

PARTS_68: Final[dict[str, tuple[int, int, bool]]] = {
    "jaw": (0, 17, False),
    "chin": (7, 9, False),
    "right_eyebrow": (17, 22, False),
    "left_eyebrow": (22, 27, False),
    "nose": (27, 36, False),
    "right_eye": (36, 42, True),
    "left_eye": (42, 48, True),
    "mouth_outer": (48, 60, True),
    "mouth_inner": (60, 68, True),
}
"""Part -> (start, end exclusive, closed) of the 68-point set. "Right" is the subject's right."""

PARTS_98: Final[dict[str, tuple[int, int, bool]]] = {
    "jaw": (0, 33, False),
    "chin": (14, 19, False),
    "right_eyebrow": (33, 42, True),
    "left_eyebrow": (42, 51, True),
    "nose": (51, 60, False),
    "right_eye": (60, 68, True),
    "left_eye": (68, 76, True),
    "mouth_outer": (76, 88, True),
    "mouth_inner": (88, 96, True),
}
"""The same for the 98-point set."""

PARTS_4: Final[dict[str, tuple[int, int, bool]]] = {"face": (0, 4, True)}
"""The same for the 4-point set."""

_NO_PARTS: Final[dict[str, tuple[int, int, bool]]] = {}


def landmark_type(landmarks: NDArray[np.floating]) -> LandmarkType:
    """The type of one landmark set (n, 2) or of a batch of one type (..., n, 2).

    Raises:
        InputError: not a known number of (x, y) points.
    """
    if landmarks.ndim < 2 or landmarks.shape[-1] != 2 or landmarks.shape[-2] not in tuple(LandmarkType):
        raise InputError(
            f"landmarks of shape {tuple(landmarks.shape)} are of no known type: use 4, 51, 68 or 98 points (x, y)"
        )
    return LandmarkType(landmarks.shape[-2])


def parts(kind: LandmarkType) -> dict[str, tuple[int, int, bool]]:
    """Part name -> (start, end exclusive, closed polygon) for one landmark type; empty for 51 points."""
    tables = {LandmarkType.FULL_68: PARTS_68, LandmarkType.WFLW_98: PARTS_98, LandmarkType.ROI_4: PARTS_4}
    return tables.get(kind, _NO_PARTS)


def to_68(landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Reduce 98 points to 68; 4, 51 and 68 points come back as they are. Leading batch axes are kept.

    Raises:
        InputError: not a known number of points.
    """
    if landmark_type(landmarks) is LandmarkType.WFLW_98:
        return landmarks[..., INDICES_98_TO_68, :]
    return landmarks


def has_pose(landmarks: NDArray[np.floating]) -> bool:
    """Whether a head pose can be solved from these points: True for 68 and 98 of them."""
    return landmark_type(landmarks) in (LandmarkType.FULL_68, LandmarkType.WFLW_98)
