"""Face images: PNG files whose `iTXt` chunk "faceswap" says where the face comes from. See docs/formats/face-png.md."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import FsdeployError, HostileFileError, InputError, NotAFaceError
from fsdeploy.faces.bounds import inflate
from fsdeploy.faces.literal import MAX_TEXT, parse_literal
from fsdeploy.faces.records import FaceHeader
from fsdeploy.faces.schema import header_from_dict, header_to_dict
from fsdeploy.files import write_bytes
from fsdeploy.images import decode_image, encode_image

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
KEYWORD: Final = b"faceswap"
MAX_EDGE: Final = 4096
"""Largest face image that is read, in pixels; extraction offers up to 1024."""
_MAX_CHUNKS: Final = 4096
_CHUNK_OVERHEAD: Final = 12


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    start: int
    """Offset of the chunk's length field in the file."""
    length: int

    @property
    def end(self) -> int:
        return self.start + _CHUNK_OVERHEAD + self.length


def read_header(source: Path | bytes, name: str | None = None) -> FaceHeader:
    """Read the metadata of a face PNG, touching no pixel data.

    Args:
        source: the file, or its bytes.
        name: how messages call the file; its path by default.

    Raises:
        NotAFaceError: no PNG, or one without face metadata.
        HostileFileError: it claims sizes that no face has.
        InputError: it cannot be read, is damaged, or holds impossible values.
    """
    label = name or (str(source) if isinstance(source, Path) else "the image")
    if isinstance(source, bytes):
        return _named_header(io.BytesIO(source), label)
    try:
        with source.open("rb") as stream:
            return _named_header(stream, label)
    except OSError as error:
        raise InputError(f"cannot read {label}: {error.strerror or error}") from error


def read_face(path: Path) -> tuple[NDArray[np.uint8], FaceHeader]:
    """Read a face image: (S, S, 3) uint8 BGR, and its header.

    Raises:
        NotAFaceError, HostileFileError, InputError: as `read_header`; also for an image that is not square, is cut
            off, or fails its checksums.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    header = read_header(data, str(path))
    try:
        check_complete(data)
    except FsdeployError as error:
        raise type(error)(f"{path}: {error}") from error
    return decode_image(data, str(path)), header


def write_face(path: Path, image: NDArray[np.uint8], header: FaceHeader, *, overwrite: bool = True) -> None:
    """Write a face image (S, S, 3) uint8 BGR with its header, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    write_bytes(path, with_header(encode_image(image, ".png"), header), overwrite=overwrite)


