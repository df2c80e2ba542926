"""The tensors of a `torch.save` archive without an unpickler.

`data.pkl` is a program for a stack machine. It is walked with a table of the few instructions that real files use; an
instruction or a name outside the table ends the walk. Nothing is imported, called or built but dicts, lists, tuples,
numbers, texts and `TensorRef`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy_converters.archive import Archive
from fsdeploy_converters.errors import damaged, hostile, shown
from fsdeploy_converters.window import Window

_MAX_PROGRAM = 16 << 20
_REBUILD, _FLOATS, _ORDERED = "torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"


@dataclass(frozen=True)
class TensorRef:
    """A contiguous float32 tensor: where its values lie."""

    key: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass(frozen=True)
class _Storage:
    key: str
    count: int


class Walker:
    """Runs the instruction table over a program."""

    def __init__(self, program: bytes, source: str) -> None:
        self._program, self._place, self._source = program, 0, source
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """What lies under each open mark, the innermost last."""
        self._memo: dict[int, Any] = {}

    def walk(self) -> Any:
        """The object that the program describes.

        Raises:
            HostileFileError: an instruction or name that no real file uses.
            CorruptModelError: the program ends too early or does not fit together.
        """
        try:
            while (code := self._take(1)) != b".":
                step = _STEPS.get(code)
                if step is None:
                    raise hostile(self._source, f"its optimizer state runs the instruction {shown(code)}")
                step(self)
            (result,) = self._stack
            if self._below:
                raise ValueError("a mark is left open")
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
            raise damaged(self._source, "its optimizer state does not fit together") from error
        return result

    def _take(self, count: int) -> bytes:
        if self._place + count > len(self._program):
            raise ValueError("the program ends too early")
        self._place += count
        return self._program[self._place - count : self._place]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def mark(self) -> None:
        """Values from here on belong together."""
        self._below.append(self._stack)
        self._stack = []

    def from_mark(self) -> list[Any]:
        """The values above the last mark, taken off."""
        values, self._stack = self._stack, self._below.pop()
        return values

    def text(self) -> None:
        self.push(self._take(self._number("<I")).decode("utf-8"))

    def name(self) -> None:
        """GLOBAL: two lines. Only three names are known, and they stay names."""
        lines = []
        for _ in range(2):
            end = self._program.index(b"\n", self._place)
            lines.append(self._take(end - self._place).decode("ascii", "replace"))
            self._take(1)
        full = " ".join(lines)
        if full not in (_REBUILD, _FLOATS, _ORDERED):
            raise hostile(self._source, f"its optimizer state names {shown(full)}")
        self.push(_Name(full))

    def remember(self, form: str) -> None:
        self._memo[self._number(form)] = self._stack[-1]

    def recall(self, form: str) -> None:
        self.push(self._memo[self._number(form)])

    def tuple_of(self, count: int) -> None:
        values = tuple(self._stack[len(self._stack) - count :])
        if len(values) != count:
            raise ValueError("too few values")
        del self._stack[len(self._stack) - count :]
        self.push(values)

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError("items of no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise TypeError("a key is neither text nor number")
            target[key] = value

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([key, value])

    def append_all(self) -> None:
        values = self.from_mark()
        if type(self._stack[-1]) is not list:
            raise TypeError("entries of no list")
        self._stack[-1].extend(values)

    def storage(self) -> None:
        """BINPERSID: ("storage", FloatStorage, key, location, count)."""
        kind, what, key, location, count = self._stack.pop()
        plain = type(key) is str and type(location) is str and type(count) is int
        if kind != "storage" or what != _Name(_FLOATS) or not plain or not key.isdigit():
            raise hostile(self._source, "its optimizer state refers to something that is no float32 array")
        self.push(_Storage(key, count))

    def reduce(self) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if called == _Name(_ORDERED) and arguments == ():
            self.push({})
            return
        if called != _Name(_REBUILD):
            raise hostile(self._source, "its optimizer state calls something")
        storage, offset, shape, stride, learns, hooks = arguments
        numbers = type(shape) is tuple and type(stride) is tuple and all(type(n) is int for n in (*shape, *stride))
        if not numbers or type(storage) is not _Storage or offset != 0 or learns is not False or hooks != {}:
            raise hostile(self._source, "its optimizer state builds an unusual tensor")
        # With every axis positive and the whole storage used, the strides can only be those of a plain array.
        plain = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        if len(shape) > 8 or any(n < 1 for n in shape) or stride != plain or math.prod(shape) != storage.count:
            raise hostile(self._source, "its optimizer state holds a tensor that claims more values than it has")
        self.push(TensorRef(storage.key, shape))


_STEPS: dict[bytes, Callable[[Walker], None]] = {
    b"\x80": lambda w: None if w._take(1) == b"\x02" else w._memo[-1],
    b"}": lambda w: w.push({}),
    b"]": lambda w: w.push([]),
    b")": lambda w: w.push(()),
    b"(": Walker.mark,
    b"X": Walker.text,
    b"G": lambda w: w.push(w._number(">d")),
    b"J": lambda w: w.push(w._number("<i")),
    b"K": lambda w: w.push(w._number("<B")),
    b"M": lambda w: w.push(w._number("<H")),
    b"\x88": lambda w: w.push(True),
    b"\x89": lambda w: w.push(False),
    b"N": lambda w: w.push(None),
    b"q": lambda w: w.remember("<B"),
    b"r": lambda w: w.remember("<I"),
    b"h": lambda w: w.recall("<B"),
    b"j": lambda w: w.recall("<I"),
    b"c": Walker.name,
    b"t": lambda w: w.push(tuple(w.from_mark())),
    b"\x85": lambda w: w.tuple_of(1),
    b"\x86": lambda w: w.tuple_of(2),
    b"\x87": lambda w: w.tuple_of(3),
    b"Q": Walker.storage,
    b"R": Walker.reduce,
    b"s": Walker.set_item,
    b"u": lambda w: w.set_items(w.from_mark()),
    b"e": Walker.append_all,
}


class TorchArchive:
    """A `torch.save` archive in a window: its object with `TensorRef`s in it, and their values.

    Raises:
        HostileFileError: anything but the plain form that torch writes.
        CorruptModelError: truncated or damaged.
    """

    def __init__(self, window: Window, source: str) -> None:
        self._archive, self._source = Archive(window, source, most=20_000), source
        members = self._archive.members
        roots = {name.partition("/")[0] for name in members}
        if len(roots) != 1 or not all(member.stored for member in members.values()):
            raise hostile(source, "its optimizer state holds packed records or several folders")
        self._root = root = roots.pop()
        byte_order = f"{root}/byteorder"
        if byte_order in members and self._archive.read(byte_order, 16) != b"little":
            raise damaged(source, "its optimizer state has another byte order")
        self.content = Walker(self._archive.read(f"{root}/data.pkl", _MAX_PROGRAM), source).walk()

    def read(self, tensor: TensorRef) -> NDArray[np.float32]:
        """Values of a tensor.

        Raises:
            CorruptModelError: its record is missing or has another length.
        """
        name = f"{self._root}/data/{tensor.key}"
        member = self._archive.members.get(name)
        if member is None or member.size != 4 * math.prod(tensor.shape):
            raise damaged(self._source, f"the record {shown(name)} is missing or has a wrong length")
        # The checksum of the archive around this one covers these bytes.
        with member.packed.path.open("rb") as stream:
            stream.seek(member.packed.offset)
            values = np.fromfile(stream, "<f4", math.prod(tensor.shape))
        return values.reshape(tensor.shape)
