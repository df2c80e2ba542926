"""Warp of a face towards another face's landmarks: a triangle mesh over both sets, one affine map per triangle."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_JAW_END = 17
_SHIFT = 4
"""Fraction bits of triangle corners when they are drawn."""


@dataclass(frozen=True)
class TriangleMap:
    """Piecewise affine map of a face: output pixel -> place in the source."""

    index: NDArray[np.uint8]
    """(S, S), the triangle that each pixel lies in."""
    matrices: NDArray[np.float64]
    """(triangles, 2, 3), (x, y, 1) of the output pixel -> (x, y) in the source. Entry 0 is the identity, for pixels of
    no triangle."""

    def to_map(self, grids: NDArray[np.float32], after: NDArray[np.float64]) -> NDArray[np.float32]:
        """Sampling map (2, S, S), x plane then y plane, followed by the affine map `after` (2, 3).

        `grids` (2, S, S) holds the row and the column of each pixel.
        """
        table = compose(self.matrices, after).astype(np.float32)
        row, column = grids
        planes = [
            np.take(table[:, i, 0], self.index) * column
            + np.take(table[:, i, 1], self.index) * row
            + np.take(table[:, i, 2], self.index)
            for i in range(2)
        ]
        return np.stack(planes)


def compose(first: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine maps `first` (n, 2, 3), each followed by `after` (2, 3)."""
    out: NDArray[np.float64] = np.einsum("ij,njk->nik", after[:, :2], first)
    out[:, :, 2] += after[:, 2]
    return out


def landmark_map(
    source: NDArray[np.floating], target: NDArray[np.floating], anchors: NDArray[np.floating], size: int
) -> TriangleMap:
    """Map that moves the landmarks `source` of a face to the places `target`; the edge of the face stays.

    The mesh is the Delaunay triangulation of the target points. Jaw points in or on the hull of both inner faces are
    left out, for they would fold the mesh.

    Args:
        source: (68, 2) landmarks of the face, pixels.
        target: (68, 2) where they shall be seen.
        anchors: (8, 2) fixed points on the edge.
        size: edge of the face.
    """
    kept = _mesh_points(source, target)
    src = np.concatenate([source[kept], anchors]).astype(np.float64)
    dst = np.concatenate([target[kept], anchors]).astype(np.float32)
    index = np.zeros((size, size), np.uint8)
    matrices = [np.array([[1.0, 0, 0], [0, 1, 0]])]
    if np.isfinite(src).all() and np.isfinite(dst).all():
        triangles = _triangulate(dst)
        maps, sound = _triangle_matrices(dst.astype(np.float64)[triangles], src[triangles])
        for corners, matrix in zip(dst[triangles[sound]], maps[sound], strict=True):
            fixed = np.rint(corners * (1 << _SHIFT)).astype(np.int32)
            cv2.fillConvexPoly(index, fixed, len(matrices), lineType=cv2.LINE_8, shift=_SHIFT)
            matrices.append(matrix)
    return TriangleMap(index, np.stack(matrices))


def _mesh_points(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.intp]:
    """Indices of the landmarks that take part."""
    inner = np.concatenate([source[_JAW_END:], target[_JAW_END:]])
    if not np.isfinite(inner).all():
        return np.arange(len(source))
    hull = cv2.convexHull(inner.astype(np.int32))
    inside = [
        any(cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in (source[i], target[i]))
        for i in range(_JAW_END + 1)
    ]
    return np.flatnonzero(~np.array(inside + [False] * (len(source) - _JAW_END - 1)))


def _triangulate(points: NDArray[np.float32]) -> NDArray[np.intp]:
    """Delaunay triangles (n, 3) of points (m, 2), as indices."""
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    # A wide frame keeps the three outer helper points of the subdivision from biting into the hull.
    margin = 8 * float((high - low).max()) + 1
    corner = low - margin
    extent = high - low + 2 * margin
    mesh = cv2.Subdiv2D((int(corner[0]), int(corner[1]), int(extent[0]) + 2, int(extent[1]) + 2))
    known = {(float(x), float(y)): i for i, (x, y) in reversed(list(enumerate(points)))}
    for x, y in known:
        mesh.insert((x, y))
    corners = np.asarray(mesh.getTriangleList()).reshape(-1, 3, 2).tolist()
    found = [[known.get((x, y), -1) for x, y in triangle] for triangle in corners]
    triangles = np.array(found, np.intp).reshape(-1, 3)
    return triangles[(triangles >= 0).all(axis=1)][:255]


def _triangle_matrices(
    dst: NDArray[np.float64], src: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Affine maps (n, 2, 3) taking triangles `dst` (n, 3, 2) to `src` (n, 3, 2), and which of them are no slivers."""
    u, v = dst[:, 1] - dst[:, 0], dst[:, 2] - dst[:, 0]
    p, q = src[:, 1] - src[:, 0], src[:, 2] - src[:, 0]
    det = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    sound = np.abs(det) > 1e-6
    det = np.where(sound, det, 1.0)[:, None]
    along_x = (p * v[:, 1:] - q * u[:, 1:]) / det
    along_y = (q * u[:, :1] - p * v[:, :1]) / det
    offset = src[:, 0] - along_x * dst[:, :1, 0] - along_y * dst[:, :1, 1]
    return np.stack([along_x, along_y, offset], axis=2), sound