def update_header(path: Path, header: FaceHeader) -> None:
    """Replace or add the header of a PNG in place, atomically; every other chunk is kept byte for byte.

    Raises:
        NotAFaceError, HostileFileError, InputError: the file is no sound PNG or cannot be written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        updated = with_header(data, header)
    except FsdeployError as error:
        raise type(error)(f"{path}: {error}") from error
    write_bytes(path, updated)


def with_header(data: bytes, header: FaceHeader) -> bytes:
    """The bytes of a PNG with `header` as its only face metadata, right before the first `IDAT`.

    Raises:
        NotAFaceError, HostileFileError, InputError: `data` is no sound PNG.
    """
    stream = io.BytesIO(data)
    kept = [SIGNATURE]
    first_pixels = None
    for chunk in _chunks(stream, len(data)):
        if chunk.kind == b"IDAT":
            first_pixels = chunk.start
            break
        if _face_text(stream, chunk) is None:
            kept.append(data[chunk.start : chunk.end])
    if first_pixels is None:
        raise InputError("a PNG without pixel data: it is cut off")
    return b"".join([*kept, header_chunk(header), data[first_pixels:]])


def header_chunk(header: FaceHeader) -> bytes:
    """The complete `iTXt` chunk of a header: length, type, data, checksum."""
    text = str(header_to_dict(header)).encode("utf-8")
    body = b"iTXt" + KEYWORD + b"\0\0\0\0\0" + text
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _named_header(stream: BinaryIO, label: str) -> FaceHeader:
    try:
        size = stream.seek(0, io.SEEK_END)
        width, height = image_size(stream)
        if width != height:
            raise NotAFaceError(f"an image of {width}x{height} pixels is not square")
        return header_from_dict(parse_literal(_find_text(stream, size)))
    except FsdeployError as error:
        raise type(error)(f"{label}: {error}: extract the face again or delete the file") from error


def _find_text(stream: BinaryIO, size: int) -> str:
    for chunk in _chunks(stream, size):
        if chunk.kind == b"IDAT":
            break
        text = _face_text(stream, chunk)
        if text is not None:
            return text
    raise NotAFaceError("no face metadata in it")


def _chunks(stream: BinaryIO, size: int) -> Iterator[_Chunk]:
    """Walk a PNG's chunks from byte 8, the image's claims checked first."""
    image_size(stream)
    start = 8
    for _ in range(_MAX_CHUNKS):
        stream.seek(start)
        head = stream.read(8)
        if len(head) < 8:
            raise InputError("a PNG that is cut off")
        length, kind = struct.unpack(">I4s", head)
        chunk = _Chunk(kind, start, length)
        if chunk.end > size:
            raise InputError("a PNG that is cut off")
        yield chunk
        if kind == b"IEND":
            return
        start = chunk.end
    raise HostileFileError(f"a PNG of more than {_MAX_CHUNKS} chunks")


def image_size(stream: BinaryIO) -> tuple[int, int]:
    """Width and height that a PNG claims in its first chunk.

    Raises:
        NotAFaceError: no PNG.
        InputError: its first chunk is no image header.
        HostileFileError: it claims absurd dimensions, which would fill the memory when decoded.
    """
    stream.seek(0)
    head = stream.read(24)
    if head[:8] != SIGNATURE:
        raise NotAFaceError("not a PNG image")
    if head[8:16] != b"\0\0\0\x0dIHDR" or len(head) < 24:
        raise InputError("a PNG without an image header")
    width, height = struct.unpack(">II", head[16:])
    if not (0 < width <= MAX_EDGE and 0 < height <= MAX_EDGE):
        raise HostileFileError(f"it claims {width}x{height} pixels; faces have at most {MAX_EDGE}x{MAX_EDGE}")
    return width, height


def _face_text(stream: BinaryIO, chunk: _Chunk) -> str | None:
    """The header text of a chunk, or None when it is none of ours."""
    if chunk.kind != b"iTXt" or chunk.length < len(KEYWORD) + 5:
        return None
    stream.seek(chunk.start + 4)
    if stream.read(4 + len(KEYWORD) + 1)[4:] != KEYWORD + b"\0":
        return None
    if chunk.length > 4 * MAX_TEXT:
        raise HostileFileError(f"its metadata chunk of {chunk.length} bytes is larger than any face header")
    stream.seek(chunk.start + 4)
    body = stream.read(4 + chunk.length)
    (checksum,) = struct.unpack(">I", stream.read(4))
    if zlib.crc32(body) != checksum:
        raise InputError("its metadata chunk fails its checksum")
    compressed, method = body[4 + len(KEYWORD) + 1 :][:2]
    fields = body[4 + len(KEYWORD) + 3 :].split(b"\0", 2)
    if len(fields) != 3 or compressed > 1 or method != 0:
        raise InputError("its metadata chunk is no text chunk")
    text = inflate(fields[2], MAX_TEXT, "its metadata") if compressed else fields[2]
    return text.decode("utf-8", errors="replace")


def check_complete(data: bytes) -> None:
    """Refuse a PNG whose pixel data is cut off or damaged: decoders fill what is missing with grey.

    Raises:
        NotAFaceError, HostileFileError, InputError: `data` is no sound PNG.
    """
    for chunk in _chunks(io.BytesIO(data), len(data)):
        if chunk.kind == b"IDAT":
            stored = data[chunk.end - 4 : chunk.end]
            if struct.pack(">I", zlib.crc32(data[chunk.start + 4 : chunk.end - 4])) != stored:
                raise InputError("its pixel data fails its checksum: it is damaged; restore or delete it")
