"""Translators of arithmetic with constants and of bare operations, which stand in a graph without being layers."""

from __future__ import annotations

from fsdeploy_converters.errors import hostile, shown
from fsdeploy_converters.keras_graph import Ref
from fsdeploy_converters.layer_config import LayerView, Translation, broadcast, one


def scalar(view: LayerView, kind: str, value: object, reversed_order: bool = False) -> Translation:
    """x op constant, or constant op x."""
    number = view.numbers("constant", value)
    values = number if isinstance(number, list) else [number]
    if kind == "multiply":
        scale, offset = values, [0.0]
    elif kind == "divide" and not reversed_order and all(values):
        scale, offset = [1.0 / v for v in values], [0.0]
    elif kind == "add":
        scale, offset = [1.0], values
    elif kind == "subtract":
        scale, offset = ([-1.0], values) if reversed_order else ([1.0], [-v for v in values])
    else:
        raise view.refuse(f"{kind} by {shown(value)}")
    ends = [entry[0] if len(entry) == 1 else entry for entry in (scale, offset)]
    return one("affine", view.shape, scale=ends[0], offset=ends[1])


_SCALAR_NAMES = {
    "multiply": "multiply", "mul": "multiply", "truediv": "divide", "divide": "divide", "true_divide": "divide",
    "add": "add", "subtract": "subtract", "sub": "subtract",
}  # fmt: skip


def tf_op_lambda(view: LayerView) -> Translation:
    """Only arithmetic with one finite constant."""
    kind = {"math.multiply": "multiply", "math.subtract": "subtract", "__operators__.add": "add"}.get(
        str(view.config.get("function"))
    )
    constants = {key: value for key, value in view.constants.items() if key != "name"}
    if kind is None or set(constants) != {"y"} or len(view.shapes) != 1:
        raise hostile(view.source, f"layer {shown(view.name)} calls {shown(view.config.get('function'))}")
    return scalar(view, kind, constants["y"])


def scalar_op(view: LayerView) -> Translation:
    """A constant that an upgrade put into a layer of its own."""
    kinds = [value for value in view.config.values() if isinstance(value, str) and value in _SCALAR_NAMES]
    values = [
        value
        for key, value in view.config.items()
        if key not in ("name", "dtype", "trainable") and not isinstance(value, bool)
        if isinstance(value, (int, float, list))
    ]
    if len(kinds) != 1 or len(values) != 1:
        raise view.refuse("an operation that is not x op constant")
    return scalar(view, _SCALAR_NAMES[kinds[0]], values[0])


def bare_operation(view: LayerView) -> Translation:
    """An operation that stands in a Keras 3 graph without being a layer."""
    if view.class_name == "GetItem":
        return get_item(view)
    kind = _SCALAR_NAMES.get(view.class_name.lower())
    if kind is None:
        raise view.refuse("an operation that is not known")
    operands = list(view.arguments) or [None, None]
    if len(operands) == 2 and all(isinstance(operand, Ref) for operand in operands):
        if kind == "divide":
            raise view.refuse("a quotient of two tensors")
        return one("join", broadcast(view), kind=kind)
    constants = [operand for operand in operands if not isinstance(operand, Ref)]
    constants += [value for key, value in view.constants.items() if key in ("x1", "x2", "x", "y")]
    constants = [value for value in constants if value is not None]
    if len(constants) != 1 or len(view.shapes) != 1:
        raise view.refuse("an operation with other than one tensor and one number")
    first = "x1" in view.constants or not isinstance(operands[0], (Ref, type(None)))
    return scalar(view, kind, constants[0], reversed_order=first)


def get_item(view: LayerView) -> Translation:
    """Integers and plain slices; the batch stays whole."""
    items = view.arguments[1] if len(view.arguments) > 1 else view.constants.get("key")
    items = list(items) if isinstance(items, list) else [items]
    if len(view.shape) == 3 or not 1 <= len(items) <= len(view.shape) + 1 or not _whole(items[0]):
        raise view.refuse("indexing of an image or of the batch")
    output, given = [], [_plain(view, items[0], 1)]
    for axis, extent in enumerate(view.shape):
        item = items[axis + 1] if axis + 1 < len(items) else ("slice", None, None, None)
        given.append(_plain(view, item, extent))
        if isinstance(item, tuple):
            output.append(len(range(*slice(*item[1:]).indices(extent))))
    return one("select", view.checked(tuple(output)), items=given)


def _whole(item: object) -> bool:
    return isinstance(item, tuple) and item[1] in (None, 0) and item[2:] in ((None, None), (None, 1))


def _plain(view: LayerView, item: object, extent: int) -> int | list[int | None]:
    if type(item) is int and -extent <= item < extent:
        return item
    bounds = item[1:] if isinstance(item, tuple) else (0.5,)
    if all(n is None or (type(n) is int and abs(n) <= 1 << 20) for n in bounds) and (bounds[2] or 1) > 0:
        return list(bounds)
    raise view.refuse(f"the index {shown(item)}")
