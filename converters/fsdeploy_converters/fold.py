"""Put re-orderings that the file's (H, W, C) world needs at run time into the weights, once, where that is exact.

- channels before a pixel shuffle: the producing convolution's outputs, if only elementwise functions lie between;
- a flattened image before a matrix product: the product's columns;
- a matrix product before a reshape to an image: the product's rows.

What cannot be folded keeps its run-time order, with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fsdeploy.model.graph.description import Call, Net, Operation

Shape = tuple[int, ...]
Order = NDArray[np.int64]
_ELEMENTWISE = frozenset({"activation", "leaky_relu", "swish", "noise"})


class _Folder:
    def __init__(self, net: Net, shapes: list[Shape]) -> None:
        self.net, self.shapes = net, shapes
        self.parts = dict(net.parts)
        self.rows: dict[str, Order] = {}
        self.columns: dict[str, Order] = {}
        self._uses = dict.fromkeys(net.parts, 0)
        self._consumers: dict[int, list[Call]] = {}
        self._producer: dict[int, Call] = {}
        for call in net.calls:
            self._uses[call.part] += 1
            for value in call.inputs:
                self._consumers.setdefault(value, []).append(call)
            for value in call.outputs:
                self._producer[value] = call

    def operation(self, call: Call | None, *names: str) -> Operation | None:
        """The operation of a call if it is one of `names` and called only once."""
        part = self.parts.get(call.part) if call is not None else None
        if isinstance(part, Operation) and part.op in names and call is not None and self._uses[call.part] == 1:
            return part
        return None

    def source(self, value: int, *names: str, through: frozenset[str]) -> tuple[Call, Operation] | None:
        """The producer of `value`, seen through single-use elementwise operations."""
        while value not in self.net.outputs and len(self._consumers.get(value, [])) == 1:
            call = self._producer.get(value)
            if call is None:
                return None
            found = self.operation(call, *names)
            if found is not None:
                return call, found
            part = self.operation(call, *through)
            if part is None or part.attributes.get("kind") == "softmax":
                return None
            value = call.inputs[0]
        return None

    def shuffle(self, call: Call, operation: Operation) -> None:
        found = self.source(call.inputs[0], "conv", through=_ELEMENTWISE)
        if found is None or found[1].attributes.get("groups", 1) != 1:
            return
        r = operation.attributes["factor"]
        channels = operation.attributes["source"][0]
        self.rows[found[0].part] = np.arange(channels).reshape(r, r, -1).transpose(2, 0, 1).reshape(-1)
        self.reorder(call.part, operation, "crd")

    def flatten(self, call: Call, operation: Operation) -> None:
        shape = self.shapes[call.inputs[0]]
        readers = self._consumers.get(call.outputs[0], [])
        linear = [self.operation(reader, "linear") for reader in readers]
        if len(shape) != 3 or not readers or None in linear or call.outputs[0] in self.net.outputs:
            return
        order = np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).reshape(-1)
        for reader in readers:
            self.columns[reader.part] = order
        self.reorder(call.part, operation, "chw")

    def reshape(self, call: Call, operation: Operation) -> None:
        shape = operation.attributes["shape"]
        if len(shape) != 3 or len(self.shapes[call.inputs[0]]) != 1:
            return
        found = self.source(call.inputs[0], "linear", through=_ELEMENTWISE | {"dropout"})
        if found is None:
            return
        self.rows[found[0].part] = np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).reshape(-1)
        self.reorder(call.part, operation, "chw")

    def reorder(self, part: str, operation: Operation, order: str) -> None:
        self.parts[part] = Operation(operation.op, {**operation.attributes, "order": order})


def fold_layouts(net: Net, shapes: list[Shape]) -> tuple[Net, Mapping[str, tuple[Order | None, Order | None]]]:
    """The net with folded orders, and for each part concerned the new order of rows and columns of its weight.

    Args:
        net: A net as translated, everything in the file's order.
        shapes: Shape of each value, (H, W, C) order.
    """
    folder = _Folder(net, shapes)
    steps = {"pixel_shuffle": folder.shuffle, "flatten": folder.flatten, "reshape": folder.reshape}
    for call in net.calls:
        for name, step in steps.items():
            operation = folder.operation(call, name)
            if operation is not None:
                step(call, operation)
    touched = {*folder.rows, *folder.columns}
    layouts = {part: (folder.rows.get(part), folder.columns.get(part)) for part in touched}
    return Net(net.inputs, folder.parts, net.calls, net.outputs), layouts
