"""Which part of a frame an exported model wants to see, from its metadata and 68 landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.geometry import PADDING, Centering
from fsdeploy.runtime.mask import FACE_ELLIPSE
from fsdeploy.runtime.metadata import SwapMetadata

Matrix = NDArray[np.float64]
Pair = tuple[float, float]


@dataclass(frozen=True)
class FaceGeometry:
    """One face of one frame as a model sees it."""

    aligned: AlignedFace
    metadata: SwapMetadata

    def matrix(self, size: int) -> Matrix:
        """(2, 3): frame pixels -> pixels of the crop at edge `size`, pixel centres at integers."""
        crop = self.metadata.extra.get("crop")
        if crop is None or crop["name"] == "none":
            meta = self.metadata
            return self.aligned.crop_matrix(size, as_centering(meta.centering), meta.coverage, meta.vertical_offset)
        scale = size / crop["side"]
        matrix: Matrix = np.asarray(self.aligned.matrix, np.float64) * scale
        matrix[:, 2] += size / 2 - np.asarray(crop["center"]) * scale
        return matrix

    def ellipse(self) -> tuple[Pair, Pair]:
        """Centre and half axes of a face as shares of the crop's edge."""
        crop = self.metadata.extra.get("crop")
        if crop is not None:
            return face_ellipse(crop["side"], tuple(crop["center"]))
        meta = self.metadata
        return face_ellipse(*frontal_crop(meta.centering, meta.coverage, meta.vertical_offset))

    def landmarks_in(self, size: int) -> NDArray[np.float64]:
        """(68, 2) landmarks in crop pixels."""
        matrix = self.matrix(size)
        points: NDArray[np.float64] = np.asarray(self.aligned.landmarks, np.float64) @ matrix[:, :2].T + matrix[:, 2]
        return points


_FRONTAL: dict[str, tuple[float, Pair]] = {
    "legacy": (0.625, (0.5, 0.5)),
    "face": (0.5, (0.5, 0.351)),
    "head": (0.375, (0.5, 0.351)),
}
"""Centering -> share of the crop that the mean face spans, and the crop's centre for a frontal face."""


def frontal_crop(centering: str, coverage: float, vertical_offset: float) -> tuple[float, Pair]:
    """Side and centre (x, y) of a training crop in the mean-face frame, for a frontal face.

    The centre of "face" and "head" crops moves with the head's pose; this is where it lies without any.
    """
    share, (x, y) = _FRONTAL[as_centering(centering)]
    return coverage / share, (x, y - vertical_offset)


def face_ellipse(side: float, center: Pair) -> tuple[Pair, Pair]:
    """Centre and half axes of a face (brow to chin, ear to ear) as shares of a crop of that side and centre."""
    (x, y), (half_x, half_y) = FACE_ELLIPSE
    middle = ((x - center[0]) / side + 0.5, (y - center[1]) / side + 0.5)
    return middle, (half_x / side, half_y / side)


def as_centering(name: str) -> Centering:
    """A centering by the name that metadata gives.

    Raises:
        InputError: an unknown one.
    """
    if name not in PADDING:
        raise InputError(f"metadata names the centering '{name}': only {', '.join(PADDING)} are known; export again")
    return name


def face_geometry(landmarks: NDArray[np.float64], metadata: SwapMetadata) -> FaceGeometry:
    """Align one face, (68, 2) landmarks in frame pixels.

    Raises:
        InputError: the landmarks all coincide.
    """
    return FaceGeometry(AlignedFace.from_landmarks(landmarks), metadata)
