"""Which part of a frame an exported model wants to see, from its metadata and 68 landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.geometry import PADDING, Centering
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

    def landmarks_in(self, size: int) -> NDArray[np.float64]:
        """(68, 2) landmarks in crop pixels."""
        matrix = self.matrix(size)
        points: NDArray[np.float64] = np.asarray(self.aligned.landmarks, np.float64) @ matrix[:, :2].T + matrix[:, 2]
        return points

    def ellipse(self, center: Pair, half_axes: Pair) -> tuple[Pair, Pair]:
        """An ellipse of the mean-face frame as shares of the crop's edge (centre, half axes)."""
        size = 1024
        crop, base = self.matrix(size), np.asarray(self.aligned.matrix, np.float64)
        scale = np.sqrt(abs(np.linalg.det(crop[:, :2]) / np.linalg.det(base[:, :2])))
        point = crop[:, :2] @ np.linalg.solve(base[:, :2], np.asarray(center) - base[:, 2]) + crop[:, 2]
        x, y = (point + 0.5) / size
        return (float(x), float(y)), (half_axes[0] * scale / size, half_axes[1] * scale / size)


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
