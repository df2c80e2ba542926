"""The description of a network as plain data: parts, and the calls that connect them.

A net is in single-assignment form. Values are numbered: first the net's inputs, then the outputs of each call in
order. A part is an operation with its attributes, or a net of its own; a part that is called twice shares its weights.
Shapes exclude the batch and are in torch order: (C, H, W) for images, (T, D) for tokens, (D,) for vectors.

The JSON form is kept in the state file of a model whose architecture has no plugin of its own; docs/migration.md shows
it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fsdeploy.errors import CorruptModelError

FORMAT = 1
MAX_DEPTH = 5
MAX_CALLS = 10_000
MAX_EXTENT = 1 << 27


@dataclass(frozen=True)
class Call:
    """One use of a part: the values that go in and the values that come out."""

    part: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """A leaf: an operation's name and its attributes (numbers, texts, lists of them)."""

    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Net:
    """Inputs, parts and calls. Calls are in running order."""

    inputs: tuple[tuple[int, ...], ...]
    """Shape of each input without the batch."""
    parts: Mapping[str, Operation | Net]
    calls: tuple[Call, ...]
    outputs: tuple[int, ...]

    def evaluated_calls(self) -> int:
        """Operations run by one pass, nested nets counted at each use."""
        weights = {name: part.evaluated_calls() if isinstance(part, Net) else 1 for name, part in self.parts.items()}
        return sum(weights[call.part] for call in self.calls)


@dataclass(frozen=True)
class GraphDescription:
    """A whole swap model: one net whose inputs are the faces of each side."""

    name: str
    net: Net
    sides: tuple[tuple[int, ...], ...]
    """Values of `net` that are the outputs of side A and of side B: faces in ascending size, then the mask."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form, read back by `from_json`."""
        return {"format": FORMAT, "name": self.name, "net": _net_json(self.net), "sides": [list(s) for s in self.sides]}

    @classmethod
    def from_json(cls, data: Any, source: str) -> GraphDescription:
        """Read and check the JSON form; `source` is named in errors.

        Raises:
            CorruptModelError: anything that the description does not allow: unknown form, dangling values, sizes out of
                range, too deep or too long.
        """
        try:
            if data["format"] != FORMAT:
                raise CorruptModelError(f"{source}: graph format {data['format']!r} is unknown: upgrade fsdeploy")
            net = _read_net(data["net"], MAX_DEPTH)
            sides = tuple(_integers(side) for side in data["sides"])
            known = len(net.inputs) + sum(len(call.outputs) for call in net.calls)
            if len(sides) != 2 or any(not side or max(side) >= known for side in sides):
                raise ValueError("sides do not name values of the net")
            if net.evaluated_calls() > MAX_CALLS:
                raise ValueError("too many calls")
            return cls(str(data["name"]), net, sides)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptModelError(f"{source}: the graph is damaged ({error}): restore a backup") from error


def _net_json(net: Net) -> dict[str, Any]:
    def part_json(part: Operation | Net) -> dict[str, Any]:
        if isinstance(part, Net):
            return {"net": _net_json(part)}
        return {"op": part.op, **part.attributes}

    return {
        "inputs": [list(shape) for shape in net.inputs],
        "parts": {name: part_json(part) for name, part in net.parts.items()},
        "calls": [[call.part, list(call.inputs), list(call.outputs)] for call in net.calls],
        "outputs": list(net.outputs),
    }


def _read_net(data: Any, depth: int) -> Net:
    if depth == 0:
        raise ValueError("nets are nested too deep")
    inputs = tuple(_integers(shape) for shape in data["inputs"])
    if any(math.prod(shape) > MAX_EXTENT for shape in inputs):
        raise ValueError("an input is too large")
    parts: dict[str, Operation | Net] = {}
    for name, entry in data["parts"].items():
        if not name.isidentifier() or len(name) > 128:
            raise ValueError(f"part name {name[:40]!r}")
        parts[name] = _read_net(entry["net"], depth - 1) if "net" in entry else _read_operation(entry)
    calls = tuple(Call(str(part), _integers(taken), _integers(given)) for part, taken, given in data["calls"])
    return check_net(Net(inputs, parts, calls, _integers(data["outputs"])))


def _read_operation(entry: Mapping[str, Any]) -> Operation:
    attributes = {str(name): value for name, value in entry.items() if name != "op"}
    for name, value in attributes.items():
        _check_attribute(name, value, depth=3)
    return Operation(str(entry["op"]), attributes)


def _check_attribute(name: str, value: Any, depth: int) -> None:
    if isinstance(value, list) and depth and len(value) <= MAX_CALLS:
        for entry in value:
            _check_attribute(name, entry, depth - 1)
    elif not isinstance(value, (bool, int, float, str, type(None))):
        raise ValueError(f"attribute {name[:40]!r} has a wrong type")
    elif isinstance(value, (int, float)) and (not math.isfinite(value) or abs(value) > MAX_EXTENT):
        raise ValueError(f"attribute {name[:40]!r} is out of range")


def _integers(values: Any) -> tuple[int, ...]:
    numbers = tuple(values)
    if len(numbers) > MAX_CALLS or any(type(n) is not int or not 0 <= n <= MAX_EXTENT for n in numbers):
        raise ValueError("a number is missing or out of range")
    return numbers


def check_net(net: Net) -> Net:
    """Return `net` when every call takes values that exist before it and gives the next numbers.

    Raises:
        ValueError: it does not.
    """
    known = len(net.inputs)
    for call in net.calls:
        if call.part not in net.parts or not call.inputs or max(call.inputs) >= known:
            raise ValueError(f"call of {call.part[:40]!r} does not connect")
        if call.outputs != tuple(range(known, known + len(call.outputs))) or not call.outputs:
            raise ValueError(f"call of {call.part[:40]!r} gives wrong values")
        known += len(call.outputs)
    if not net.outputs or max(net.outputs) >= known:
        raise ValueError("outputs do not connect")
    return net


def replace_part(net: Net, name: str, part: Operation | Net) -> Net:
    """A copy of `net` with another part of that name."""
    return dataclasses.replace(net, parts={**net.parts, name: part})
