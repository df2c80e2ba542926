"""Reading zip archives of strangers: names, sizes and places are checked first, nothing is ever extracted by name."""

from __future__ import annotations

import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fsdeploy_converters.errors import damaged, hostile, shown
from fsdeploy_converters.window import Window, WindowReader

SIGNATURE = b"PK\x03\x04"
_CHUNK = 1 << 20
_MAX_DIRECTORY = 8 << 20


@dataclass(frozen=True)
class Member:
    """One member whose name, method and place were checked."""

    name: str
    method: int
    size: int
    packed: Window
    crc: int

    @property
    def stored(self) -> bool:
        """Whether the bytes stand in the archive as they are."""
        return self.method == zipfile.ZIP_STORED


class Archive:
    """A zip archive in a window of a file.

    Raises:
        HostileFileError: duplicate, absolute or climbing names, encryption, odd methods, overlapping members, too many.
        CorruptModelError: no zip archive, or a truncated one.
    """

    def __init__(self, window: Window, source: str, most: int = 64) -> None:
        self.window, self.source = window, source
        self.members: dict[str, Member] = {}
        with WindowReader(window) as stream:
            if stream.read(4) != SIGNATURE:
                raise damaged(source, "it is not a zip archive")
            self._check_directory(stream, most)
            try:
                with zipfile.ZipFile(stream) as archive:
                    entries = archive.infolist()
            except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OverflowError) as error:
                raise damaged(source, f"its zip directory cannot be read ({shown(error)})") from error
            if len(entries) > most:
                raise hostile(source, f"a zip archive of {len(entries)} members")
            for entry in entries:
                self._add(entry, stream)
        self._check_overlap()

    def _check_directory(self, stream: WindowReader, most: int) -> None:
        """The end record must stand at the very end and claim a small directory, before a library builds it in
        memory."""
        start = max(self.window.size - 66_000, 0)
        stream.seek(start)
        tail = stream.read(66_000)
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) < place + 22:
            raise damaged(self.source, "the end of the zip archive is missing")
        count, length = struct.unpack_from("<H", tail, place + 10)[0], struct.unpack_from("<I", tail, place + 12)[0]
        wide = tail.rfind(b"PK\x06\x06", 0, place)
        if (count == 0xFFFF or length == 0xFFFFFFFF) and wide >= 0 and len(tail) >= wide + 56:
            count, length = struct.unpack_from("<QQ", tail, wide + 32)
        if count > most or length > _MAX_DIRECTORY:
            raise hostile(self.source, f"a zip archive of {count} members")
        if len(tail) != place + 22:
            raise hostile(self.source, "a zip archive with something behind its end")

    def _add(self, entry: zipfile.ZipInfo, stream: WindowReader) -> None:
        name = entry.orig_filename
        if name != entry.filename or name in self.members:
            raise hostile(self.source, f"the member {shown(name)} stands twice or hides its name")
        if not name or name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise hostile(self.source, f"the member name {shown(name)}")
        if entry.flag_bits & 0x2041 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise hostile(self.source, f"the member {shown(name)} is encrypted or packed in an unusual way")
        if entry.external_attr >> 16 & 0o170000 == 0o120000:
            raise hostile(self.source, f"the member {shown(name)} is a symbolic link")
        stream.seek(entry.header_offset)
        header = stream.read(30)
        if len(header) != 30 or header[:4] != SIGNATURE:
            raise damaged(self.source, f"the member {shown(name)} has no header")
        (method,) = struct.unpack_from("<H", header, 8)
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        if method != entry.compress_type or stream.read(name_length) != name.encode("utf-8", "surrogateescape"):
            raise hostile(self.source, f"the member {shown(name)} is described in two ways")
        offset = entry.header_offset + 30 + name_length + extra_length
        if offset + entry.compress_size > self.window.size:
            raise damaged(self.source, f"the member {shown(name)} ends too early")
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise hostile(self.source, f"the member {shown(name)} claims two sizes")
        packed = Window(self.window.path, self.window.offset + offset, entry.compress_size)
        self.members[name] = Member(name, entry.compress_type, entry.file_size, packed, entry.CRC)

    def _check_overlap(self) -> None:
        end = 0
        for member in sorted(self.members.values(), key=lambda m: (m.packed.offset, m.packed.size)):
            if member.packed.offset < end:
                raise hostile(self.source, f"the member {shown(member.name)} shares its bytes with another")
            end = member.packed.offset + member.packed.size

    def read(self, name: str, most: int) -> bytes:
        """A small member's content, its size and checksum verified.

        Raises:
            CorruptModelError: it is missing or damaged.
            HostileFileError: it is larger than `most` bytes.
        """
        member = self._member(name, most)
        return b"".join(self._chunks(member))

    def _member(self, name: str, most: int) -> Member:
        if name not in self.members:
            raise damaged(self.source, f"the member {shown(name)} is missing")
        if self.members[name].size > most:
            raise hostile(self.source, f"the member {shown(name)} claims {self.members[name].size} bytes")
        return self.members[name]

    @contextmanager
    def window_of(self, name: str, most: int) -> Iterator[Window]:
        """A member as a window: in place when it is stored, else unpacked to a private temporary file. Checksum
        verified.

        Raises:
            CorruptModelError: it is missing or damaged.
            HostileFileError: it is larger than `most` bytes.
        """
        member = self._member(name, most)
        if member.stored:
            for _ in self._chunks(member):
                pass
            yield member.packed
            return
        with tempfile.TemporaryDirectory(prefix="fsdeploy_") as folder:
            path = Path(folder) / "member"
            with path.open("wb") as target:
                self._copy(member, target)
            yield Window.whole(path)

    def chunks(self, name: str) -> Iterator[bytes]:
        """A member's content in pieces, its size and checksum verified at the end."""
        return self._chunks(self.members[name])

    def _copy(self, member: Member, target: BinaryIO) -> None:
        for chunk in self._chunks(member):
            target.write(chunk)

    def _chunks(self, member: Member) -> Iterator[bytes]:
        """The content in pieces; stops at the declared size, whatever the packed bytes would give."""
        given, crc = 0, 0
        try:
            with WindowReader(member.packed) as stream:
                packed = iter(lambda: stream.read(_CHUNK), b"")
                for chunk in packed if member.stored else _inflated(packed):
                    given, crc = given + len(chunk), zlib.crc32(chunk, crc)
                    if given > member.size:
                        raise hostile(self.source, f"the member {shown(member.name)} is larger than it says")
                    yield chunk
        except zlib.error as error:
            raise damaged(self.source, f"the member {shown(member.name)} cannot be unpacked") from error
        if given != member.size or crc != member.crc:
            raise damaged(self.source, f"the member {shown(member.name)} does not match its checksum")


def _inflated(packed: Iterable[bytes]) -> Iterator[bytes]:
    """Deflated bytes unpacked in pieces of bounded size.

    Raises:
        zlib.error: they are damaged, end too early, or go on behind their end.
    """
    unpack = zlib.decompressobj(-15)
    for piece in packed:
        # zlib may hold output back after it took all input, so an empty tail alone does not mean that it is done.
        rest, full = piece, True
        while (rest or full) and not unpack.eof:
            chunk = unpack.decompress(rest, _CHUNK)
            rest, full = unpack.unconsumed_tail, len(chunk) == _CHUNK
            yield chunk
        if unpack.eof and unpack.unused_data:
            break
    if not unpack.eof or unpack.unused_data:
        raise zlib.error("the packed bytes do not end where they should")
