"""What all descriptions are made of."""

from __future__ import annotations

import json
import math
import time
from typing import Any

Facts = dict[str, Any]
"""JSON values. A list of objects is shown as a table of its own; None is not known, or not there."""


def date(seconds: float) -> str:
    """Seconds since 1970 in local time; empty for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def without(entry: Facts, *keys: str) -> Facts:
    """The facts but those of some names."""
    return {key: value for key, value in entry.items() if key not in keys}


def positive(value: Any) -> float | None:
    """A measured figure; None for 0 and -1, which say that it was not."""
    return value if isinstance(value, int | float) and value > 0 else None


def json_or_text(text: str) -> Any:
    """The value of a text that is JSON, else the text."""
    try:
        return json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _no_json(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_json(text)
