"""One face of a frame with everything that follows from its landmarks: matrix, pose, offsets, crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.faces import geometry
from fsdeploy.faces.geometry import Centering, Pose
from fsdeploy.faces.landmarks import MEAN_FACE, has_pose, landmark_type, to_68

Array = NDArray[np.float64]

_LARGEST: Final = 1e6
"""Landmarks further out than this many pixels are a mistake, not a face."""
_SCALES: Final = (1e-6, 1.0)
"""Normalised units per pixel: a mean-face box between 1 and 1 000 000 pixels wide."""
_LARGEST_OFFSET: Final = 2.0
"""A centre of the head this many face widths away is a failed pose; real ones stay below 0.5."""
_LARGEST_SUPERSAMPLE: Final = 8


@dataclass(frozen=True)
class AlignedFace:
    """Landmarks of one face and what was solved from them."""

    landmarks: Array
    """(n, 2) frame pixels, as given: 4, 51, 68 or 98 points."""
    matrix: Array
    """(2, 3): frame pixels -> normalised units (`geometry.similarity`)."""
    offsets: Mapping[Centering, Array]
    """Centering -> (2,) offset in normalised units."""
    pose: Pose
    """Rotation (3,), translation (3,); zeros for 4 and 51 points."""

    @classmethod
    def from_landmarks(cls, landmarks: NDArray[np.floating]) -> AlignedFace:
        """Align one face from its landmarks (n, 2) in frame pixels.

        Raises:
            InputError: the landmarks are of no known type, not finite, in one point, or of no face.
        """
        return align_many([landmarks])[0]

    @property
    def normalised(self) -> Array:
        """(n, 2): the landmarks in normalised units."""
        return geometry.normalise(self.landmarks, self.matrix)

    @property
    def average_distance(self) -> float:
        """Mean absolute distance of the core points from the mean face; above 0.15 is suspicious. 0 without a pose."""
        if not has_pose(self.landmarks):
            return 0.0
        return float(np.abs(to_68(self.normalised)[17:] - MEAN_FACE).mean())

    @property
    def relative_position(self) -> float:
        """Gap from eyes and brows down to the mouth, normalised; negative when upside down. 1 without a pose."""
        if not has_pose(self.landmarks):
            return 1.0
        y = to_68(self.normalised)[:, 1]
        return float(y[48:68].min() - max(y[17:27].max(), y[36:48].max()))

    def aligned_landmarks(
        self, size: int, centering: Centering, coverage: float, vertical_offset: float = 0.0
    ) -> Array:
        """(n, 2): the landmarks in pixels of a size x size crop (whole-pixel padding, as masks are drawn)."""
        pad = geometry.padding(size, centering, coverage)
        shift = np.array((0.0, vertical_offset)) - self.offsets[centering]
        return (size - 2 * pad) * (self.normalised + shift) + pad

    def adjusted_matrix(self, size: int, centering: Centering, coverage: float) -> Array:
        """(2, 3): frame -> crop with whole-pixel padding and without a vertical offset."""
        return geometry.adjusted_matrix(self.matrix, self.offsets[centering], size, centering, coverage)

    def crop_matrix(self, size: int, centering: Centering, coverage: float, vertical_offset: float = 0.0) -> Array:
        """(2, 3): frame -> crop exactly as training saw it (`geometry.crop_matrix`)."""
        return geometry.crop_matrix(self.matrix, self.offsets[centering], size, centering, coverage, vertical_offset)

    def roi(self, size: int, centering: Centering, coverage: float, vertical_offset: float = 0.0) -> NDArray[np.int32]:
        """(4, 2): the crop's corners in the frame: top left, bottom left, bottom right, top right."""
        matrix = self.adjusted_matrix(size, centering, coverage)
        matrix[1, 2] += vertical_offset * (size - 2 * geometry.padding(size, centering, coverage))
        last = size - 1.0
        corners = np.array([(0.0, 0.0), (0.0, last), (last, last), (last, 0.0)])
        return np.rint(geometry.transform(corners, geometry.invert(matrix))).astype(np.int32)

    def crop(
        self,
        frame: NDArray[np.uint8],
        size: int,
        centering: Centering,
        coverage: float,
        vertical_offset: float = 0.0,
    ) -> NDArray[np.uint8]:
        """Crop (size, size, C) of a whole frame (H, W, C); what lies outside the frame is 0.

        A face that shrinks to less than half is drawn larger first and averaged down, so that it does not alias.
        """
        matrix = self.crop_matrix(size, centering, coverage, vertical_offset)
        return warp_crop(frame, matrix, size)


