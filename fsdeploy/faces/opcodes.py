"""A scan of a pickle's instructions before anything runs them: are they only those that data needs?

Pickle's own interpreter can be kept from unknown names, but not from instructions that take gigabytes of memory for a
few bytes of input. A regular expression walks over the runs of instructions with arguments of fixed size, which are
nearly all of a file; the few others are stepped over one by one.
"""

from __future__ import annotations

import pickletools
import re
import struct
from typing import Final

from fsdeploy.errors import HostileFileError, InputError

_CODE: Final = {opcode.name: opcode.code.encode("latin1") for opcode in pickletools.opcodes}

# Instruction names by the bytes of their argument.
_FIXED: Final = {
    0: "MARK POP POP_MARK DUP MEMOIZE NONE NEWTRUE NEWFALSE EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS STACK_GLOBAL REDUCE BUILD",
    1: "PROTO BINPUT BINGET BININT1",
    2: "BININT2",
    4: "BININT LONG_BINGET",
    8: "BINFLOAT FRAME",
}
_COUNTED: Final = {
    "<B": "SHORT_BINSTRING SHORT_BINBYTES SHORT_BINUNICODE LONG1",
    "<I": "BINSTRING BINBYTES BINUNICODE LONG4",
    "<Q": "BINBYTES8 BINUNICODE8 BYTEARRAY8",
}
"""Arguments that start with their own length."""
_LINES: Final = {1: "INT LONG FLOAT STRING UNICODE GET PUT", 2: "GLOBAL"}
"""Arguments that are lines of text."""

_CONTAINERS: Final = [
    _CODE[name] for name in ("EMPTY_LIST", "EMPTY_DICT", "LIST", "DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
]
_CONTAINER_SHARE: Final = 3
"""At most every third byte may make a container; in real files it is every tenth."""
_FREE_CONTAINERS: Final = 4096


def _codes(names: str) -> bytes:
    return b"".join(re.escape(_CODE[name]) for name in names.split())


# Possessive, so that nothing is remembered for going back: a run may have a hundred million instructions.
_RUN: Final = re.compile(
    b"(?:" + b"|".join(b"[%b].{%d}" % (_codes(names), size) for size, names in _FIXED.items()) + b")*+", re.DOTALL
)
_FIXED_CODES: Final = {_CODE[name] for names in _FIXED.values() for name in names.split()}
_COUNTED_CODES: Final = {_CODE[name]: struct.Struct(form) for form, names in _COUNTED.items() for name in names.split()}
_LINE_CODES: Final = {_CODE[name]: count for count, names in _LINES.items() for name in names.split()}
_NAMES: Final = {code: name for name, code in _CODE.items()}


def check_opcodes(data: bytes) -> None:
    """Walk a pickle's instructions up to its end, running none.

    Raises:
        HostileFileError: it holds an instruction that data does not need, or asks for absurd amounts of memory.
        InputError: it is cut off or no pickle.
    """
    position, containers = 0, 0
    while True:
        run = _RUN.match(data, position)
        assert run is not None  # an empty run matches anywhere
        # Counts argument bytes as well: an upper bound, and one that real files stay far below.
        containers += sum(data.count(code, position, run.end()) for code in _CONTAINERS)
        if containers > len(data) // _CONTAINER_SHARE + _FREE_CONTAINERS:
            raise HostileFileError("it is built of more containers than values")
        position = run.end()
        code = data[position : position + 1]
        if code == _CODE["STOP"]:
            return
        position = _skip(data, code, position + 1)


def _skip(data: bytes, code: bytes, position: int) -> int:
    """Where the next instruction starts, behind the argument of an instruction of varying size."""
    if code in _COUNTED_CODES:
        form = _COUNTED_CODES[code]
        if position + form.size > len(data):
            raise InputError("it is cut off")
        position += form.size + int(form.unpack_from(data, position)[0])
    elif code in _LINE_CODES:
        for _ in range(_LINE_CODES[code]):
            start, position = position, data.find(b"\n", position) + 1
            if position == 0:
                raise InputError("it is cut off")
        if code == _CODE["PUT"]:
            _check_memo(data[start : position - 1], len(data))
    elif code == _CODE["LONG_BINPUT"]:
        _check_memo(b"%d" % int.from_bytes(data[position : position + 4], "little"), len(data))
        position += 4
    elif not code or code in _FIXED_CODES:
        raise InputError("it is cut off")
    else:
        raise HostileFileError(f"it uses an instruction that data does not need ({_NAMES.get(code, code.hex())})")
    if position > len(data):
        raise InputError("it is cut off")
    return position


def _check_memo(index: bytes, limit: int) -> None:
    """The memo is a list as long as its largest index: it must not be longer than the file."""
    if not index.isdigit() or len(index) > 12 or int(index) > limit:
        raise HostileFileError("it asks for more memory than its size explains")
