"""Reading HDF5 files of strangers: looked over in a process of its own, values read from the file directly.

The HDF5 library is large and old, and some damaged files make it crash or run without end. Nobody can tell from Python,
so the walk over the file's structure happens in a child process with a limit of time and memory. Values are then read
here, at the checked places, without the library; no feature of it that reaches elsewhere can take part.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import CorruptModelError, HostileFileError
from fsdeploy_converters import limits
from fsdeploy_converters.child import ask
from fsdeploy_converters.errors import damaged, hostile, shown
from fsdeploy_converters.limits import Hdf5Limits
from fsdeploy_converters.window import Window

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ERRORS = {"HostileFileError": HostileFileError}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A checked dataset: where its bytes lie in the window."""

    shape: tuple[int, ...]
    kind: str
    """Element type, as numpy spells it."""
    offset: int


class Hdf5File:
    """A file that was looked over. Paths have no leading slash; the root is "".

    Raises:
        HostileFileError: the file holds something that no real model file does, or the library does not come to an end.
        CorruptModelError: the file is truncated or damaged.
    """

    def __init__(self, window: Window, bounds: Hdf5Limits, source: str) -> None:
        self.window, self.source = window, source
        request = {
            "path": str(window.path.resolve()),
            "offset": window.offset,
            "size": window.size,
            "source": source,
            "bounds": [bounds.objects, bounds.depth, sorted(bounds.kinds), bounds.rank],
        }
        answer = ask(request, source)
        if "error" in answer:
            raise _ERRORS.get(answer["error"], CorruptModelError)(answer["message"])
        self.datasets = {path: Stored(tuple(shape), kind, offset) for path, shape, kind, offset in answer["datasets"]}
        self.children: dict[str, list[str]] = answer["children"]
        self._texts: dict[tuple[str, str], str | list[str]] = {(path, name): v for path, name, v in answer["texts"]}

    def text(self, path: str, name: str) -> str | None:
        """A text attribute of a group, or None."""
        value = self._texts.get((path, name))
        return value if isinstance(value, str) else None

    def names(self, path: str, name: str) -> list[str] | None:
        """A list attribute of a group, joined from `name`0, `name`1, ... when it was split; None when absent.

        Raises:
            HostileFileError: a name is absolute, empty, too long or climbs.
        """
        value = self._texts.get((path, name))
        if not isinstance(value, list):
            value, count = [], 0
            while isinstance(part := self._texts.get((path, f"{name}{count}")), list):
                value, count = value + part, count + 1
            if not count:
                return None
        for entry in value:
            parts = entry.split("/")
            if len(entry.encode()) > limits.NAME_BYTES or any(part in {"", ".", ".."} for part in parts):
                raise hostile(self.source, f"the name {shown(entry)}")
        return value

    def read(self, path: str) -> NDArray[Any]:
        """Values of a checked dataset."""
        stored = self.datasets[path]
        with self.window.path.open("rb") as stream:
            stream.seek(self.window.offset + stored.offset)
            values = np.fromfile(stream, np.dtype(stored.kind), math.prod(stored.shape))
        if values.size != math.prod(stored.shape):
            raise damaged(self.source, f"{shown(path)} ends too early")
        return values.reshape(stored.shape)
