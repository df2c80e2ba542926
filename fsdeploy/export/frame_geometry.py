"""Alignment inside an ONNX graph: from 68 landmarks to the map between frame and crop.

The same maths as `fsdeploy.faces` (similarity, head pose, centering offsets), in float32 and without trigonometry, so
that any runtime has the operators. Maps are kept as lin @ (p - centre) + shift: no large numbers cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsdeploy.export.builder import Builder, Value
from fsdeploy.faces.geometry import EXTRACT_SIZE, PADDING
from fsdeploy.faces.landmarks import HEAD_3D, HEAD_3D_INDICES, MEAN_FACE
from fsdeploy.faces.pose import CENTRE, CENTRE_3D, FOCAL
from fsdeploy.model.info import ModelInfo

_ITERATIONS = 10
_START_DEPTH = -58.7
_DAMPING = 1e-5


@dataclass(frozen=True)
class Map:
    """A similarity of the plane: out = lin @ (p - centre) + shift."""

    builder: Builder
    lin: Value
    """(2, 2)."""
    centre: Value
    """(2,)."""
    shift: Value
    """(2,)."""

    @property
    def scale(self) -> Value:
        """Output pixels per input pixel, a scalar."""
        row = self.lin.at(0)
        return (row * row).sum(0).sqrt()

    def __call__(self, points: Value) -> Value:
        """Send points (..., 2) through."""
        return (points - self.centre) @ self.lin.transpose(1, 0) + self.shift

    def back(self, points: Value) -> Value:
        """Send points (..., 2) through the inverse."""
        squared = self.scale * self.scale
        return ((points - self.shift) @ self.lin) / squared + self.centre

    def resized(self, factor: Value | float) -> Map:
        """The map to the same crop at `factor` times the edge, half-pixel centres."""
        return Map(self.builder, self.lin * factor, self.centre, self.shift * factor + (factor - 1.0) * 0.5)


@dataclass(frozen=True)
class Alignment:
    """What follows from one face's landmarks: frame -> mean-face units, and the offset of the training crop."""

    unit: Map
    offset: Value
    """(2,) of the model's centering, in mean-face units."""


def align(builder: Builder, landmarks: Value, info: ModelInfo) -> Alignment:
    """Align (68, 2) landmarks as `fsdeploy.faces.aligned` does."""
    core = landmarks.slice(0, 17, 68)  # (51, 2)
    centre = core.mean(0)
    moved = core - centre
    mean = MEAN_FACE.mean(axis=0)
    target = MEAN_FACE - mean
    variance = (moved * moved).sum(0, 1).maximum(1e-6)
    a = (moved * target).sum(0, 1) / variance
    b = (moved * np.stack([target[:, 1], -target[:, 0]], axis=1)).sum(0, 1) / variance
    lin = builder.concat(a.reshape(1), (-b).reshape(1), b.reshape(1), a.reshape(1)).reshape(2, 2)
    unit = Map(builder, lin, centre, builder.constant(mean))
    if info.centering == "legacy":
        return Alignment(unit, builder.constant(np.zeros(2)))
    points = builder.op("Gather", unit(landmarks), HEAD_3D_INDICES.astype(np.int64), axis=0)  # (26, 2)
    return Alignment(unit, _centre_offset(builder, points, CENTRE_3D[info.centering]))  # type: ignore[index]


def crop_map(alignment: Alignment, info: ModelInfo, size: int) -> Map:
    """Frame -> S x S training crop, as `fsdeploy.faces.geometry.crop_matrix`."""
    ratio = PADDING[info.centering]  # type: ignore[index]
    edge = 2 * round(EXTRACT_SIZE * (1 - PADDING["head"]) / (1 - ratio) * info.coverage / 2)
    core = edge * (1 - ratio) / info.coverage
    k = size / edge
    unit = alignment.unit
    shift = (unit.shift + np.array([0.0, info.vertical_offset]) - alignment.offset) * (core * k)
    return Map(unit.builder, unit.lin * (core * k), unit.centre, shift + ((edge - core) / 2 * k + (k - 1) / 2))


def _centre_offset(builder: Builder, image: Value, point: tuple[float, float, float]) -> Value:
    """Solve the head pose by Gauss-Newton, and see where it puts a 3D point: (2,) from the middle.

    Unknowns: translation, and a rotation multiplied from the left as a unit quaternion (1, w / 2), which needs no sine.
    """
    head = builder.constant(HEAD_3D)
    rotation = builder.constant(np.eye(3))
    translation = builder.constant(np.array([0.0, 3.64, _START_DEPTH]))
    for _ in range(_ITERATIONS):
        turned = head @ rotation.transpose(1, 0)  # (26, 3)
        step = _step(builder, image, turned, translation)  # (6,)
        translation = translation + step.slice(0, 0, 3)
        rotation = _turn(builder, step.slice(0, 3, 6)) @ rotation
    seen = builder.constant(np.array(point)) @ rotation.transpose(1, 0) + translation
    return seen.slice(0, 0, 2) / seen.slice(0, 2, 3) * FOCAL


def _step(builder: Builder, image: Value, turned: Value, translation: Value) -> Value:
    """(6,) Gauss-Newton step of translation and rotation."""
    points = turned + translation
    x, y, z = (points.slice(1, axis, axis + 1) for axis in range(3))  # (26, 1)
    px, py, pz = (turned.slice(1, axis, axis + 1) for axis in range(3))
    f = FOCAL / z
    u, v = x / z, y / z
    residual = builder.concat(image.slice(1, 0, 1) - u * FOCAL - CENTRE, image.slice(1, 1, 2) - v * FOCAL - CENTRE)
    zero = f * 0.0
    # d(u, v) / d(translation), then d / d(rotation): the cross product of a turning axis with the turned point.
    rows_u = builder.concat(f, zero, -f * u, -f * u * py, f * pz + f * u * px, -f * py, axis=1)
    rows_v = builder.concat(zero, f, -f * v, -f * pz - f * v * py, f * v * px, f * px, axis=1)
    jacobian = builder.concat(rows_u, rows_v)  # (52, 6)
    size = ((jacobian * jacobian).sum(0) + 1e-12).sqrt()  # columns brought to one scale: float32 has 7 digits
    scaled = jacobian / size
    normal = scaled.transpose(1, 0) @ scaled + np.eye(6) * _DAMPING
    return _solve(builder, normal, scaled.transpose(1, 0) @ residual).reshape(6) / size


def _solve(builder: Builder, matrix: Value, right: Value) -> Value:
    """Gauss-Jordan elimination of a positive definite (6, 6) system, written out."""
    system = builder.concat(matrix, right, axis=1)  # (6, 7)
    for pivot in range(6):
        row = system.slice(0, pivot, pivot + 1)
        column = system.slice(1, pivot, pivot + 1)
        row = row / row.slice(1, pivot, pivot + 1)
        system = system - (column - np.eye(6)[:, pivot : pivot + 1]) @ row
    return system.slice(1, 6, 7)


def _turn(builder: Builder, w: Value) -> Value:
    """(3, 3) rotation of the unit quaternion along (1, w / 2)."""
    half = w * 0.5
    squared = (half * half).sum(0)
    cross = (half @ _CROSS).reshape(3, 3)
    return np.eye(3) + (cross + cross @ cross) * (2.0 / (squared + 1.0))


_CROSS = np.array(
    [[0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0]], np.float32
)
"""(3, 9): a vector times this is its cross-product matrix, row by row."""
