"""The same variations as batched torch operations: bytes go to the device, everything else happens there in float32.

The random numbers are those of the CPU path (`augmentation.Draw`), so both paths make the same batch up to rounding:
the CPU rounds to 8 bits after every step, the device never does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fsdeploy.training.data import grid
from fsdeploy.training.data.augmentation import FaceVariation
from fsdeploy.training.data.collate import Collate, TrainBatch, assemble
from fsdeploy.training.data.device_colour import adjust_color

_TRIANGLES = 256


@dataclass
class RawCrops:
    """One batch as it goes to the device: crops as bytes and the numbers to vary them by."""

    faces: Tensor
    """(rows, P, P, 3) uint8 BGR."""
    masks: Tensor
    """(rows, masks, P, P) uint8."""
    variation: FaceVariation
    identities: int
    triangles: Tensor | None
    """(rows, P, P) uint8 triangle of each pixel, for a warp to landmarks."""
    matrices: Tensor | None
    """(rows, 256, 6) float32 affine map of each triangle."""


class DeviceCollate:
    """Makes batches on `collate.device` from the settings and random numbers of `collate`."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate
        self.device = collate.device
        self._pin = self.device.type == "cuda"

    def start(self, indices: NDArray[np.int64], random: np.random.Generator) -> RawCrops:
        """Draw the numbers of a batch with face indices (identities, B) and make room for its crops."""
        size, rows = self._collate.size, indices.size
        variation = FaceVariation(self._collate.vary(indices, random), self._collate.constants, size)
        mesh = variation.variation.points is not None
        return RawCrops(
            faces=self._room(rows, size, size, 3),
            masks=self._room(rows, len(self._collate.mask_names), size, size),
            variation=variation,
            identities=len(indices),
            triangles=self._room(rows, size, size) if mesh else None,
            matrices=torch.zeros(rows, _TRIANGLES, 6) if mesh else None,
        )

    def _room(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin)

    def fill(self, raw: RawCrops, row: int, face: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
        """Put the crop of row `row` in place; a warp to landmarks gets its mesh here."""
        raw.faces[row].numpy()[...] = face
        raw.masks[row].numpy()[...] = masks
        if raw.triangles is not None and raw.matrices is not None:
            mesh = raw.variation.mesh(row)
            raw.triangles[row].numpy()[...] = mesh.index
            raw.matrices[row, : len(mesh.matrices)].numpy()[...] = mesh.matrices.reshape(-1, 6)

    def finish(self, raw: RawCrops) -> TrainBatch:
        """Vary the whole batch on the device."""
        collate = self._collate
        varied = raw.variation.variation
        faces = adjust_color(self._upload(raw.faces.permute(0, 3, 1, 2)), varied.color, varied.clahe_grid)
        inverse = self._numbers(grid.invert(varied.matrices))
        places = affine_map(inverse, collate.size)
        target = sample(faces, places)
        feed = self._feed(raw, faces, inverse)
        feed = target if feed is None else feed
        order = [2, 1, 0] if collate.reversed_colors else [0, 1, 2]
        identities = raw.identities

        def per_side(images: Tensor, edge: int) -> Tensor:
            shrunk = shrink(images, edge)
            return shrunk.reshape(identities, -1, *shrunk.shape[1:])

        masks = sample(self._upload(raw.masks), places) if collate.mask_names else faces[:, :0]
        return assemble(
            per_side(feed[:, order], collate.input_size),
            [per_side(target[:, order], edge).swapaxes(0, 1) for edge in collate.output_sizes],
            [per_side(masks, edge).permute(2, 1, 0, 3, 4)[:, :, :, None] for edge in collate.output_sizes],
            collate.mask_names,
            collate.learn_mask,
        )

    def raw_bytes(self, identities: int) -> int:
        """Memory of one `RawCrops`."""
        collate = self._collate
        return (3 + len(collate.mask_names)) * collate.size**2 * identities * collate.batch_size

    def _upload(self, levels: Tensor) -> Tensor:
        """Bytes (rows, C, S, S) -> float32 0..1 on the device."""
        moved = levels.to(self.device, non_blocking=True)
        return moved.to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    def _numbers(self, values: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device, non_blocking=True)

    def _feed(self, raw: RawCrops, faces: Tensor, inverse: Tensor) -> Tensor | None:
        """The warped faces; None where nothing is warped."""
        size = self._collate.size
        noise = raw.variation.variation.noise
        if noise is not None:
            nodes = self._numbers(grid.base_nodes(size) + noise)
            composed = compose(nodes, inverse)
            return sample(faces, enlarge(composed, size)) * inside(enlarge(nodes, size))
        if raw.triangles is not None and raw.matrices is not None:
            index = raw.triangles.to(self.device, non_blocking=True)
            matrices = raw.matrices.to(self.device, non_blocking=True)
            return sample(faces, compose(mesh_map(index, matrices), inverse))
        return None


def affine_map(matrices: Tensor, size: int) -> Tensor:
    """Places (rows, 2, S, S), x plane then y plane, of matrices (rows, 2, 3): output pixel -> source."""
    line = torch.arange(size, dtype=torch.float32, device=matrices.device)
    still = torch.stack([line[None, :].expand(size, size), line[:, None].expand(size, size)])
    return compose(still[None], matrices)


def compose(places: Tensor, matrices: Tensor) -> Tensor:
    """Places (rows, 2, H, W), each followed by the matrix (rows, 2, 3) of its row."""
    m = matrices[:, :, :, None, None]
    return m[:, :, 0] * places[:, None, 0] + m[:, :, 1] * places[:, None, 1] + m[:, :, 2]


def enlarge(nodes: Tensor, size: int) -> Tensor:
    """Bilinear enlargement of grid nodes (rows, 2, 5, 5) to (rows, 2, S, S).

    Written out, for a matrix product may run in reduced precision, which pixel places cannot bear.
    """
    last = grid.NODES - 1
    place = (torch.arange(size, dtype=torch.float32, device=nodes.device) + 0.5) * (last / size)
    left = place.floor().clamp(max=last - 1).long()
    share = place - left
    wide = nodes[..., left] * (1 - share) + nodes[..., left + 1] * share
    share = share[:, None]
    return wide[..., left, :] * (1 - share) + wide[..., left + 1, :] * share


def inside(places: Tensor) -> Tensor:
    """Share (rows, 1, S, S) of each place (rows, 2, S, S) that lies in the face: 0 outside, linear over one pixel."""
    share = torch.minimum(places + 1, places.shape[-1] - places).clamp(0, 1)
    return share[:, :1] * share[:, 1:]


def mesh_map(index: Tensor, matrices: Tensor) -> Tensor:
    """Places (rows, 2, S, S) from the triangle of each pixel (rows, S, S) and matrices (rows, triangles, 6)."""
    rows, size, _ = index.shape
    chosen = index.reshape(rows, -1, 1).long().expand(-1, -1, 6)
    m = matrices.gather(1, chosen).reshape(rows, size, size, 2, 3).permute(0, 3, 4, 1, 2)
    line = torch.arange(size, dtype=torch.float32, device=index.device)
    return m[:, :, 0] * line + m[:, :, 1] * line[:, None] + m[:, :, 2]


def sample(images: Tensor, places: Tensor) -> Tensor:
    """Images (rows, C, S, S) at places (rows, 2, S, S) in pixels, bilinear; the edge pixels are repeated outside."""
    last = images.shape[-1] - 1
    # Limited here, for not every device offers a border mode.
    scaled = places.permute(0, 2, 3, 1).clamp(0, last) * (2 / last) - 1
    return F.grid_sample(images, scaled, mode="bilinear", padding_mode="zeros", align_corners=True)


def shrink(images: Tensor, edge: int) -> Tensor:
    """Area average of images (rows, C, S, S) at a smaller edge; the images themselves if they have that edge."""
    size = images.shape[-1]
    if size == edge:
        return images
    if size % edge == 0:
        return F.avg_pool2d(images, size // edge)
    border = torch.arange(edge + 1, dtype=torch.float64) * (size / edge)
    pixel = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(border[1:, None], pixel + 1) - torch.maximum(border[:-1, None], pixel)
    weights = (overlap.clamp(min=0) * (edge / size)).to(images)
    return weights @ images @ weights.T
