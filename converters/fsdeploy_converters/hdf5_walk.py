"""Looking an HDF5 file over completely before a single value is read.

Only what real model files hold is let in: hard links, no object reached twice, plain contiguous little-endian numbers
inside the file, no filters, no bytes used twice. Memory is therefore bounded by the file's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5d, h5o

from fsdeploy.errors import FsdeployError
from fsdeploy_converters import limits
from fsdeploy_converters.errors import damaged, hostile, shown
from fsdeploy_converters.limits import Hdf5Limits
from fsdeploy_converters.window import Window, WindowReader

SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Stored:
    """A checked dataset: where its bytes lie in the window."""

    shape: tuple[int, ...]
    kind: str
    offset: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(self.kind).itemsize


class Hdf5Walk:
    """The structure of a file. Paths have no leading slash; the root is "".

    Raises:
        HostileFileError: the file holds something that no real model file does.
        CorruptModelError: the file is truncated or damaged.
    """

    def __init__(self, window: Window, bounds: Hdf5Limits, source: str) -> None:
        self.window, self.source = window, source
        self.datasets: dict[str, Stored] = {}
        self.children: dict[str, list[str]] = {}
        self.texts: dict[tuple[str, str], str | list[str]] = {}
        self._bounds = bounds
        with self._opened() as root:
            self._walk(root)
            self._check_extents()

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        try:
            with WindowReader(self.window) as stream:
                if stream.read(8) != SIGNATURE:
                    raise damaged(self.source, "it is not an HDF5 file")
                stream.seek(0)
                with h5py.File(stream, "r") as root:
                    yield root
        except FsdeployError:
            raise
        except OSError as error:
            if error.errno is not None:
                raise
            raise damaged(self.source, f"HDF5 cannot read it ({shown(error, 120)})") from error
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise damaged(self.source, f"HDF5 cannot read it ({shown(error, 120)})") from error

    def _walk(self, root: h5py.File) -> None:
        info = h5o.get_info(root.id)
        seen = {(info.fileno, info.addr)}
        waiting: list[tuple[str, h5py.Group, int]] = [("", root, 0)]
        while waiting:
            path, group, depth = waiting.pop()
            if depth > self._bounds.depth:
                raise hostile(self.source, "groups nested too deep")
            self._read_attributes(path, group)
            self.children[path] = []
            for raw in group.id:
                name = self._checked_name(raw)
                link = group.id.links.get_info(raw)
                if link.type != h5py.h5l.TYPE_HARD:
                    raise hostile(self.source, f"{shown(path + '/' + name)} is a link to another place")
                info = h5o.get_info(group.id, raw)
                if (info.fileno, info.addr) in seen:
                    raise hostile(self.source, f"{shown(path + '/' + name)} is reached in two ways")
                seen.add((info.fileno, info.addr))
                if len(seen) > self._bounds.objects:
                    raise hostile(self.source, "too many objects")
                self.children[path].append(name)
                full = f"{path}/{name}" if path else name
                if info.type == h5o.TYPE_GROUP:
                    waiting.append((full, group[raw], depth + 1))
                elif info.type == h5o.TYPE_DATASET:
                    self.datasets[full] = self._checked(full, h5d.open(group.id, raw))
                else:
                    raise hostile(self.source, f"{shown(full)} is neither a group nor an array")

    def _checked_name(self, raw: bytes) -> str:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise damaged(self.source, "a name is not text") from error
        if not 0 < len(raw) <= limits.NAME_BYTES or name in {".", ".."} or "/" in name:
            raise hostile(self.source, f"the name {shown(name)}")
        return name

    def _checked(self, path: str, dataset: h5d.DatasetID) -> Stored:
        plist = dataset.get_create_plist()
        if plist.get_layout() != h5d.CONTIGUOUS or plist.get_nfilters() or plist.get_external_count():
            raise hostile(self.source, f"{shown(path)} is compressed, chunked, virtual or lies outside the file")
        kind = dataset.get_type()
        if kind.get_class() not in (h5py.h5t.FLOAT, h5py.h5t.INTEGER) or dataset.dtype.str not in self._bounds.kinds:
            raise hostile(self.source, f"{shown(path)} has the element type {shown(dataset.dtype)}")
        space = dataset.get_space()
        shape = tuple(int(n) for n in space.shape)
        if space.get_simple_extent_type() == h5py.h5s.NULL or len(shape) > self._bounds.rank:
            raise hostile(self.source, f"{shown(path)} has no usable shape")
        stored, offset = Stored(shape, dataset.dtype.str, dataset.get_offset() or -1), dataset.get_offset()
        if not 1 <= math.prod(shape) <= limits.ELEMENTS or offset is None:
            raise hostile(self.source, f"{shown(path)} claims the shape {shape} without having the data")
        if dataset.get_storage_size() != stored.size or offset <= 0 or offset + stored.size > self.window.size:
            raise hostile(self.source, f"{shown(path)} claims the shape {shape} but has other data")
        return stored

    def _check_extents(self) -> None:
        end = 0
        for path, stored in sorted(self.datasets.items(), key=lambda item: item[1].offset):
            if stored.offset < end:
                raise hostile(self.source, f"{shown(path)} uses bytes of another array")
            end = stored.offset + stored.size

    def _read_attributes(self, path: str, group: h5py.Group) -> None:
        attributes = group.attrs
        if len(attributes) > 64:
            raise hostile(self.source, f"{shown(path)} has {len(attributes)} attributes")
        for name in attributes:
            handle = attributes.get_id(name)
            kind, count = handle.get_type(), math.prod(handle.shape)
            if count > 4_096 or count * kind.get_size() > limits.JSON_BYTES:
                raise hostile(self.source, f"the attribute {shown(name)} of {shown(path)} is too large")
            is_text = kind.get_class() == h5py.h5t.STRING
            if not is_text and count:
                continue
            # An empty list of names is stored as an empty list of numbers.
            value = attributes[name] if is_text and count else []
            if isinstance(value, (np.ndarray, list)):
                self.texts[(path, name)] = [self._decoded(entry) for entry in value]
            else:
                self.texts[(path, name)] = self._decoded(value)

    def _decoded(self, value: str | bytes) -> str:
        if isinstance(value, bytes):
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise damaged(self.source, "an attribute is not text") from error
        if not isinstance(value, str):
            raise damaged(self.source, "an attribute is not text")
        return value
