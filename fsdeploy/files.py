"""The one place that writes files: beside, fsync, rename; a reader sees the old file or the new one, never a half."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from fsdeploy.errors import InputError


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return sha256_of(stream)


def sha256_of(stream: BufferedReader) -> str:
    """Hex SHA-256 of what is left to read in an open file."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut. No-op where unsupported."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success sync it and rename it over `path`, on error remove it.

    The temporary name keeps the suffix, for writers that choose a format by it.

    Raises:
        InputError: the target exists and `overwrite` is False, or its folder cannot be written.
    """
    if not overwrite and path.exists():
        raise InputError(f"{path} exists already: choose another name or pass --force to replace it")
    # One name per thread: a preview and a save may write the same file at the same time.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident():x}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("r+b") as stream:  # Windows flushes only what may be written
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}: check the folder's permissions and free space"
        ) from error
    finally:
        with suppress(OSError):  # the folder may be none, or gone: the first error says so
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)
