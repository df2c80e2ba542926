"""Facts as tables for people; `--json` prints all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fsdeploy.cli.describe.facts import Facts

_DIGITS = 10
"""A number that is longer is rounded."""
_JSON_ONLY = ("config",)  # too long for a table
_SAID_ELSEWHERE = {
    "output_size": "output_sizes",
    "fsdeploy ir_version": "ir_version",
    "fsdeploy opset": "opsets",
    "fsdeploy format_version": "kind",
}
"""Fact -> the fact of the same table that says the same."""
_COUNTS = ("sizes", "centerings", "masks", "sources", "landmarks", "opsets", "notes")
"""Facts whose names come from files: they stay as they are, on one line."""
_WORDS: dict[tuple[str, Any], str] = {
    ("lowest_avg_loss", None): "not measured yet",
    ("lr_finder", None): "not used",
    ("marked", False): "no",
}
"""What a value means that says little by itself."""


def print_tables(facts: Facts) -> None:
    """Print facts: single values first, then each list of objects as a table."""
    from rich.table import Table

    from fsdeploy.terminal import console, folding_table

    screen = console()
    summary = Table(show_header=False, box=None, pad_edge=False)
    summary.add_column(no_wrap=True)
    summary.add_column(overflow="fold")
    tables = {key: value for key, value in facts.items() if value and _is_table(value)}
    for name, entry in _lines({key: value for key, value in facts.items() if key not in tables}):
        summary.add_row(name, entry)
    screen.print(summary)
    for key, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = folding_table(*(column.replace("_", " ") for column in columns), title=key.replace("_", " "))
        for row in rows:
            table.add_row(*(_shown(row.get(column, "")) for column in columns))
        screen.print(table)


def _lines(facts: Facts) -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if key in _JSON_ONLY or _SAID_ELSEWHERE.get(key) in facts:
            continue
        if key in ("lowest_avg_loss", "lr_finder", "marked") and (key, value) in _WORDS:
            yield key.replace("_", " "), _WORDS[key, value]
            continue
        if key in _COUNTS and isinstance(value, dict):
            value = ", ".join(f"{name}: {_shown(entry)}" for name, entry in value.items())
        for name, entry in _flat(key, value):
            if entry not in (None, "", [], {}) and _SAID_ELSEWHERE.get(name) not in facts:
                yield name.removeprefix("fsdeploy ").replace("_", " "), _shown(entry)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value, or those inside of it one by one, each with its names in a row."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _flat(f"{key} {name}", entry)
    else:
        yield key, value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        if len(value) > 16:
            return f"{len(value)} values"
        if value and all(isinstance(entry, str) for entry in value):
            return ", ".join(value)
    if isinstance(value, float) and len(repr(value)) > _DIGITS:
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
