"""Whether a video file was cut off: decoders end quietly there, so the sizes that its container names are checked."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_MAX_BOXES = 10_000
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


def missing_bytes(path: Path) -> int:
    """Bytes that a file's container says it has and that are not there; 0 where it is whole or does not say.

    Understands ISO base media (MP4, MOV), Matroska/WebM and RIFF (AVI).
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
            stream.seek(0)
            if head[:4] == _EBML:
                return max(0, _matroska_end(stream) - size)
            if head[:4] == b"RIFF":
                return max(0, 8 + int(struct.unpack("<I", head[4:8])[0]) - size)
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
                return max(0, _boxes_end(stream, size) - size)
    except (OSError, struct.error):
        return 0
    return 0


def _boxes_end(stream: BinaryIO, size: int) -> int:
    """Where the last top-level box of an ISO file ends, by its own size."""
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > size:
            break
        stream.seek(position)
        length = struct.unpack(">I", stream.read(8)[:4])[0]
        if length == 1:
            length = struct.unpack(">Q", stream.read(8))[0]
        if length < 8:  # 0: up to the end of the file; less: no box
            return size
        position += length
    return position


def _matroska_end(stream: BinaryIO) -> int:
    """Where the segment of a Matroska file ends, by its own size; 0 when it is open."""
    stream.seek(4)
    length, known = _vint(stream)
    stream.seek(length if known else 0, 1)
    if stream.read(4) != _SEGMENT:
        return 0
    length, known = _vint(stream)
    return stream.tell() + length if known else 0


def _vint(stream: BinaryIO) -> tuple[int, bool]:
    """An EBML number, and whether it is one (all bits set means unknown)."""
    first = stream.read(1)
    if not first or not first[0]:
        return 0, False
    width = 8 - first[0].bit_length()
    value = first[0] & ((1 << (7 - width)) - 1)
    for byte in stream.read(width):
        value = value << 8 | byte
    return value, value != (1 << (7 * (width + 1))) - 1
