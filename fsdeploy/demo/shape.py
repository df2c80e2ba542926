"""The head's geometry: 68 landmarks and the vertices between and around them, in three dimensions.

Head coordinates: x to the image's right, y down, z to the camera; the unit is half the neutral head's width. The first
68 vertices are the landmarks in their usual order, so every drawn face knows its landmarks exactly.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.demo.identities import Proportions
from fsdeploy.demo.scene import Scene

Array = NDArray[np.float64]

LANDMARKS = 68
HAIRLINE = slice(68, 83)
SKULL = slice(83, 98)
_CHEEKS = (98, 99)
_CHIN_FILL = slice(102, 105)
_UPPER_INNER_LIP = [61, 62, 63]
_LOWER_INNER_LIP = [67, 66, 65]


def _mirrored(right: list[list[float]]) -> list[list[float]]:
    return [[-x, y, z] for x, y, z in reversed(right)]


def _landmarks() -> Array:
    angle = np.linspace(0.0, np.pi, 17)
    jaw = np.stack(
        [
            -np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.75,
            -0.2 + 1.3 * np.sin(angle) ** 0.95,
            -0.55 + 0.75 * np.sin(angle) ** 1.2,
        ],
        axis=1,
    )
    brow = [
        [-0.80, -0.44, 0.22], [-0.66, -0.55, 0.34], [-0.50, -0.58, 0.42], [-0.33, -0.55, 0.47], [-0.18, -0.48, 0.50],
    ]  # fmt: skip
    ridge = [[0.0, -0.30, 0.50], [0.0, -0.10, 0.60], [0.0, 0.08, 0.72], [0.0, 0.25, 0.82]]
    nostrils = [[-0.21, 0.34, 0.50], [-0.11, 0.38, 0.57], [0.0, 0.41, 0.62], [0.11, 0.38, 0.57], [0.21, 0.34, 0.50]]
    eye = [
        [-0.63, -0.25, 0.28], [-0.52, -0.33, 0.38], [-0.38, -0.33, 0.41],
        [-0.27, -0.23, 0.38], [-0.38, -0.18, 0.40], [-0.52, -0.18, 0.37],
    ]  # fmt: skip
    other_eye = [[-x, y, z] for x, y, z in (eye[i] for i in (3, 2, 1, 0, 5, 4))]
    outer_lips = [
        [-0.36, 0.70, 0.36], [-0.23, 0.62, 0.47], [-0.09, 0.585, 0.54], [0.0, 0.60, 0.55], [0.09, 0.585, 0.54],
        [0.23, 0.62, 0.47], [0.36, 0.70, 0.36], [0.24, 0.81, 0.46], [0.10, 0.855, 0.51], [0.0, 0.865, 0.52],
        [-0.10, 0.855, 0.51], [-0.24, 0.81, 0.46],
    ]  # fmt: skip
    inner_lips = [
        [-0.29, 0.70, 0.40], [-0.11, 0.665, 0.50], [0.0, 0.67, 0.51], [0.11, 0.665, 0.50],
        [0.29, 0.70, 0.40], [0.11, 0.745, 0.49], [0.0, 0.75, 0.50], [-0.11, 0.745, 0.49],
    ]  # fmt: skip
    parts = [brow, _mirrored(brow), ridge, nostrils, eye, other_eye, outer_lips, inner_lips]
    return np.concatenate([jaw, *map(np.array, parts)])


def _surroundings() -> Array:
    angle = np.linspace(np.pi, 0.0, 15)
    hairline = np.stack([np.cos(angle), -0.25 - 0.85 * np.sin(angle), -0.5 + 0.8 * np.sin(angle)], axis=1)
    skull = np.stack([1.13 * np.cos(angle), -0.15 - 1.35 * np.sin(angle), -0.9 + 0.35 * np.sin(angle)], axis=1)
    between = [
        [-0.6, 0.15, 0.33], [0.6, 0.15, 0.33], [-0.45, 0.45, 0.38], [0.45, 0.45, 0.38], [0.0, 1.0, 0.42],
        [-0.35, 0.98, 0.25], [0.35, 0.98, 0.25], [0.0, -0.75, 0.5], [-0.5, -0.8, 0.35], [0.5, -0.8, 0.35],
        [-0.8, 0.1, 0.05], [0.8, 0.1, 0.05], [-0.7, 0.5, 0.0], [0.7, 0.5, 0.0], [0.0, 0.50, 0.50],
    ]  # fmt: skip
    return np.concatenate([hairline, skull, np.array(between)])


NEUTRAL: Array = np.concatenate([_landmarks(), _surroundings()])
"""(113, 3) vertices of the neutral head. Their x and y are also the texture's coordinates, for every identity."""


