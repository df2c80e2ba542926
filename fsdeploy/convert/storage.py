"""An output file that stays playable when the disk is full: room for its index is set aside before the first byte."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from fsdeploy.errors import InputError

_RESERVE = 8 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class ReservedFile:
    """A file object for muxers. When the disk is full it gives the reserve free, completes the write and sets `full`.

    The caller looks at `full` after each packet, stops, and lets the muxer write its index into the freed room.
    """

    def __init__(self, path: Path, reserve: int = _RESERVE) -> None:
        self.path = path
        self.full = False
        self._reserve_path = path.with_name(path.name + ".reserve")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: BinaryIO = path.open("w+b", buffering=0)
            self._set_aside(reserve)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                self._reserve_path.unlink(missing_ok=True)
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    def _set_aside(self, size: int) -> None:
        with self._reserve_path.open("wb") as stream:
            stream.write(b"\0" * size)
            stream.flush()
            os.fsync(stream.fileno())

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        total = len(view)
        while view:
            try:
                written = self._stream.write(view)
            except OSError as error:
                if error.errno not in _FULL or self.full:
                    raise
                self.full = True
                self._reserve_path.unlink(missing_ok=True)
                continue
            view = view[written:]
        return total

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._reserve_path.unlink(missing_ok=True)
        if not self._stream.closed:
            os.fsync(self._stream.fileno())
            self._stream.close()
