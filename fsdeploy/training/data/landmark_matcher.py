"""Partners for a warp to landmarks: for each face the most similar poses and expressions of the other identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import ConfigError, InputError
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.geometry import Centering
from fsdeploy.faces.landmarks import to_68
from fsdeploy.faces.png import read_header
from fsdeploy.training.data.files import get_sorted_images

_CHUNK = 512


class LandmarkMatcher:
    """Aligned landmarks of two identities and, for every face, its nearest faces of the other.

    Args:
        folders: the two folders of faces.
        size: edge of the crop whose pixels the landmarks are in.
        centering, coverage, y_offset: of that crop; coverage and offset as shares (1.0, 0.0).
        num_choices: nearest faces kept per face; all of them if the other folder holds fewer.
        faces: the aligned faces of both identities, where they are known already; read from the folders if None.

    Raises:
        ConfigError: not exactly two identities.
        InputError: a face has neither 68 nor 98 landmarks; the message names its file.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        size: int,
        centering: Centering,
        coverage: float,
        y_offset: float,
        num_choices: int = 10,
        *,
        faces: Sequence[Sequence[AlignedFace]] | None = None,
    ) -> None:
        if len(folders) != 2:
            raise ConfigError(f"warp to landmarks works between two folders, not {len(folders)}: turn it off")
        if faces is None:
            faces = [_read(Path(folder)) for folder in folders]
        self._landmarks = [
            np.stack([to_68(face.aligned_landmarks(size, centering, coverage, y_offset)) for face in side]).astype(
                np.float32
            )
            for side in faces
        ]
        first, second = self._landmarks
        self._nearest = [_nearest(first, second, num_choices), _nearest(second, first, num_choices)]

    def get_close_landmarks(
        self, indices: NDArray[np.int64], random: np.random.Generator | None = None
    ) -> NDArray[np.float32]:
        """Landmarks of faces `indices` (2, B) and of one random near face of the other identity each.

        Returns:
            (2 B, 2, 68, 2), identity-major: [:, 0] own, [:, 1] partner's, pixels of the crop.
        """
        random = random or np.random.default_rng()
        pairs = []
        for side, index in enumerate(indices):
            near = self._nearest[side][index]
            chosen = near[np.arange(len(index)), random.integers(0, near.shape[1], len(index))]
            pairs.append(np.stack([self._landmarks[side][index], self._landmarks[1 - side][chosen]], axis=1))
        return np.concatenate(pairs)


def _read(folder: Path) -> list[AlignedFace]:
    faces = []
    for name in get_sorted_images(folder):
        landmarks = read_header(Path(name)).face.landmarks
        if len(landmarks) not in (68, 98):
            raise InputError(f"{name} has {len(landmarks)} landmarks: a warp to landmarks needs faces with 68 or 98")
        faces.append(AlignedFace.from_landmarks(landmarks))
    return faces


def _nearest(own: NDArray[np.float32], other: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices (faces, count) into `other` of the nearest landmark sets, in no order. Memory grows with the number of
    faces, not with its square: distances are taken chunk by chunk."""
    count = min(count, len(other))
    centre = other.reshape(len(other), -1).mean(axis=0)
    # around a common centre, |a|^2 + |b|^2 - 2ab keeps its digits in single precision
    flat = other.reshape(len(other), -1) - centre
    squares = np.square(flat).sum(axis=1)
    nearest = np.empty((len(own), count), np.int64)
    for start in range(0, len(own), _CHUNK):
        part = own[start : start + _CHUNK].reshape(-1, flat.shape[1]) - centre
        distance = squares - 2 * part @ flat.T
        nearest[start : start + _CHUNK] = np.argpartition(distance, count - 1, axis=1)[:, :count]
    return nearest
