"""A reader for the pickles inside alignments files that can build data and nothing else.

The file may come from anywhere. So: an allow-list of instructions, checked before any of them runs, and an allow-list
of nine names, each replaced by a function of ours that checks its arguments and can be given no state.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import HostileFileError, InputError
from fsdeploy.faces.opcodes import check_opcodes

_NUMBER_TYPES: Final = frozenset(f"{kind}{width}" for kind in "fiu" for width in (1, 2, 4, 8)) - {"f1"} | {"b1"}


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not data."""


class _Function:
    """A global of the allow-list, as a function of ours. Callable, and closed: a pickle cannot set its state."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("it sets the state of a function")


class _DType:
    """Stands for a numpy.dtype: a number type and its byte order."""

    __slots__ = ("code",)

    def __init__(self, code: Any, *_flags: Any) -> None:
        code = code.lstrip("<=|") if isinstance(code, str) else ""
        if code.lstrip(">") not in _NUMBER_TYPES:
            raise _Refused("it holds an array of something else than numbers")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, ...): only the order may say something
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("it holds a damaged number type")
        if any(entry is not None for entry in state[2:5]):
            raise _Refused("it holds an array of records")
        self.code = (">" if state[1] == ">" else "") + self.code.lstrip(">")


class _Array:
    """Stands for a numpy.ndarray until its state arrives. `value` is None before."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[np.generic] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("it holds a damaged array")
        _version, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[np.generic]:
    """An array whose bytes are all there: its size is bounded by the file's."""
    sizes = shape if isinstance(shape, tuple) and len(shape) <= 4 else None
    if (
        not isinstance(dtype, _DType)
        or not isinstance(data, bytes | bytearray)
        or sizes is None
        or order not in ("C", "F")
    ):
        raise _Refused("it holds a damaged array")
    if not all(isinstance(size, int) and 0 <= size <= len(data) for size in sizes):
        raise _Refused("it holds an array of impossible shape")
    values = np.frombuffer(data, np.dtype(dtype.code))
    if values.size != int(np.prod([1, *sizes], dtype=object)):
        raise _Refused("it holds an array that is cut off")
    return values.reshape(sizes, order=order)


def _reconstruct(kind: Any, _shape: Any, _code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise _Refused("it builds something else than an array")
    return _Array()


def _scalar(dtype: Any, data: Any) -> Any:
    values = _array(data, dtype, (1,))
    return values[0].item()


def _encode(text: Any, encoding: Any = None) -> bytes:
    # How protocols 0 to 2 spell bytes
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("it encodes text")
    return text.encode("latin-1")


def _no_call(*_arguments: Any) -> Any:
    raise _Refused("it builds an array by hand")


_NDARRAY: Final = _Function(_no_call)
_GLOBALS: Final[dict[tuple[str, str], _Function]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Function(_DType),
    ("_codecs", "encode"): _Function(_encode),
}
for _package in ("numpy.core", "numpy._core"):
    _GLOBALS[f"{_package}.multiarray", "_reconstruct"] = _Function(_reconstruct)
    _GLOBALS[f"{_package}.multiarray", "scalar"] = _Function(_scalar)
    _GLOBALS[f"{_package}.numeric", "_frombuffer"] = _Function(_array)


class _DataUnpickler(pickle.Unpickler):
    """Knows the names of the allow-list and no others."""

    def find_class(self, module: str, name: str) -> Any:
        found = _GLOBALS.get((module, name))
        if found is None:
            raise _Refused(f"it asks for {module[:60]}.{name[:60]}")
        return found


def load_data(data: bytes, name: str) -> Any:
    """Unpickle plain containers, numbers, strings, bytes and NumPy number arrays.

    Arrays come back wrapped; `unwrap` opens them.

    Raises:
        HostileFileError: the pickle asks for anything else.
        InputError: it is damaged.
    """
    try:
        check_opcodes(data)
        return _DataUnpickler(io.BytesIO(data), encoding="latin1").load()
    except (_Refused, HostileFileError) as error:
        raise HostileFileError(f"{name} is not loaded: {error}; it may carry code, get a clean copy") from error
    except RecursionError as error:
        raise HostileFileError(f"{name} is not loaded: it is nested without end") from error
    except InputError as error:
        raise InputError(f"{name} is a damaged alignments file ({error}): restore a backup") from error
    except Exception as error:  # a damaged pickle makes its interpreter fail in any way
        reason = f"{type(error).__name__}: {error}"[:100].replace("\n", " ")
        raise InputError(f"{name} is a damaged alignments file ({reason}): restore a backup") from error


def unwrap(value: Any) -> Any:
    """The array inside what `load_data` made of one; everything else as it is.

    Raises:
        InputError: the array never got its numbers.
    """
    if isinstance(value, _Array):
        if value.value is None:
            raise InputError("an array without numbers")
        return value.value
    if isinstance(value, _Function | _DType):
        raise InputError("a value that is no data")
    return value
