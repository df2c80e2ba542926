"""One training per model folder."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from fsdeploy.errors import InputError

_held: set[Path] = set()


class FolderLock:
    """An exclusive lock on a model folder, kept in `.<name>.lock` with the holder's pid.

    The operating system holds the lock, not the file's existence: it ends with the process however that ends, so a
    lock file left behind by a crash is simply taken over.

    Raises:
        InputError: another training holds the folder (names its pid), or the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder.resolve() / f".{name}.lock"
        self._handle = -1

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle >= 0

    def acquire(self) -> None:
        """Take the lock; no-op when it is held by this object."""
        if self.held:
            return
        if self._path in _held:
            # Opening and closing the file again would drop the lock that this very process holds.
            raise self._refusal(f"pid {os.getpid()}, this process")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._cannot_write(error) from error
        if not _lock(handle):
            holder = os.read(handle, 200).decode("utf-8", "replace").strip()
            os.close(handle)
            raise self._refusal(holder or "its process could not be read")
        try:
            # Written over the last holder's line: on a full disk the file still has its block.
            os.ftruncate(handle, os.write(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode()))
        except OSError as error:
            os.close(handle)
            raise self._cannot_write(error) from error
        _held.add(self._path)
        self._handle = handle

    def _cannot_write(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {self._path.parent}: {error.strerror}: training needs write permission and free space there"
        )

    def _refusal(self, holder: str) -> InputError:
        return InputError(
            f"{self._path.parent} is in use by another training ({holder}): stop it first, or train into another folder"
        )

    def release(self) -> None:
        """Give the lock back; no-op when it is not held. The file stays: removing it would race with others."""
        if not self.held:
            return
        os.close(self._handle)
        _held.discard(self._path)
        self._handle = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        try:
            os.lseek(handle, 1 << 20, os.SEEK_SET)  # behind the text, which others must be able to read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        # POSIX record locks are not inherited by forked workers, which would keep a dead training's folder locked.
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
