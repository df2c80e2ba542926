"""What a legacy file may claim. Every number is the largest seen in real files with room to spare."""

from __future__ import annotations

from dataclasses import dataclass

JSON_BYTES = 16 << 20
JSON_DEPTH = 64
NET_DEPTH = 4
LAYERS = 8_192
CALLS_PER_LAYER = 16
EVALUATED_CALLS = 10_000
WIDTH = 1 << 20
"""Largest number of filters or units."""
KERNEL = 31
STRIDE = 8
NAME_BYTES = 256
ELEMENTS = 1 << 31


@dataclass(frozen=True)
class Hdf5Limits:
    """Bounds of one HDF5 dialect."""

    objects: int
    depth: int
    kinds: frozenset[str]
    """Element types, as numpy spells them."""
    rank: int = 5


KERAS2_HDF5 = Hdf5Limits(objects=16_384, depth=8, kinds=frozenset({"<f2", "<f4", "<f8", "<i4", "<i8"}))
KERAS3_HDF5 = Hdf5Limits(objects=32_768, depth=12, kinds=frozenset({"<f4", "<i4"}))