@functools.cache
def triangles() -> NDArray[np.intp]:
    """(T, 3) vertex indices: the Delaunay triangulation of the neutral head seen from the front."""
    grid = np.round(NEUTRAL[:, :2] * 1000.0).astype(int)
    index: dict[tuple[int, int], int] = {}
    subdivision = cv2.Subdiv2D((-4000, -4000, 8000, 8000))
    for i, (x, y) in enumerate(grid.tolist()):
        index.setdefault((x, y), i)
        subdivision.insert((float(x), float(y)))
    corners = np.round(subdivision.getTriangleList()).astype(int).reshape(-1, 3, 2)
    found = [[index.get((x, y), -1) for x, y in corner] for corner in corners.tolist()]
    return np.array([triangle for triangle in found if min(triangle) >= 0], dtype=np.intp)


def identity_shape(proportions: Proportions) -> Array:
    """(113, 3) vertices of a head of these proportions, at rest."""
    shape = NEUTRAL.copy()
    shape[:, 0] *= proportions.width
    shape[3:14, 0] *= 1.0 + (proportions.jaw - 1.0) * np.sin(np.linspace(0.0, np.pi, 11))
    shape[5:12, 1] += proportions.chin_shift
    shape[31:36, 0] *= proportions.nose
    shape[27:31, 2] += 0.25 * (proportions.nose - 1.0)
    for eye in (slice(36, 42), slice(42, 48)):
        centre = shape[eye].mean(axis=0)
        shape[eye] = centre + (shape[eye] - centre) * [proportions.eyes, proportions.eyes, 1.0]
    centre = shape[48:68].mean(axis=0)
    shape[48:68] = centre + (shape[48:68] - centre) * [proportions.mouth, 1.0 + 0.6 * (proportions.mouth - 1.0), 1.0]
    shape[17:27, 1] += proportions.brow_shift
    return shape


def with_expression(rest: Array, scene: Scene) -> Array:
    """Move the vertices of a head at rest (113, 3) as the scene's mouth, smile, brows and lids say."""
    shape = rest.copy()
    _open_mouth(shape, scene.mouth_open)
    _smile(shape, scene.smile)
    shape[17:27, 1] -= 0.10 * scene.brow_raise
    for upper, lower in (([37, 38], [41, 40]), ([43, 44], [47, 46])):
        shape[upper] += (shape[lower] - shape[upper]) * scene.blink * 0.92
    return shape


def _open_mouth(shape: Array, amount: float) -> None:
    # The neutral lips stand a little apart: below a quarter of the way the gap is first closed.
    gap = (shape[_LOWER_INNER_LIP, 1] - shape[_UPPER_INNER_LIP, 1]).mean() * 0.95
    drop = amount * 0.26 - (1.0 - min(amount * 4.0, 1.0)) * gap
    shape[_LOWER_INNER_LIP, 1] += drop
    shape[55:60, 1] += drop * np.array([0.7, 1.0, 1.0, 1.0, 0.7])
    shape[[60, 64, 48, 54], 1] += drop * 0.35
    shape[4:13, 1] += amount * 0.20 * np.sin(np.linspace(0.0, np.pi, 9))
    shape[_CHIN_FILL, 1] += amount * 0.2


def _smile(shape: Array, amount: float) -> None:
    for corner, side in ((48, -1.0), (60, -1.0), (54, 1.0), (64, 1.0)):
        shape[corner] += np.array([side * 0.09, -0.09, -0.04]) * amount
    for beside, side in ((49, -1.0), (59, -1.0), (53, 1.0), (55, 1.0)):
        shape[beside] += np.array([side * 0.05, -0.04, 0.0]) * amount
    shape[[100, 101], 1] -= 0.05 * amount
    shape[_CHEEKS, 2] += 0.05 * amount


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """(3, 3) rotation of head coordinates, turned by yaw, then pitch, then roll (radians)."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cp, -sp], [0.0, sp, cp]])
    about_z = np.array([[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(about_z @ about_x @ about_y)


def project(points: Array, scene: Scene, height: int, width: int) -> Array:
    """Camera image of head points (N, 3): (N, 2) pixels in a frame of height x width, by a pinhole six units away."""
    turned = points @ rotation(scene.yaw, scene.pitch, scene.roll).T
    distance = 6.0
    spread = distance / (distance - turned[:, 2:]) * scene.scale * height
    centre = np.array([width / 2.0 + scene.shift[0] * height, height * (0.5 + scene.shift[1])])
    return np.asarray(turned[:, :2] * spread + centre)


def vertex_normals(shape: Array) -> Array:
    """(N, 3) unit normals in head coordinates, pointing out of the face."""
    faces = triangles()
    across = np.cross(shape[faces[:, 1]] - shape[faces[:, 0]], shape[faces[:, 2]] - shape[faces[:, 0]])
    across *= np.where(across[:, 2:] < 0.0, -1.0, 1.0)
    normals = np.zeros_like(shape)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9))
