"""Head pose from landmarks: a batched perspective-n-point solve, and the centering offsets that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fsdeploy.faces.landmarks import HEAD_3D, HEAD_3D_INDICES, has_pose, to_68

Centering = Literal["face", "head", "legacy"]
Array = NDArray[np.float64]

FOCAL: Final = 4.0
"""Focal length of the pinhole camera that looks at the normalised face, in widths of the mean-face box."""
CENTRE: Final = 0.5
"""Its principal point, x and y."""
CAMERA: Final[Array] = np.array([[FOCAL, 0.0, CENTRE], [0.0, FOCAL, CENTRE], [0.0, 0.0, 1.0]])

CENTRE_3D: Final[dict[Centering, tuple[float, float, float]]] = {
    "head": (0.0, 0.0, -2.3),
    "face": (0.0, -1.5, 4.2),
}
"""The point of the mean head that each centering puts in the middle; "legacy" has none (offset 0)."""

_START_ROTATION: Final = (-0.025, 0.0, 0.0)
_START_TRANSLATION: Final = (0.0, 3.64, -58.7)
_ITERATIONS: Final = 12


@dataclass(frozen=True)
class Pose:
    """Pose of one head or of a batch; zeros where the landmark type has none."""

    rotation: Array
    """(..., 3): rotation vector (axis times angle in radians)."""
    translation: Array
    """(..., 3): translation. Z is negative in the solutions in use."""
    matrix: Array
    """(..., 3, 3): the rotation as a matrix."""

    def angles(self) -> Array:
        """(..., 3): pitch, yaw and roll in degrees."""
        r = self.matrix
        pitch = np.arctan2(r[..., 2, 1], r[..., 2, 2])
        yaw = np.arctan2(-r[..., 2, 0], np.hypot(r[..., 2, 1], r[..., 2, 2]))
        roll = np.arctan2(r[..., 1, 0], r[..., 0, 0])
        angles: Array = np.degrees(np.stack([pitch, yaw, roll], axis=-1))
        return angles

    def project(self, point: tuple[float, float, float]) -> Array:
        """(..., 2): where the camera sees a 3D point of the head, in normalised units."""
        seen = self.matrix @ np.asarray(point, np.float64) + self.translation
        result: Array = FOCAL * seen[..., :2] / seen[..., 2:] + CENTRE
        return result


def rotation_matrix(vector: Array) -> Array:
    """Rodrigues' formula: (..., 3) rotation vectors -> (..., 3, 3) matrices."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vector.shape[:-1], 3, 3)
    # sinc is exact through angle 0, where sin(a)/a and (1 - cos a)/a^2 are 0/0.
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2.0 * np.pi)) ** 2
    matrix: Array = np.eye(3) + first * cross + second * (cross @ cross)
    return matrix


def rotation_vector(matrix: Array) -> Array:
    """Inverse of `rotation_matrix` for angles below a half turn: (..., 3, 3) -> (..., 3)."""
    r = matrix
    skew = 0.5 * np.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1
    )
    sine = np.linalg.norm(skew, axis=-1, keepdims=True)
    cosine = (np.trace(r, axis1=-2, axis2=-1)[..., None] - 1.0) / 2.0
    angle = np.arctan2(sine, cosine)
    vector: Array = skew * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 1.0)
    return vector


def solve_pose(normalised: NDArray[np.floating]) -> Pose:
    """Solve the pose of every face of a batch at once.

    Damped Gauss-Newton on the reprojection error of the 26 points of HEAD_3D, float64, 12 iterations from a frontal
    start. The unknowns are the translation and a rotation increment multiplied from the left. It finds the minimum
    that OpenCV's iterative `solvePnP` finds from its own start, without its 4 ms a face.

    Args:
        normalised: (..., n, 2) landmarks in mean-face units, all of one type.

    Returns:
        Pose with the leading axes of `normalised`; zeros for 4 and 51 points, which carry no pose.

    Raises:
        InputError: not a known number of points.
    """
    lead = normalised.shape[:-2]
    if not has_pose(normalised):
        zero = np.zeros((*lead, 3))
        return Pose(zero, zero, np.broadcast_to(np.eye(3), (*lead, 3, 3)))
    image = to_68(normalised)[..., HEAD_3D_INDICES, :].astype(np.float64).reshape(-1, len(HEAD_3D), 2)
    rotation = np.broadcast_to(rotation_matrix(np.array(_START_ROTATION)), (len(image), 3, 3))
    translation = np.broadcast_to(np.array(_START_TRANSLATION), (len(image), 3))
    for iteration in range(_ITERATIONS):
        step = _gauss_newton_step(image, rotation, translation, damping=1e-3 * 0.1**iteration)
        translation = translation + step[:, :3]
        rotation = rotation_matrix(step[:, 3:]) @ rotation
    rotation = rotation.reshape(*lead, 3, 3)
    return Pose(rotation_vector(rotation), translation.reshape(*lead, 3), rotation)


def _gauss_newton_step(image: Array, rotation: Array, translation: Array, damping: float) -> Array:
    """(N, 6): the change of translation and rotation that one iteration takes; 0 where it cannot be solved."""
    turned = HEAD_3D @ rotation.transpose(0, 2, 1)  # (N, 26, 3)
    with np.errstate(all="ignore"):
        x, y, z = np.moveaxis(turned + translation[:, None], -1, 0)  # (N, 26) each
        residual = image - (FOCAL * np.stack([x / z, y / z], axis=-1) + CENTRE)
        zero = np.zeros_like(z)
        by_point = FOCAL * np.stack([1 / z, zero, -x / z**2, zero, 1 / z, -y / z**2], axis=-1).reshape(*z.shape, 2, 3)
        px, py, pz = np.moveaxis(turned, -1, 0)
        by_turn = np.stack([zero, pz, -py, -pz, zero, px, py, -px, zero], axis=-1).reshape(*z.shape, 3, 3)
        jacobian = np.concatenate([by_point, by_point @ by_turn], axis=-1).reshape(len(image), -1, 6)
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        right = jacobian.transpose(0, 2, 1) @ residual.reshape(len(image), -1, 1)
        ridge = damping * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(6)
        usable = np.isfinite(normal).all(axis=(1, 2)) & np.isfinite(right).all(axis=(1, 2))
    system = np.where(usable[:, None, None], normal + ridge, np.eye(6))
    try:
        step: Array = np.linalg.solve(system, np.where(usable[:, None, None], right, 0.0))[..., 0]
    except np.linalg.LinAlgError:  # one singular system must not cost the other faces of the batch their pose
        step = (np.linalg.pinv(system) @ np.where(usable[:, None, None], right, 0.0))[..., 0]
    return step


def centering_offsets(pose: Pose) -> dict[Centering, Array]:
    """Centering -> (..., 2) shift (x, y) of its middle from the mean-face box's, in normalised units."""
    offsets: dict[Centering, Array] = {"legacy": np.zeros((*pose.translation.shape[:-1], 2))}
    posed = pose.translation[..., 2:] != 0.0
    safe = Pose(pose.rotation, np.where(posed, pose.translation, 1.0), pose.matrix)
    for name, point in CENTRE_3D.items():
        offsets[name] = np.where(posed, safe.project(point) - CENTRE, 0.0)
    return offsets
