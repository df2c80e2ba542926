"""JSON from a file of a stranger: UTF-8, an object at the top, no duplicate keys, no NaN, bounded depth and size."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fsdeploy_converters import limits
from fsdeploy_converters.errors import damaged, hostile


def read_object(data: bytes | str, source: Path | str) -> dict[str, Any]:
    """Parse `data`; `source` is named in errors.

    Raises:
        CorruptModelError: no JSON object.
        HostileFileError: too large, too deep, duplicate keys, or NaN where a number belongs.
    """
    if len(data) > limits.JSON_BYTES:
        raise hostile(source, f"a description of {len(data)} bytes")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise hostile(source, "a description nested without end") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise damaged(source, f"its description is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise damaged(source, "its description is not a JSON object")
    _check_depth(found, source)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _check_depth(value: object, source: Path | str) -> None:
    level: list[object] = [value]
    for _ in range(limits.JSON_DEPTH):
        level = [
            entry
            for item in level
            if isinstance(item, (dict, list))
            for entry in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise hostile(source, "a description nested too deep")
