"""Colour variation of one face on the CPU: shifts in L*a*b*, then local contrast equalisation (CLAHE) of lightness."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

CLAHE_CLIP_LIMIT = 2.0
_LEVELS = np.arange(256, dtype=np.float32)[:, None]
_local = threading.local()


def shift_tables(shifts: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lookup tables (rows, 256, 3) of `shifts` (rows, 3) in -1..1 for L, a and b in the 8-bit convention.

    A positive shift moves a level that share of the way to 255, a negative one that share of the way to 0.
    """
    share = np.asarray(shifts, np.float32)[:, None, :]
    up = _LEVELS + (np.float32(255) - _LEVELS) * share
    down = _LEVELS * (np.float32(1) + share)
    return np.where(share >= 0, up, down).astype(np.uint8)


def _clahe(grid: int) -> cv2.CLAHE:
    """One equaliser per thread and grid: the object keeps scratch memory, so two threads must not share it."""
    known: dict[int, cv2.CLAHE] = _local.__dict__.setdefault("clahe", {})
    if grid not in known:
        known[grid] = cv2.createCLAHE(clipLimit=CLAHE_CLIP_LIMIT, tileGridSize=(grid, grid))
    return known[grid]


def adjust_color(image: NDArray[np.uint8], table: NDArray[np.uint8], grid: int, channels: int = 3) -> NDArray[np.uint8]:
    """Vary the colour of one BGR uint8 (S, S, 3) face.

    Args:
        image: the face; left unchanged.
        table: (256, 3) lookup table of `shift_tables`.
        grid: tiles per edge of the contrast equalisation; 0 leaves contrast alone.
        channels: 4 adds a channel that may be written over.
    """
    planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2LAB))
    lightness, a, b = (cv2.LUT(plane, table[:, i]) for i, plane in enumerate(planes))
    if grid:
        lightness = _clahe(grid).apply(lightness)
    varied = cv2.cvtColor(cv2.merge([lightness, a, b]), cv2.COLOR_LAB2BGR, dstCn=channels)
    return np.asarray(varied, np.uint8)
