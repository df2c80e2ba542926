"""A TIFF writer for what others cannot mark: 8 and 16 bit and float pixels with alpha, deflated, with XMP."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHORT, _LONG, _BYTE = 3, 4, 1


def write_tiff(pixels: NDArray[Any], xmp: bytes | None = None) -> bytes:
    """The bytes of a little-endian TIFF.

    Args:
        pixels: (H, W), (H, W, 3) BGR or (H, W, 4) BGR and straight alpha; uint8, uint16 or float32.
        xmp: packet for tag 700.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels >= 3:
        pixels = pixels[..., [2, 1, 0, *range(3, channels)]]
    bits = pixels.dtype.itemsize * 8
    sample_format = 3 if pixels.dtype.kind == "f" else 1
    data = zlib.compress(np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes(), 4)
    entries: list[tuple[int, int, list[int] | bytes]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [bits] * channels),
        (259, _SHORT, [8]),  # deflate
        (262, _SHORT, [2 if channels >= 3 else 1]),
        (273, _LONG, [8]),
        (277, _SHORT, [channels]),
        (278, _LONG, [height]),
        (279, _LONG, [len(data)]),
        (284, _SHORT, [1]),
    ]
    if channels == 4:
        entries.append((338, _SHORT, [2]))  # alpha that is not premultiplied
    entries.append((339, _SHORT, [sample_format] * channels))
    if xmp is not None:
        entries.append((700, _BYTE, xmp))
    data += b"\0" * (len(data) % 2)
    start = 8 + len(data)
    return struct.pack("<2sHI", b"II", 42, start) + data + _directory(entries, start)


def _directory(entries: list[tuple[int, int, list[int] | bytes]], start: int) -> bytes:
    """An image file directory and the values that do not fit into its entries."""
    rows, extra = b"", b""
    extra_start = start + 2 + 12 * len(entries) + 4
    for tag, kind, values in entries:
        packed = (
            values
            if isinstance(values, bytes)
            else struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        )
        if len(packed) <= 4:
            field = packed.ljust(4, b"\0")
        else:
            field = struct.pack("<I", extra_start + len(extra))
            extra += packed + b"\0" * (len(packed) % 2)
        rows += struct.pack("<HHI", tag, kind, len(values)) + field
    return struct.pack("<H", len(entries)) + rows + struct.pack("<I", 0) + extra
