"""A range of bytes of a file, and a stream over it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Window:
    """A range of bytes of a file: the whole file, or a stored member of an archive."""

    path: Path
    offset: int
    size: int

    @classmethod
    def whole(cls, path: Path) -> Window:
        """The window of a complete file."""
        return cls(path, 0, path.stat().st_size)


class WindowReader(io.RawIOBase):
    """A read-only stream over a window."""

    def __init__(self, window: Window) -> None:
        self._window, self._place = window, 0
        self._stream = window.path.open("rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._window.size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._window.size - self._place), 0)
        self._stream.seek(self._window.offset + self._place)
        count = self._stream.readinto(view[:count]) if count else 0
        self._place += count
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
