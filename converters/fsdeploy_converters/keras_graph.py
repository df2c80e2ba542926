"""The graph that a Keras file describes, both grammars brought to one form: nets of layers, layers with calls.

Classes are only names here; nothing is looked up or built from them. References are resolved to (layer, call, output),
every count from zero, whatever the dialect counts from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fsdeploy_converters import limits
from fsdeploy_converters.errors import as_damage, damaged, hostile, shown

NETS = frozenset({"Functional", "Model"})


@dataclass(frozen=True)
class Ref:
    """Output `output` of call `call` of a layer of the same net."""

    layer: str
    call: int
    output: int
    shape: tuple[int, ...] | None = None
    """Shape without the batch, where the file tells it."""


@dataclass(frozen=True)
class KerasCall:
    """Inputs of one call, and constants given with them (by name, or by position for bare operations)."""

    inputs: tuple[Ref, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[Any, ...] = ()
    """All positional arguments of a bare operation, tensors as `Ref`."""


@dataclass(frozen=True)
class KerasLayer:
    """A layer, a nested net (`net` is set) or a bare operation (`bare`)."""

    class_name: str
    name: str
    config: Mapping[str, Any]
    calls: tuple[KerasCall, ...]
    net: KerasNet | None = None
    bare: bool = False
    trainable: bool = True
    module: str = ""


@dataclass(frozen=True)
class KerasNet:
    """Layers in the order of the file, by name."""

    name: str
    layers: Mapping[str, KerasLayer]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]

    def layer_of(self, ref: Ref, source: str) -> KerasLayer:
        """The layer that a reference names.

        Raises:
            CorruptModelError: there is none, or it has no such call.
        """
        layer = self.layers.get(ref.layer)
        if layer is None:
            raise damaged(source, f"the graph refers to {shown(ref.layer)}, which does not exist")
        calls = max(len(layer.calls), 1 if layer.class_name == "InputLayer" else 0)
        if not 0 <= ref.call < calls:
            raise damaged(source, f"the graph refers to call {ref.call} of {shown(ref.layer)}, which does not exist")
        return layer


class GraphReader:
    """What both grammars share; a subclass reads calls and references of its dialect."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._layers = 0

    def read(self, root: Mapping[str, Any]) -> KerasNet:
        """The net of a whole description `{class_name, config, ...}`.

        Raises:
            CorruptModelError, HostileFileError: the description does not fit together or is out of bounds.
        """
        with as_damage(self.source, "graph"):
            if root.get("class_name") not in NETS:
                raise damaged(
                    self.source, f"its model has the class {shown(root.get('class_name'))}, which is no graph"
                )
            return self._net(root["config"], limits.NET_DEPTH)

    def _net(self, config: Mapping[str, Any], depth: int, trainable: bool = True) -> KerasNet:
        if depth == 0:
            raise hostile(self.source, "models nested too deep")
        layers: dict[str, KerasLayer] = {}
        trainable = trainable and config.get("trainable") is not False
        for entry in config["layers"]:
            layer = self._layer(entry, depth, trainable)
            if layer.name in layers:
                raise damaged(self.source, f"two layers are called {shown(layer.name)}")
            layers[layer.name] = layer
        nested = {name for name, layer in layers.items() if layer.net is not None}
        ends = [self._ends(config[key], nested) for key in ("input_layers", "output_layers")]
        return KerasNet(text(config.get("name", "model")), layers, ends[0], ends[1])

    def _layer(self, entry: Mapping[str, Any], depth: int, trainable: bool) -> KerasLayer:
        self._layers += 1
        if self._layers > limits.LAYERS:
            raise hostile(self.source, "too many layers")
        class_name, config = text(entry["class_name"]), entry["config"]
        module = str(entry.get("module") or "")
        bare = module.startswith("keras.src.ops")
        name = text(entry.get("name", config.get("name") if isinstance(config, Mapping) else None))
        if not isinstance(config, Mapping):
            raise ValueError(f"layer {name} without a configuration")
        if len(entry["inbound_nodes"]) > limits.CALLS_PER_LAYER:
            raise hostile(self.source, f"the layer {shown(name)} is called {len(entry['inbound_nodes'])} times")
        net = self._net(config, depth - 1, trainable) if class_name in NETS else None
        calls = tuple(self._call(class_name, node, bare) for node in entry["inbound_nodes"])
        learns = trainable and config.get("trainable") is not False
        return KerasLayer(class_name, name, config, calls, net, bare, learns, module)

    def _call(self, class_name: str, node: Any, bare: bool) -> KerasCall:
        raise KeyError(class_name)

    def _ends(self, refs: Any, nested: set[str]) -> tuple[Ref, ...]:
        """Input or output references. Here, nested nets are counted from one in every dialect."""
        return tuple(_from_one(ref, nested) for ref in triples(refs))


