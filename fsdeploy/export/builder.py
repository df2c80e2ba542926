"""Write ONNX nodes as arithmetic: `(a * 2 + b).clip(0, 1)` on values that stand for tensors.

For graphs whose shapes depend on their input (a frame of any size, a region found at run time), which a tracer would
freeze.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_TYPES = {"float": TensorProto.FLOAT, "int": TensorProto.INT64, "uint8": TensorProto.UINT8}


class Builder:
    """Collects nodes and constants in order."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def input(self, name: str) -> Value:
        """A value that comes from outside."""
        return Value(self, name)

    def constant(self, value: Any) -> Value:
        """A constant: numpy int64 (scalar or array) stays so, everything else becomes float32."""
        array = np.asarray(value)
        array = array if array.dtype == np.int64 else array.astype(np.float32)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"frame_constant_{len(self.constants)}")
        return Value(self, self.constants[key].name)

    def op(self, kind: str, *inputs: Value | Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; a tuple of values when it has several outputs."""
        names = ["" if entry is None else self._value(entry).name for entry in inputs]
        results = [f"frame_{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, results, **attributes))
        values = tuple(Value(self, name) for name in results)
        return values if outputs > 1 else values[0]

    def _value(self, entry: Any) -> Value:
        return entry if isinstance(entry, Value) else self.constant(entry)

    def concat(self, *parts: Any, axis: int = 0) -> Value:
        return self.op("Concat", *parts, axis=axis)  # type: ignore[no-any-return]

    def range(self, count: Value) -> Value:
        """0, 1, ... count - 1 as float32; `count` an int scalar."""
        return self.op("Range", np.int64(0), count, np.int64(1)).cast("float")  # type: ignore[no-any-return]

    def where(self, condition: Value, yes: Any, no: Any) -> Value:
        return self.op("Where", condition, yes, no)  # type: ignore[no-any-return]


class Value:
    """A tensor of the graph being built."""

    __array_ufunc__ = None  # numpy arrays on the left leave the arithmetic to this class

    def __init__(self, builder: Builder, name: str) -> None:
        self.builder = builder
        self.name = name

    def _op(self, kind: str, *others: Any, **attributes: Any) -> Value:
        return self.builder.op(kind, self, *others, **attributes)  # type: ignore[no-any-return]

    def __add__(self, other: Any) -> Value:
        return self._op("Add", other)

    def __sub__(self, other: Any) -> Value:
        return self._op("Sub", other)

    def __mul__(self, other: Any) -> Value:
        return self._op("Mul", other)

    def __truediv__(self, other: Any) -> Value:
        return self._op("Div", other)

    def __matmul__(self, other: Any) -> Value:
        return self._op("MatMul", other)

    def __radd__(self, other: Any) -> Value:
        return self.builder.constant(other) + self

    def __rsub__(self, other: Any) -> Value:
        return self.builder.constant(other) - self

    def __rmul__(self, other: Any) -> Value:
        return self.builder.constant(other) * self

    def __rtruediv__(self, other: Any) -> Value:
        return self.builder.constant(other) / self

    def __rmatmul__(self, other: Any) -> Value:
        return self.builder.constant(other) @ self

    def __neg__(self) -> Value:
        return self._op("Neg")

    def __gt__(self, other: Any) -> Value:
        return self._op("Greater", other)

    def __lt__(self, other: Any) -> Value:
        return self._op("Less", other)

    def __ge__(self, other: Any) -> Value:
        return self._op("GreaterOrEqual", other)

    def cast(self, kind: str) -> Value:
        """To "float", "int" (truncating) or "uint8"."""
        return self._op("Cast", to=_TYPES[kind])

    def floor(self) -> Value:
        return self._op("Floor")

    def ceil(self) -> Value:
        return self._op("Ceil")

    def round(self) -> Value:
        """Half to even, as numpy's rint."""
        return self._op("Round")

    def sqrt(self) -> Value:
        return self._op("Sqrt")

    def maximum(self, other: Any) -> Value:
        return self._op("Max", other)

    def minimum(self, other: Any) -> Value:
        return self._op("Min", other)

    def clip(self, low: Any, high: Any) -> Value:
        return self.maximum(low).minimum(high)

    def sum(self, *axes: int, keep: bool = False) -> Value:
        return self._op("ReduceSum", np.array(axes, np.int64), keepdims=int(keep))

    def least(self, *axes: int) -> Value:
        return self._reduced("ReduceMin", axes)

    def most(self, *axes: int) -> Value:
        return self._reduced("ReduceMax", axes)

    def mean(self, *axes: int) -> Value:
        return self._reduced("ReduceMean", axes)

    def _reduced(self, kind: str, axes: tuple[int, ...]) -> Value:
        # Until opset 17 these take their axes as an attribute, from 18 on as an input.
        if self.builder.opset < 18:
            return self._op(kind, axes=list(axes), keepdims=0)
        return self._op(kind, np.array(axes, np.int64), keepdims=0)

    def transpose(self, *order: int) -> Value:
        return self._op("Transpose", perm=list(order))

    def reshape(self, *edges: int | Value) -> Value:
        """Edges as numbers (-1 once) or int scalars."""
        if all(isinstance(edge, int) for edge in edges):
            return self._op("Reshape", np.array(edges, np.int64))
        parts = [edge.reshape(1) if isinstance(edge, Value) else np.array([edge], np.int64) for edge in edges]
        return self._op("Reshape", self.builder.concat(*parts))

    def at(self, *index: int) -> Value:
        """One element or row, by leading indices."""
        value = self
        for position in index:
            value = value._op("Gather", np.int64(position), axis=0)
        return value

    def edge(self, axis: int) -> Value:
        """Length of an axis, an int scalar."""
        return self._op("Shape").at(axis)

    def slice(self, axis: int, start: Value | int, stop: Value | int) -> Value:
        """start:stop along an axis; int scalars or numbers."""
        starts, stops = (
            end.reshape(1) if isinstance(end, Value) else np.array([end], np.int64) for end in (start, stop)
        )
        return self._op("Slice", starts, stops, np.array([axis], np.int64))

    def pad(self, before: NDArray[np.int64] | Value, value: float = 0.0) -> Value:
        """Constant padding; `before` as ONNX wants it: all starts, then all ends."""
        return self._op("Pad", before, np.float32(value), mode="constant")

    def grid_sample(self, grid: Value, cubic: bool) -> Value:
        """Sample (1, C, H, W) at a grid (1, h, w, 2) of x and y in -1..1 between the outer edges; zeros outside."""
        names = ("linear", "cubic") if self.builder.opset >= 20 else ("bilinear", "bicubic")
        return self._op("GridSample", grid, mode=names[int(cubic)], padding_mode="zeros", align_corners=0)
