"""Limits that readers of face files put on what they are given, and the checks that hold values to them."""

from __future__ import annotations

import math
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import HostileFileError, InputError

LARGEST_PIXEL: Final = 1_000_000
"""Box corners and landmarks lie within this many pixels of the frame's origin."""
LARGEST_FRAME: Final = 65_535
LONGEST_NAME: Final = 4_096
"""Characters in a file name or key."""
_PLAIN_VALUES: Final = 1_000_000
_PLAIN_DEPTH: Final = 12


def inflate(data: bytes, limit: int, what: str) -> bytes:
    """Decompress a whole zlib stream of at most `limit` bytes.

    Raises:
        InputError: the stream is damaged or cut off.
        HostileFileError: it would grow beyond the limit.
    """
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, limit + 1)
    except (zlib.error, MemoryError) as error:
        raise InputError(f"{what} is a damaged zlib stream ({error})") from error
    if len(result) > limit:
        raise HostileFileError(f"{what} unpacks to more than the {limit} bytes it may hold")
    if not stream.eof:
        raise InputError(f"{what} is a zlib stream that is cut off")
    return result


def integer(value: Any, what: str, low: int = -LARGEST_PIXEL, high: int = LARGEST_PIXEL) -> int:
    """A whole number in low..high; floats are truncated, NumPy numbers accepted.

    Raises:
        InputError: it is no number, or outside.
    """
    return int(number(value, what, low, high))


def number(value: Any, what: str, low: float, high: float) -> float:
    """A finite number in low..high.

    Raises:
        InputError: it is no number, or outside.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} is {shown(value)}, not a number")
    if not low <= value <= high:  # NaN is in no range
        raise InputError(f"{what} is {shown(value)}, outside {low}..{high}")
    return value


def text(value: Any, what: str) -> str:
    """A string of sane length.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str) or len(value) > LONGEST_NAME or not _is_text(value):
        raise InputError(f"{what} is {shown(value)}, not a name")
    return value


def _is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: lone surrogates cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def table(value: Any, what: str) -> dict[str, Any]:
    """A dict with string keys.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, dict):
        raise InputError(f"{what} is {shown(value)}, not a table of names")
    for key in value:
        text(key, f"a key of {what}")
    return value


def array(value: Any, what: str, limit: int) -> NDArray[np.float64]:
    """Nested lists or an array of numbers as float64, `limit` numbers at most. NaN passes; shapes are the caller's.

    Raises:
        InputError: ragged, too many, or not numbers.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiu" or value.size > limit:
            raise InputError(f"{what} is no array of at most {limit} numbers")
        return value.astype(np.float64)
    if not isinstance(value, list | tuple) or len(value) > limit:
        raise InputError(f"{what} is {shown(value)}, not a list of at most {limit} numbers")
    # A pickle can hold one long list a million times over: look at every level before NumPy expands it.
    flat: list[Any] = []
    for row in value:
        flat.extend(row) if isinstance(row, list | tuple) and len(row) <= limit else flat.append(row)
        if len(flat) > limit:
            raise InputError(f"{what} holds more than {limit} numbers")
    if not all(isinstance(item, int | float | np.integer | np.floating) for item in flat):
        raise InputError(f"{what} holds something else than numbers")
    try:
        return np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{what} is no regular list of numbers") from error


def plain(value: Any, what: str) -> Any:
    """A copy made of dict, list, str, bytes, int, float, bool and None alone: what a header can hold.

    Raises:
        InputError: something else is inside.
        HostileFileError: it is nested too deep or too large.
    """
    left = [_PLAIN_VALUES]

    def copy(item: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > _PLAIN_DEPTH:
            raise HostileFileError(f"{what} is nested deeper or holds more values than any face file does")
        if isinstance(item, np.ndarray):
            left[0] -= item.size
            item = item.tolist() if item.dtype.kind in "fiub" and left[0] > 0 else object()
        if isinstance(item, np.generic):
            item = item.item()
        if item is None or isinstance(item, bytes) or (isinstance(item, str) and _is_text(item)):
            return item
        if isinstance(item, int) and abs(item) < 1 << 63:
            return item
        if isinstance(item, float) and math.isfinite(item):
            return item
        if isinstance(item, dict):
            return {text(key, f"a key of {what}"): copy(entry, depth + 1) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [copy(entry, depth + 1) for entry in item]
        raise InputError(f"{what} holds {shown(item)}, which a face file cannot keep")

    return copy(value, 0)


def shown(value: Any) -> str:
    """A value for an error message, short and on one line whatever it is."""
    if isinstance(value, str | bytes):
        return repr(value[:40])
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**40):
        return repr(value)
    return f"a {type(value).__name__}"