def _from_one(ref: Ref, nested: set[str]) -> Ref:
    return Ref(ref.layer, ref.call - 1, ref.output, ref.shape) if ref.layer in nested else ref


def text(value: Any) -> str:
    """A name of sensible length."""
    if not isinstance(value, str) or not 0 < len(value.encode("utf-8", "replace")) <= limits.NAME_BYTES:
        raise ValueError("a name is missing or too long")
    return value


def is_triple(value: Any) -> bool:
    """Whether a value has the form [name, call, output, ...]."""
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(type(number) is int for number in value[1:3])
    )


def triples(value: Any, depth: int = 4) -> list[Ref]:
    """References out of lists that may be nested."""
    if is_triple(value):
        return [Ref(value[0], value[1], value[2])]
    if not isinstance(value, list) or depth == 0:
        raise ValueError("a reference is no [name, call, output]")
    return [ref for entry in value for ref in triples(entry, depth - 1)]


class Keras2Reader(GraphReader):
    """Keras 2 `model_config`: a call is a list of [name, node, output, {constants}]; nested nets count from one."""

    def _net(self, config: Mapping[str, Any], depth: int, trainable: bool = True) -> KerasNet:
        nested = {entry["config"]["name"] for entry in config["layers"] if entry["class_name"] in NETS}
        nested |= {entry.get("name") for entry in config["layers"] if entry["class_name"] in NETS}
        net = super()._net(config, depth, trainable)
        layers = {name: _recounted(layer, nested) for name, layer in net.layers.items()}
        return KerasNet(net.name, layers, net.inputs, net.outputs)

    def _call(self, class_name: str, node: Any, bare: bool) -> KerasCall:
        if not isinstance(node, list):
            raise ValueError("a call is no list")
        entries = _flat_entries(node)
        constants: dict[str, Any] = {}
        inputs = []
        for entry in entries:
            inputs.append(Ref(entry[0], entry[1], entry[2]))
            given = entry[3] if len(entry) > 3 else {}
            if not isinstance(given, dict):
                raise ValueError("constants of a call are no object")
            for key, value in given.items():
                if is_triple(value):
                    inputs.append(Ref(value[0], value[1], value[2]))
                else:
                    constants[key] = value
        return KerasCall(tuple(inputs), constants)


def _flat_entries(node: list[Any], depth: int = 4) -> list[list[Any]]:
    if is_triple(node):
        return [node]
    if depth == 0:
        raise ValueError("a call is nested too deep")
    return [found for entry in node if isinstance(entry, list) for found in _flat_entries(entry, depth - 1)]


def _recounted(layer: KerasLayer, nested: set[str]) -> KerasLayer:
    calls = tuple(
        KerasCall(tuple(_from_one(ref, nested) for ref in call.inputs), call.constants) for call in layer.calls
    )
    return KerasLayer(
        layer.class_name, layer.name, layer.config, calls, layer.net, layer.bare, layer.trainable, layer.module
    )


class Keras3Reader(GraphReader):
    """Keras 3 `config.json`: a call is {args, kwargs}; tensors tell their history, counted from zero everywhere."""

    def _call(self, class_name: str, node: Any, bare: bool) -> KerasCall:
        arguments = tuple(self._argument(argument, 4) for argument in node["args"])
        constants, inputs = {}, list(_refs(arguments))
        for key, value in (node.get("kwargs") or {}).items():
            argument = self._argument(value, 4)
            found = list(_refs((argument,)))
            inputs.extend(found)
            if not found:
                constants[text(key)] = argument
        return KerasCall(tuple(inputs), constants, arguments if bare else ())

    def _argument(self, value: Any, depth: int) -> Any:
        if depth == 0:
            raise ValueError("arguments nested too deep")
        if isinstance(value, list):
            return [self._argument(entry, depth - 1) for entry in value]
        if not isinstance(value, dict):
            return value
        kind, config = value.get("class_name"), value.get("config") or {}
        if kind == "__keras_tensor__":
            name, call, output = config["keras_history"]
            shape = config.get("shape")
            sizes = tuple(shape[1:]) if isinstance(shape, list) and all(type(n) is int for n in shape[1:]) else None
            if sizes is not None and math.prod(sizes) > limits.ELEMENTS:
                raise hostile(self.source, f"a tensor of the shape {sizes}")
            if not isinstance(name, str) or type(call) is not int or type(output) is not int:
                raise ValueError("a tensor without a history")
            return Ref(name, call, output, sizes)
        if kind == "__tuple__":
            items = config.get("value", value.get("items"))
            return [self._argument(entry, depth - 1) for entry in items or []]
        if kind == "__slice__":
            return ("slice", config.get("start"), config.get("stop"), config.get("step"))
        raise hostile(self.source, f"a call is given {shown(kind)}")


def _refs(value: Any) -> list[Ref]:
    if isinstance(value, Ref):
        return [value]
    return [ref for entry in value for ref in _refs(entry)] if isinstance(value, (list, tuple)) else []
