"""Colour variation of a batch of faces in torch: float L*a*b* (CIE 1976, sRGB), and CLAHE by histograms and tables."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fsdeploy.training.data.colour import CLAHE_CLIP_LIMIT

# sRGB primaries, D65 white: linear RGB -> XYZ
_TO_XYZ = np.array([(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227)])
_WHITE = np.array([0.950456, 1.0, 1.088754])
_CUBE = 0.008856
"""CIE's border between the cubic and the linear part, in terms of Y."""


def adjust_color(faces: Tensor, shifts: NDArray[np.float32], grids: NDArray[np.int64]) -> Tensor:
    """Vary the colour of faces (rows, 3, S, S) float32 BGR 0..1.

    Args:
        shifts: (rows, 3) shift of L, a and b, -1..1.
        grids: (rows,) tiles per edge of the contrast equalisation; 0 leaves contrast alone.
    """
    if not shifts.any() and not grids.any():
        return faces
    lab = bgr_to_lab(faces)
    share = torch.from_numpy(shifts).to(faces.device)[:, :, None, None]
    shifted = _shift(lab, share)
    for tiles in np.unique(grids[grids > 0]).tolist():
        rows = torch.from_numpy(np.flatnonzero(grids == tiles)).to(faces.device)
        # Equalisation counts whole levels: those of the 8-bit path, for a neighbouring bin moves a whole table.
        shifted[rows, 0] = clahe(_shift(lab[rows, 0].round(), share[rows, 0]).floor(), tiles)
    return lab_to_bgr(shifted)


def _shift(lab: Tensor, share: Tensor) -> Tensor:
    """Move levels 0..255 a share of the way to 255, or to 0 where it is negative."""
    return torch.where(share >= 0, lab + (255 - lab) * share, lab * (1 + share))


def _mix(images: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """Each output channel as a sum of the input channels (rows, 3, S, S); full precision on every device."""
    weights = matrix.tolist()
    channels = images.unbind(1)
    return torch.stack([sum(w * c for w, c in zip(row, channels, strict=True)) for row in weights], 1)


def bgr_to_lab(faces: Tensor) -> Tensor:
    """BGR 0..1 (rows, 3, S, S) -> L*a*b* in the 8-bit convention as floats: L 255/100, a + 128, b + 128."""
    linear = torch.where(faces <= 0.04045, faces / 12.92, ((faces + 0.055) / 1.055) ** 2.4)
    xyz = _mix(linear, (_TO_XYZ / _WHITE[:, None])[:, ::-1])
    f = torch.where(xyz > _CUBE, xyz.clamp(min=_CUBE) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    luminance = xyz[:, 1]
    lightness = torch.where(luminance > _CUBE, 116 * y - 16, 903.3 * luminance)
    return torch.stack([lightness * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], 1)


def lab_to_bgr(lab: Tensor) -> Tensor:
    """Inverse of `bgr_to_lab`; colours outside sRGB are clipped."""
    lightness = lab[:, 0] / 2.55
    dark = lightness <= 903.3 * _CUBE
    y = torch.where(dark, 7.787 * lightness / 903.3 + 16 / 116, (lightness + 16) / 116)
    f = torch.stack([y + (lab[:, 1] - 128) / 500, y, y - (lab[:, 2] - 128) / 200], 1)
    xyz = torch.where(f > 7.787 * _CUBE + 16 / 116, f**3, (f - 16 / 116) / 7.787)
    linear = _mix(xyz, np.linalg.inv(_TO_XYZ / _WHITE[:, None])[::-1]).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def clahe(levels: Tensor, tiles: int) -> Tensor:
    """Contrast-limited adaptive histogram equalisation (K. Zuiderveld, Graphics Gems IV, 1994), as OpenCV computes it.

    Args:
        levels: (rows, S, S) whole numbers 0..255.
        tiles: tiles per edge.

    Returns:
        (rows, S, S) whole numbers 0..255, float32.
    """
    rows, size, _ = levels.shape
    pad = -size % tiles
    padded = F.pad(levels[:, None], (0, pad, 0, pad), mode="reflect")[:, 0] if pad else levels
    edge = (size + pad) // tiles
    tables = _tables(padded.reshape(rows, tiles, edge, tiles, edge).swapaxes(2, 3).reshape(-1, edge * edge))
    tables = tables.reshape(rows, tiles * tiles * 256)
    place = torch.arange(size, dtype=torch.float32, device=levels.device) / edge - 0.5
    near = place.floor()
    share = place - near
    first, second = (index.clamp(0, tiles - 1).long() for index in (near, near + 1))
    value = levels.long().clamp(0, 255)

    def looked_up(row_tile: Tensor, column_tile: Tensor) -> Tensor:
        index = (row_tile[:, None] * tiles + column_tile) * 256 + value
        return tables.gather(1, index.reshape(rows, -1)).reshape(levels.shape)

    upper = looked_up(first, first) * (1 - share) + looked_up(first, second) * share
    lower = looked_up(second, first) * (1 - share) + looked_up(second, second) * share
    return (upper * (1 - share[:, None]) + lower * share[:, None]).round()


def _tables(tiles: Tensor) -> Tensor:
    """Equalisation tables (tiles, 256) of tiles (tiles, area) of levels 0..255."""
    area = tiles.shape[1]
    limit = max(1, int(CLAHE_CLIP_LIMIT * area / 256))
    counts = torch.zeros(len(tiles), 256, dtype=torch.int64, device=tiles.device)
    counts.scatter_add_(1, tiles.long().clamp(0, 255), torch.ones_like(tiles, dtype=torch.int64))
    excess = (counts - limit).clamp(min=0).sum(1, keepdim=True)
    counts = counts.clamp(max=limit) + excess // 256
    rest = excess % 256
    step = (256 // rest.clamp(min=1)).clamp(min=1)
    bins = torch.arange(256, device=tiles.device)
    counts += (bins % step == 0) & (bins // step < rest)
    return (counts.cumsum(1).float() * (255 / area)).round().clamp(0, 255)
