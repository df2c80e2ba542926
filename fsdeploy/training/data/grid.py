"""Where each pixel of a varied face comes from: affine matrices, the 5 x 5 warp grid, and their composition.

Every map is "output pixel -> place in the source", pixel centres at integers. A bilinear enlargement of grid nodes
commutes with an affine map, so transform, flip and warp compose on the 25 nodes and the face is interpolated once.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

NODES = 5
_NOTHING = np.empty((0, 0), np.float32)


def transform_matrices(
    angle: NDArray[np.float64], zoom: NDArray[np.float64], shift: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Rotation and zoom about the centre of a face of edge `size`, then a shift.

    Args:
        angle: (rows,) degrees, counter-clockwise on screen.
        zoom: (rows,) factor.
        shift: (rows, 2) pixels to the right and down.

    Returns:
        (rows, 2, 3), input pixel -> output pixel.
    """
    centre = (size - 1) / 2
    radians = np.deg2rad(angle)
    cos, sin = zoom * np.cos(radians), zoom * np.sin(radians)
    out = np.empty((len(angle), 2, 3))
    out[:, 0, 0] = out[:, 1, 1] = cos
    out[:, 0, 1] = sin
    out[:, 1, 0] = -sin
    out[:, 0, 2] = centre * (1 - cos) - centre * sin + shift[:, 0]
    out[:, 1, 2] = centre * sin + centre * (1 - cos) + shift[:, 1]
    return out


def flip_matrices(matrices: NDArray[np.float64], flipped: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Follow the matrices (rows, 2, 3) of the flipped rows by x -> (size - 1) - x."""
    out = matrices.copy()
    out[flipped, 0] *= -1
    out[flipped, 0, 2] += size - 1
    return out


def invert(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of affine matrices (rows, 2, 3)."""
    a, b, c = (matrices[:, 0, i] for i in range(3))
    d, e, f = (matrices[:, 1, i] for i in range(3))
    out = np.stack([e, -b, b * f - e * c, -d, a, d * c - a * f], axis=1).reshape(-1, 2, 3)
    return np.asarray(out / (a * e - b * d)[:, None, None])


def apply_to_points(matrices: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Map points (rows, ..., 2) by the matrix (rows, 2, 3) of their row."""
    flat = points.reshape(len(points), -1, 2).astype(np.float64)
    x, y = flat[..., 0], flat[..., 1]
    rows = matrices[:, :, :, None]
    mapped = rows[:, :, 0] * x[:, None] + rows[:, :, 1] * y[:, None] + rows[:, :, 2]
    return mapped.swapaxes(1, 2).reshape(points.shape).astype(np.float32)


def base_nodes(size: int) -> NDArray[np.float32]:
    """Places (2, 5, 5) of the undisturbed grid nodes: x plane, y plane; they span the outer pixel edges, -0.5 to
    size - 0.5, so that a grid without noise maps every pixel to itself."""
    line = np.linspace(0, size, NODES, dtype=np.float32) - np.float32(0.5)
    x = np.broadcast_to(line, (NODES, NODES))
    return np.stack([x, x.T])


def node_weights(size: int) -> NDArray[np.float32]:
    """Weight (size, 5) of each node for each pixel of one axis: linear between neighbours."""
    place = (np.arange(size) + 0.5) * (NODES - 1) / size
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(NODES))), np.float32)


def compose_nodes(nodes: NDArray[np.float32], matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    """Map node places (rows, 2, 5, 5) by (rows, 2, 3): the warp is followed back through transform and flip."""
    m = matrices[:, :, :, None, None]
    x, y = nodes[:, None, 0], nodes[:, None, 1]
    return np.asarray(m[:, :, 0] * x + m[:, :, 1] * y + m[:, :, 2], np.float32)


def enlarge(nodes: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear enlargement of node places (2, 5, 5) to a map (2, size, size); `weights` from `node_weights`."""
    size = len(weights)
    rows = np.matmul(weights, nodes).reshape(2 * size, NODES)
    # OpenCV's product stays in the calling thread; BLAS would wake all cores for a product of this size.
    planes = cv2.gemm(rows, weights, 1.0, _NOTHING, 0.0, flags=cv2.GEMM_2_T)
    return np.asarray(planes, np.float32).reshape(2, size, size)


class EdgeFade:
    """Darkens the pixels of warped faces whose place left the face: black outside, linear over one pixel.

    A pixel leaves over an edge only if it lies nearer to it than the nodes around push it outwards, so only such bands
    along the edges are looked at.

    Args:
        noise: (rows, 2, 5, 5) displacement of the grid nodes in pixels.
        weights: of `node_weights`.
    """

    def __init__(self, noise: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
        size = len(weights)
        self._weights = weights
        x, y = np.moveaxis(noise, 1, 0)
        outwards = np.abs(noise).max(axis=(1, 2, 3))[:, None].repeat(4, axis=1)
        if outwards.max() < size / (NODES - 1) - 1:  # the usual case: the nodes next to an edge decide
            sides = (-x[:, :, :2], x[:, :, -2:], -y[:, :2], y[:, -2:])
            outwards = np.stack([side.max(axis=(1, 2)) for side in sides], axis=1)
        self._bands = np.clip(np.ceil(outwards) + 1, 0, size).astype(int).tolist()
        self._widest = max(map(max, self._bands))
        low, high = weights[: self._widest], weights[size - self._widest :]
        x, y = np.moveaxis(base_nodes(size) + noise, 1, 0)
        # How far inside the face a place lies, counted from either edge; the enlargement along the band is done here.
        self._across = np.concatenate([(x + 1) @ low.T, (size - x) @ high.T], axis=2)
        self._down = np.concatenate([low @ (y + 1), high @ (size - y)], axis=1)

    def apply(self, row: int, image: NDArray[np.uint8]) -> None:
        """Darken the warped face (S, S, C) of a row, in place."""
        across = cv2.gemm(self._weights, self._across[row], 1.0, _NOTHING, 0.0)
        down = cv2.gemm(self._down[row], self._weights, 1.0, _NOTHING, 0.0, flags=cv2.GEMM_2_T)
        across, down = (_share(np.asarray(inside, np.float32)) for inside in (across, down))
        left, right, top, bottom = self._bands[row]
        size, both = len(image), 2 * self._widest
        for part, share in (
            (image[:, :left], across[:, :left]),
            (image[:, size - right :], across[:, both - right :]),
            (image[:top], down[:top]),
            (image[size - bottom :], down[both - bottom :]),
        ):
            if part.size:
                darkened = part * share
                darkened += 0.5
                part[...] = darkened


def _share(inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """Limit to 0..1, with a channel axis added."""
    np.maximum(inside, 0, out=inside)
    np.minimum(inside, 1, out=inside)
    return inside[..., None]
