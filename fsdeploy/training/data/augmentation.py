"""How training faces are varied: constants of the options, random numbers of a batch, and the steps on the CPU.

`ImageAugmentation` offers each step alone, on uint8 (rows, S, S, C) batches. The loader applies the same numbers in one
go: one interpolation for the target, one for the feed (`FaceVariation`), or batched on an accelerator (`device.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.config.option import check_section
from fsdeploy.config.training import AugmentationOptions
from fsdeploy.training.data import colour, grid
from fsdeploy.training.data.landmark_warp import TriangleMap, landmark_map

_LARGE = 192
"""Edge from which looking for the lit part of a mask costs less than moving all of it."""


@dataclass(frozen=True)
class ConstantsColor:
    """Constants of colour and contrast variation."""

    clahe_base_contrast: int
    """Smallest tile grid of the contrast equalisation: max(2, S // 128)."""
    clahe_chance: float
    """Share of faces whose contrast is equalised, 0..1."""
    clahe_max_size: int
    """Largest number of half-base steps added to the smallest grid."""
    lab_adjust: NDArray[np.float32]
    """(3,) largest shift of L, a and b, 0..1."""


@dataclass(frozen=True)
class ConstantsTransform:
    """Constants of rotation, zoom, shift and flip."""

    rotation: int
    """Largest rotation, degrees."""
    zoom: float
    """Largest zoom, share of the size."""
    shift: float
    """Largest shift, pixels."""
    flip: float
    """Share of mirrored faces, 0..1."""


@dataclass(frozen=True)
class ConstantsWarp:
    """Constants of both warps."""

    maps: NDArray[np.float32]
    """(rows, 2, 5, 5) places of the undisturbed grid nodes, x plane then y plane, from 0 to S."""
    pad: tuple[int, int]
    """Edge of a grid enlarged with its margin: int(1.25 S)."""
    slices: slice
    """The part of an enlarged grid that covers the face."""
    scale: float
    """Standard deviation of the node noise, pixels: 5 S / 256."""
    lm_edge_anchors: NDArray[np.int64]
    """(rows, 8, 2) points of the edge that a landmark warp leaves in place."""
    lm_grids: NDArray[np.float32]
    """(2, S, S) row and column of each pixel."""
    lm_scale: float
    """Standard deviation of the landmark noise, pixels: 2 S / 256."""


@dataclass(frozen=True)
class ConstantsAugmentation:
    """All constants of one processing size. Make it with `from_config`."""

    color: ConstantsColor
    transform: ConstantsTransform
    warp: ConstantsWarp

    @classmethod
    def from_config(
        cls, processing_size: int, batch_size: int, options: AugmentationOptions | None = None
    ) -> ConstantsAugmentation:
        """Constants for faces of edge `processing_size`, `batch_size` rows (all identities together).

        Raises:
            ConfigError: an option is outside its range; the message names it.
        """
        options = options or AugmentationOptions()
        check_section(options)
        size = processing_size
        adjust = np.array([options.color_lightness, options.color_ab, options.color_ab], np.float32) / np.float32(100)
        return cls(
            ConstantsColor(max(2, size // 128), options.color_clahe_chance / 100, options.color_clahe_max_size, adjust),
            ConstantsTransform(
                options.rotation_range,
                options.zoom_amount / 100,
                options.shift_range / 100 * size,
                options.flip_chance / 100,
            ),
            cls._warp(size, batch_size),
        )

    @staticmethod
    def _warp(size: int, rows: int) -> ConstantsWarp:
        line = np.linspace(0, size, grid.NODES, dtype=np.float32)
        plane = np.broadcast_to(line, (grid.NODES, grid.NODES))
        maps = np.broadcast_to(np.stack([plane, plane.T]), (rows, 2, grid.NODES, grid.NODES))
        padded = int(1.25 * size)
        m, h = size - 1, size // 2 - 1
        anchors = np.array([(0, 0), (0, m), (m, m), (m, 0), (h, 0), (h, m), (m, h), (0, h)])
        return ConstantsWarp(
            maps=maps,
            pad=(padded, padded),
            slices=slice(padded // 10, -math.ceil(padded / 10)),
            scale=5 * size / 256,
            lm_edge_anchors=np.broadcast_to(anchors, (rows, 8, 2)),
            lm_grids=np.mgrid[0:size, 0:size].astype(np.float32),
            lm_scale=2 * size / 256,
        )


@dataclass(frozen=True)
class Variation:
    """The random numbers of one batch, one entry per row, and what follows from them directly."""

    color: NDArray[np.float32]
    """(rows, 3) shift of L, a and b, -1..1."""
    clahe_grid: NDArray[np.int64]
    """(rows,) tiles per edge of the contrast equalisation; 0 is none."""
    matrices: NDArray[np.float64]
    """(rows, 2, 3) transform and flip: pixel of the crop -> pixel of the target."""
    noise: NDArray[np.float32] | None
    """(rows, 2, 5, 5) displacement of the warp grid in pixels; None without random warp."""
    points: NDArray[np.float32] | None = None
    """(rows, 2, 68, 2) landmarks of the target, and where a warp to landmarks shall move them; None without one."""

    @property
    def rows(self) -> int:
        return len(self.matrices)


class Draw:
    """Draws random numbers for the rows of a batch, in a fixed order: the same generator gives the same batch."""

    def __init__(self, constants: ConstantsAugmentation, size: int) -> None:
        self._constants = constants
        self._size = size

    def color(self, random: np.random.Generator, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Shifts (rows, 3) and contrast grids (rows,)."""
        constants = self._constants.color
        shift = random.uniform(-1, 1, (rows, 3)).astype(np.float32) * constants.lab_adjust
        chosen = random.random(rows) < constants.clahe_chance
        steps = random.integers(0, constants.clahe_max_size, rows, endpoint=True)
        base = constants.clahe_base_contrast
        return shift, np.where(chosen, base + steps * (base // 2), 0)

    def matrices(self, random: np.random.Generator, rows: int) -> NDArray[np.float64]:
        """Transforms (rows, 2, 3) without flip."""
        constants = self._constants.transform
        angle = random.uniform(-1, 1, rows) * constants.rotation
        zoom = 1 + random.uniform(-1, 1, rows) * constants.zoom
        shift = random.uniform(-1, 1, (rows, 2)) * constants.shift
        return grid.transform_matrices(angle, zoom, shift, self._size)

    def flipped(self, random: np.random.Generator, rows: int) -> NDArray[np.bool_]:
        """Which rows are mirrored (rows,)."""
        return random.random(rows) < self._constants.transform.flip

    def noise(self, random: np.random.Generator, rows: int) -> NDArray[np.float32]:
        """Displacement (rows, 2, 5, 5) of the warp grid, pixels."""
        shape = (rows, 2, grid.NODES, grid.NODES)
        return random.standard_normal(shape, np.float32) * np.float32(self._constants.warp.scale)

    def points(self, random: np.random.Generator, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Own and partner's landmarks (rows, 2, 68, 2), the partner's with noise."""
        noisy = points.copy()
        noise = random.standard_normal(points[:, 1].shape, np.float32)
        noisy[:, 1] += noise * np.float32(self._constants.warp.lm_scale)
        return noisy

    def batch(
        self,
        random: np.random.Generator,
        rows: int,
        *,
        color: bool = True,
        flip: bool = True,
        warp: bool = True,
        landmarks: NDArray[np.float32] | None = None,
    ) -> Variation:
        """Everything for one batch.

        Args:
            landmarks: (rows, 2, 68, 2) own and partner's landmarks in crop pixels, for a warp to landmarks.
        """
        shift, clahe_grid = self.color(random, rows)
        if not color:
            shift, clahe_grid = np.zeros_like(shift), np.zeros_like(clahe_grid)
        matrices = self.matrices(random, rows)
        flipped = self.flipped(random, rows)
        if flip:
            matrices = grid.flip_matrices(matrices, flipped, self._size)
        noise = points = None
        if warp and landmarks is None:
            noise = self.noise(random, rows)
        elif warp and landmarks is not None:
            points = self.points(random, grid.apply_to_points(matrices, landmarks))
        return Variation(shift, clahe_grid, matrices, noise, points)


def _affine(image: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Move a face by a matrix input pixel -> output pixel; the edge pixels are repeated outside."""
    height, width = image.shape[:2]
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8).reshape(image.shape)


def _sample(image: NDArray[np.uint8], places: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The face at `places` (2, S, S): x plane, y plane; the edge pixels are repeated outside."""
    sampled = cv2.remap(image, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.uint8).reshape(image.shape)


def side_by_side(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Masks (M, S, S) as the channels of one image: one channel, or four of which the first M count."""
    if len(masks) == 1:
        return np.ascontiguousarray(masks[0])[..., None]
    planes = [np.ascontiguousarray(mask) for mask in masks]
    return np.asarray(cv2.merge([*planes, *[planes[0]] * (4 - len(planes))]), np.uint8)


class FaceVariation:
    """Applies the numbers of one batch to its faces, row by row, on the CPU. Safe to call from several threads."""

    def __init__(self, variation: Variation, constants: ConstantsAugmentation, size: int) -> None:
        self.variation = variation
        self._size = size
        self._weights = grid.node_weights(size)
        self._warp = constants.warp
        self._inverse = grid.invert(variation.matrices)
        self._tables = colour.shift_tables(variation.color)
        self._nodes: NDArray[np.float32] | None = None
        if variation.noise is not None:
            self._nodes = grid.compose_nodes(grid.base_nodes(size) + variation.noise, self._inverse)
            self._fade = grid.EdgeFade(variation.noise, self._weights)

    def picture(self, row: int, face: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """BGR face (S, S, 3) with its colour varied, and a mask (S, S) as fourth channel.

        Four channels, for OpenCV moves four at once in less time than three.
        """
        clahe_grid = int(self.variation.clahe_grid[row])
        if clahe_grid or self.variation.color[row].any():
            varied = colour.adjust_color(face, self._tables[row], clahe_grid, channels=4)
        else:
            varied = np.asarray(cv2.cvtColor(face, cv2.COLOR_BGR2BGRA), np.uint8)
        if mask is not None:
            cv2.insertChannel(mask, varied, 3)
        return varied

    def target(self, row: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Face or masks (S, S, C) transformed and flipped."""
        return _affine(image, self.variation.matrices[row])

    def spots(self, row: int, masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Masks (M, S, S) transformed and flipped, as the channels of one image: (S, S, 1), or (S, S, 4) of which the
        first M count.

        For masks that are black but for a part, as eyes and mouth are: in large faces only that part is moved.
        """
        size = self._size
        boxes = [cv2.boundingRect(mask) for mask in masks] if size >= _LARGE else []
        lit = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes if w])
        if not len(lit) or lit[:, :2].min() == 0 or lit[:, 2:].max() == size:
            return self.target(row, side_by_side(masks))  # small, or the edge pixels matter, for they are repeated
        (left, top), (right, bottom) = lit[:, :2].min(axis=0) - 1, lit[:, 2:].max(axis=0) + 1
        matrix = self.variation.matrices[row]
        corners = matrix[:, :2] @ np.array([(left, right, left, right), (top, top, bottom, bottom)]) + matrix[:, 2:]
        x0, y0 = np.clip(np.floor(corners.min(axis=1)), 0, size - 1).astype(int)
        x1, y1 = np.clip(np.ceil(corners.max(axis=1)) + 1, (x0 + 1, y0 + 1), size).astype(int)
        moved = matrix.copy()
        moved[:, 2] += matrix[:, :2] @ (left, top) - (x0, y0)
        part = side_by_side(masks[:, top:bottom, left:right])
        out = np.zeros((size, size, part.shape[2]), np.uint8)
        warped = cv2.warpAffine(part, moved, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
        out[y0:y1, x0:x1] = warped.reshape(y1 - y0, x1 - x0, -1)
        return out

    def feed(self, row: int, face: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The warped face; `target` is the answer where nothing is warped."""
        if self._nodes is not None:
            warped = _sample(face, grid.enlarge(self._nodes[row], self._weights))
            self._fade.apply(row, warped)
            return warped
        if self.variation.points is not None:
            return _sample(face, self.mesh(row).to_map(self._warp.lm_grids, self._inverse[row]))
        return target

    def mesh(self, row: int) -> TriangleMap:
        """Map of the row's warp to landmarks: pixel of the feed -> pixel of the target."""
        assert self.variation.points is not None
        own, wanted = self.variation.points[row]
        return landmark_map(own, wanted, self._warp.lm_edge_anchors[0], self._size)


class ImageAugmentation:
    """Each variation as a step of its own, on batches of uint8 BGR faces.

    Args:
        batch_size: rows of a batch, all identities together.
        processing_size: edge S of the faces.
        options: ranges of the variations; the defaults if None.
        random: source of random numbers; a fresh unseeded one if None.

    Raises:
        ConfigError: an option is outside its range.
    """

    def __init__(
        self,
        batch_size: int,
        processing_size: int,
        options: AugmentationOptions | None = None,
        random: np.random.Generator | None = None,
    ) -> None:
        self.constants = ConstantsAugmentation.from_config(processing_size, batch_size, options)
        self._size = processing_size
        self._random = random or np.random.default_rng()
        self._draw = Draw(self.constants, processing_size)

    def color_adjust(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Batch (rows, S, S, 3) with colour and contrast varied, as a new array."""
        shifts, grids = self._draw.color(self._random, len(batch))
        tables = colour.shift_tables(shifts)
        adjusted = [colour.adjust_color(*row) for row in zip(batch, tables, map(int, grids), strict=True)]
        return np.stack(adjusted)

    def transform(self, batch: NDArray[np.uint8], points: NDArray[np.float32] | None = None) -> None:
        """Rotate, zoom and shift batch (rows, S, S, C) and points (rows, ..., 2) in place."""
        matrices = self._draw.matrices(self._random, len(batch))
        for row, matrix in zip(batch, matrices, strict=True):
            row[...] = _affine(row, matrix)
        if points is not None:
            points[...] = grid.apply_to_points(matrices, points)

    def random_flip(self, batch: NDArray[np.uint8], points: NDArray[np.float32] | None = None) -> None:
        """Mirror some rows of batch (rows, S, S, C) and of points (rows, ..., 2) in place.

        Points keep their order: left and right are not relabelled.
        """
        flipped = self._draw.flipped(self._random, len(batch))
        batch[flipped] = batch[flipped, :, ::-1]
        if points is not None:
            points[flipped, ..., 0] = self._size - 1 - points[flipped, ..., 0]

    def warp(
        self,
        batch: NDArray[np.uint8],
        to_landmarks: bool = False,
        batch_src_points: NDArray[np.float32] | None = None,
        batch_dst_points: NDArray[np.float32] | None = None,
    ) -> NDArray[np.uint8]:
        """Warp batch (rows, S, S, 3) by random noise, or towards landmarks, as a new array.

        Args:
            to_landmarks: True moves `batch_src_points` (rows, 68, 2) to `batch_dst_points` (rows, 68, 2).

        Raises:
            ValueError: a warp to landmarks without both sets of points.
        """
        rows = len(batch)
        still = np.broadcast_to(np.array([[1.0, 0, 0], [0, 1, 0]]), (rows, 2, 3))
        noise = points = None
        if not to_landmarks:
            noise = self._draw.noise(self._random, rows)
        elif batch_src_points is None or batch_dst_points is None:
            raise ValueError("a warp to landmarks needs batch_src_points and batch_dst_points")
        else:
            points = self._draw.points(self._random, np.stack([batch_src_points, batch_dst_points], axis=1))
        none = np.zeros((rows, 3), np.float32), np.zeros(rows, np.int64)
        rowwise = FaceVariation(Variation(*none, still, noise, points), self.constants, self._size)
        return np.stack([rowwise.feed(i, face, face) for i, face in enumerate(batch)])
