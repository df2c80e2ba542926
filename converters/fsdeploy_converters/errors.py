"""One-line errors of readers: every text taken from a file is shortened and escaped before it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsdeploy.errors import CorruptModelError, HostileFileError, UnsupportedFormatError


def shown(text: object, length: int = 60) -> str:
    """Text from a file, safe to print: quoted, escaped, at most `length` characters."""
    raw = str(text)
    return ascii(raw if len(raw) <= length else raw[:length] + "...")


def hostile(path: Path | str, what: str) -> HostileFileError:
    """The file claims or reaches for something that no real model file does."""
    return HostileFileError(f"{path}: {what}: refused, nothing was read from it; get the model from its author again")


def damaged(path: Path | str, what: str) -> CorruptModelError:
    """The file contradicts itself or is incomplete."""
    return CorruptModelError(f"{path}: {what}: the file is damaged; use its backup (.bk) or a snapshot")


def unsupported(path: Path | str, what: str) -> UnsupportedFormatError:
    """The file is sound but not a model that can be migrated."""
    return UnsupportedFormatError(f"{path}: {what}: it cannot be migrated")


@contextmanager
def as_damage(source: Path | str, what: str) -> Iterator[None]:
    """Values of a wrong kind, wherever a description is read, are damage of the file."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise damaged(source, f"its {what} does not follow the format ({shown(error)})") from error
