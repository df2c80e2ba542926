"""Finished crops, kept so that a face is decoded once: in memory, or in a file that outlives the run.

The file is a table of slots followed by their rows. A slot is found by a digest of everything its crop depends on (file
name, size, time of change, and how it was cropped), so a changed face or option never meets a stale crop, and one file
serves any mixture of faces. A checksum per row tells a row that was cut off by a crash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError

_LOG = logging.getLogger(__name__)
_MAGIC = b"fsdeploy crops 1"
_SLOT = np.dtype([("digest", "S16"), ("checksum", "<u4"), ("filled", "<u4")])
_ALIGN = 4096


def crop_digest(*parts: object) -> bytes:
    """16 bytes that stand for everything a crop depends on."""
    return hashlib.blake2b("\0".join(map(repr, parts)).encode(), digest_size=16).digest()


class CropCache:
    """Rows of bytes by face index. Reading and writing from several threads is safe.

    Args:
        digests: what each face's crop depends on (`crop_digest`).
        row_bytes: bytes of a crop.
        budget: bytes that rows may take; faces beyond it are not kept.
        path: file to keep rows in; in memory if None.

    Raises:
        InputError: the file cannot be made: there is no room for all its rows, say.
    """

    def __init__(self, digests: list[bytes], row_bytes: int, budget: int, path: Path | None = None) -> None:
        self.row_bytes = row_bytes
        slots = min(len(digests), budget // max(1, row_bytes))
        self._lock: IO[bytes] | None = None
        self._table: NDArray[np.void] | None = None
        self._digests = digests
        self._slot = np.full(len(digests), -1, np.int64)
        self._ready = np.zeros(len(digests), np.bool_)
        if path is not None and slots and self._take_lock(path):
            self._open_file(path, slots)
        else:
            self._rows = np.empty((slots, row_bytes), np.uint8)  # pages are taken as rows are written
            self._slot[:slots] = np.arange(slots)

    @property
    def kept(self) -> int:
        """Faces that have room."""
        return int((self._slot >= 0).sum())

    @property
    def filled(self) -> int:
        """Faces whose crop is known to be here."""
        return int(self._ready.sum())

    def get(self, index: int) -> NDArray[np.uint8] | None:
        """The row (row_bytes,) of a face, not to be written to; None if it is not here."""
        slot = self._slot[index]
        if slot < 0:
            return None
        if not self._ready[index]:
            if self._table is None or not self._is_whole(index, slot):
                return None
            self._ready[index] = True
        return np.asarray(self._rows[slot])

    def put(self, index: int, row: NDArray[np.uint8]) -> None:
        """Keep the row of a face, if it has room."""
        slot = self._slot[index]
        if slot < 0:
            return
        self._rows[slot] = row
        if self._table is not None:
            self._table[slot] = (self._digests[index], zlib.crc32(row.data), 1)
        self._ready[index] = True  # last: other threads read the row from here on

    def close(self) -> None:
        """Write a file-backed cache out and let go of it."""
        if isinstance(self._rows, np.memmap):
            self._rows.flush()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _is_whole(self, index: int, slot: int) -> bool:
        assert self._table is not None
        entry = self._table[slot]
        if not entry["filled"] or bytes(entry["digest"]).ljust(16, b"\0") != self._digests[index]:
            return False
        return zlib.crc32(self._rows[slot].data) == int(entry["checksum"])

    def _take_lock(self, path: Path) -> bool:
        """Whether this process alone may use the file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = path.with_suffix(".lock").open("wb")
        except OSError as error:
            raise InputError(
                f"cannot keep crops in {path}: {error.strerror or error}: choose another 'cache_folder'"
            ) from error
        try:
            _lock_file(self._lock)
        except OSError:
            _LOG.warning("%s is in use by another run: this run keeps its crops in memory", path)
            self._lock.close()
            self._lock = None
            return False
        return True

    def _open_file(self, path: Path, slots: int) -> None:
        header = _MAGIC + self.row_bytes.to_bytes(8, "little") + slots.to_bytes(8, "little")
        offset = -(-(len(header) + slots * _SLOT.itemsize) // _ALIGN) * _ALIGN
        total = offset + slots * self.row_bytes
        try:
            if not _is_made_for(path, header, total):
                _make(path, header, total)
            self._table = np.memmap(path, _SLOT, "r+", len(header), (slots,))
            self._rows = np.memmap(path, np.uint8, "r+", offset, (slots, self.row_bytes))
        except OSError as error:
            raise InputError(
                f"cannot keep crops in {path}: {error.strerror or error}: free {(total >> 20) + 1} MB, lower "
                "'cache_budget', or choose another 'cache_folder'"
            ) from error
        self._assign(slots)

    def _assign(self, slots: int) -> None:
        """Give every face the slot that already holds it, and the other faces the slots that nobody wants."""
        assert self._table is not None
        held = {bytes(d).ljust(16, b"\0"): i for i, d in enumerate(self._table["digest"]) if self._table["filled"][i]}
        free = set(range(slots))
        waiting = []
        for index, digest in enumerate(self._digests):
            slot = held.get(digest)
            if slot is not None and slot in free:
                free.discard(slot)
                self._slot[index] = slot
            else:
                waiting.append(index)
        for index, slot in zip(waiting, sorted(free), strict=False):
            self._slot[index] = slot


def _is_made_for(path: Path, header: bytes, total: int) -> bool:
    """Whether there is a cache file of this layout that has all its room on the disk."""
    try:
        with path.open("r+b") as stream:
            found = os.fstat(stream.fileno())
            if stream.read(len(header)) != header or found.st_size != total:
                return False
            if hasattr(os, "posix_fallocate") and found.st_blocks * 512 < total:
                _reserve(stream, total)  # a program that copied the file may have left holes where it held zeros
            return True
    except FileNotFoundError:
        return False


def _make(path: Path, header: bytes, total: int) -> None:
    """Make an empty cache file with room for all its rows.

    Raises:
        OSError: there is no room, or the folder cannot be written; no file is left.
    """
    try:
        with path.open("wb") as stream:
            _reserve(stream, total)
            stream.seek(0)
            stream.write(header)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _reserve(stream: IO[bytes], total: int) -> None:
    """Take room on the disk. A file that merely claims its size kills the process, by SIGBUS, when a row is written
    through the memory map and the disk is full."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(stream.fileno(), 0, total)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            if os.fstat(stream.fileno()).st_size == total:
                return
    zeros = bytes(1 << 20)
    for start in range(0, total, len(zeros)):
        stream.write(zeros[: total - start])
    stream.flush()
    os.fsync(stream.fileno())  # some file systems notice only now that they are full


def _lock_file(stream: IO[bytes]) -> None:
    """Lock a file for this process alone.

    Raises:
        OSError: another process holds it.
    """
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