def warp_crop(frame: NDArray[np.uint8], matrix: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """Warp a frame by a (2, 3) map frame -> crop to (size, size, C); supersampled when the map shrinks below half."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    factor = 1
    while scale * factor < 0.5 and factor < _LARGEST_SUPERSAMPLE:
        factor *= 2
    fine = matrix.astype(np.float64) * factor
    fine[:, 2] += (factor - 1) / 2.0  # pixel centres at integers, on both grids
    edge = size * factor
    flags = cv2.INTER_CUBIC if scale * factor >= 1.0 else cv2.INTER_LINEAR
    result = cv2.warpAffine(frame, fine, (edge, edge), flags=flags)
    if factor > 1:
        result = cv2.resize(result, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(result, np.uint8)


def landmark_defect(landmarks: NDArray[np.floating]) -> str | None:
    """Why these landmarks (n, 2) are of no face that can be aligned, or None when they are sound."""
    try:
        landmark_type(landmarks)
        if not np.isfinite(landmarks).all():
            return "landmarks hold values that are not numbers"
        if np.abs(landmarks).max() > _LARGEST:
            return f"landmarks lie more than {_LARGEST:.0f} pixels out"
        matrix = geometry.similarity(landmarks)
    except InputError as error:
        return str(error)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not _SCALES[0] < scale < _SCALES[1]:
        return f"landmarks fit no face: its width would be {1.0 / scale if scale else float('inf'):.3g} pixels"
    return None


def align_each(landmarks: Sequence[NDArray[np.floating]]) -> list[AlignedFace | InputError]:
    """Align many faces in one batched solve per landmark type; a bad face costs only itself.

    Args:
        landmarks: one (n, 2) array in frame pixels per face; types may be mixed.

    Returns:
        In the given order, the aligned face or the error that says why there is none.
    """
    results: list[AlignedFace | InputError | None] = [None] * len(landmarks)
    by_type: dict[int, list[int]] = {}
    for index, points in enumerate(landmarks):
        defect = landmark_defect(points)
        if defect is None:
            by_type.setdefault(len(points), []).append(index)
        else:
            results[index] = InputError(f"{defect}: extract the face again")
    for indices in by_type.values():
        batch = np.stack([np.asarray(landmarks[index], np.float64) for index in indices])
        matrices = geometry.similarity(batch)
        pose = geometry.solve_pose(geometry.normalise(batch, matrices))
        offsets = geometry.centering_offsets(pose)
        for row, index in enumerate(indices):
            own = {name: values[row] for name, values in offsets.items()}
            if all(np.abs(value).max() < _LARGEST_OFFSET for value in own.values()):
                own_pose = Pose(pose.rotation[row], pose.translation[row], pose.matrix[row])
                results[index] = AlignedFace(batch[row], matrices[row], own, own_pose)
            else:
                results[index] = InputError("no head pose fits these landmarks: extract the face again")
    return [result for result in results if result is not None]


def align_many(landmarks: Sequence[NDArray[np.floating]]) -> list[AlignedFace]:
    """Align many faces in one batched solve per landmark type.

    Raises:
        InputError: of the first face that cannot be aligned, naming its position. `align_each` keeps the others.
    """
    faces: list[AlignedFace] = []
    for index, result in enumerate(align_each(landmarks)):
        if isinstance(result, InputError):
            raise InputError(f"face {index}: {result}" if len(landmarks) > 1 else str(result))
        faces.append(result)
    return faces
