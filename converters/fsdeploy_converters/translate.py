"""From the graph of a file to a neutral description, and from its variables to torch parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fsdeploy.model.graph.description import Call, GraphDescription, Net, Operation, check_net
from fsdeploy.model.graph.network import module_name
from fsdeploy_converters import limits
from fsdeploy_converters.errors import as_damage, damaged, hostile, shown, unsupported
from fsdeploy_converters.fold import Order, fold_layouts
from fsdeploy_converters.keras_graph import KerasLayer, KerasNet, Ref
from fsdeploy_converters.layer_config import Dialect, LayerView, Shape, Translation
from fsdeploy_converters.layers_plain import KNOWN_CODE, PLAIN
from fsdeploy_converters.layers_weighted import WEIGHTED
from fsdeploy_converters.layout import Layout
from fsdeploy_converters.operations import bare_operation

_TRANSLATORS = {**PLAIN, **WEIGHTED}


@dataclass(frozen=True, eq=False)
class Slot:
    """One variable of the file and the torch parameter that it becomes."""

    path: tuple[str, ...]
    """Names of the layers from the top net down."""
    class_name: str
    kind: str
    index: int
    """Position among the variables of its layer and `place`."""
    place: str
    shape: Shape
    target: str
    """Name in the module's state dict; "" when torch has no use for it."""
    layout: Layout
    learned: bool
    """A trainable variable of a trainable layer."""
    variable: bool
    """A variable that is learned unless its layer is frozen, not a statistic."""


@dataclass(frozen=True)
class Translated:
    """A whole model: what to build, and where its parameters come from, in the file's order of layers."""

    description: GraphDescription
    slots: tuple[Slot, ...]
    warnings: tuple[str, ...]
    outputs: tuple[Shape, ...]
    """(C, H, W) of each output of one side."""

    @property
    def has_mask(self) -> bool:
        """Whether each side's last output is a mask."""
        return self.outputs[-1][0] == 1


@dataclass(frozen=True)
class TranslatedNet:
    """A single net."""

    net: Net
    outputs: tuple[Shape, ...]
    """Shapes of its outputs, (H, W, C) order."""
    slots: tuple[Slot, ...]


Told = dict[tuple[tuple[str, ...], str, int, int], Shape]
"""Shape of every (net, layer, call, output), (H, W, C) order."""


def translate_net(root: KerasNet, dialect: Dialect, source: str, told: Told | None = None) -> TranslatedNet:
    """Turn one net into a description, whatever it computes; `told` is filled if given.

    Raises: as `translate`.
    """
    with as_damage(source, "graph"):
        return _NetTranslator(root, dialect, source, {} if told is None else told).build((), "", None)


def translate(root: KerasNet, dialect: Dialect, source: str, shapes: Told | None = None) -> Translated:
    """Turn a swap model's graph into a description.

    Args:
        shapes: Filled with the shape of every (net, layer, call, output), if given.

    Raises:
        UnsupportedFormatError: a layer class that is not known, or no swap model.
        CorruptModelError: the graph contradicts itself.
        HostileFileError: it carries code or claims absurd sizes.
    """
    built = translate_net(root, dialect, source, shapes)
    inputs, outputs = built.net.inputs, built.net.outputs
    if built.net.evaluated_calls() > limits.EVALUATED_CALLS:
        raise hostile(source, f"a graph of {built.net.evaluated_calls()} calls")
    warnings: list[str] = []
    names = [ref.layer for ref in root.inputs]
    if len(inputs) == 1 and names[0].startswith("face_in"):
        warnings.append("the file holds one side only: both directions give the same")
        sides = (outputs, outputs)
    else:
        half = len(outputs) // 2
        sides = (outputs[:half], outputs[half:])
        _check_swap_model(inputs, built.outputs, source)
    if any(shape[-1] not in (1, 3) for shape in built.outputs):
        warnings.append(f"its outputs are no faces but {built.outputs}")
    description = GraphDescription(root.name, built.net, sides)
    return Translated(
        description, built.slots, tuple(warnings), tuple(torch_shape(shape) for shape in built.outputs[: len(sides[0])])
    )


def _check_swap_model(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...], source: str) -> None:
    faces = len(inputs) == 2 and len(set(inputs)) == 1 and len(inputs[0]) == 3 and inputs[0][0] == 3
    half = len(outputs) // 2
    images = all(len(shape) == 3 and shape[0] == shape[1] and shape[2] in (1, 3) for shape in outputs)
    if not faces or not images or not half or outputs[:half] != outputs[half:] or outputs[0][2] != 3:
        raise unsupported(source, "it is not a face-swap model: it needs two faces in and equal faces out for each")


class _NetTranslator:
    """Translates one net. Calls are put in running order by walking back from the outputs."""

    def __init__(self, net: KerasNet, dialect: Dialect, source: str, told: Told) -> None:
        self._net, self._dialect, self._source, self._told = net, dialect, source, told
        self._path: tuple[str, ...] = ()
        self._target = ""
        self._shapes: list[Shape] = []
        """Shape of every value in the file's order of axes."""
        self._values: dict[tuple[str, int, int], int] = {}
        self._parts: dict[str, Operation | Net] = {}
        self._calls: list[Call] = []
        self._known: dict[str, tuple[tuple[Shape, ...], list[str], tuple[Shape, ...]]] = {}
        """Layer name -> shapes that go in, names of its parts, shapes that come out."""
        self._slots: dict[str, list[Slot]] = {}
        self._recorded = {
            (ref.layer, ref.call): ref.shape
            for layer in net.layers.values()
            for call in layer.calls
            for ref in call.inputs
            if ref.shape is not None
        }

    def build(self, path: tuple[str, ...], target: str, given: tuple[Shape, ...] | None) -> TranslatedNet:
        """Translate; `given` are the shapes that a call brings, None at the top."""
        self._path, self._target = path, target
        for layer in self._net.layers.values():
            self._check_class(layer)
        for position, ref in enumerate(self._net.inputs):
            self._add_input(ref, given[position] if given is not None and position < len(given) else None)
        inputs = len(self._net.inputs)
        if inputs == 0 or (given is not None and len(given) != inputs):
            raise damaged(self._source, f"{shown(self._net.name)} is given {len(given or ())} inputs, needs {inputs}")
        for ref in self._net.outputs:
            self._run_order(ref)
        self._check_all_reached()
        outputs = tuple(self._value(ref) for ref in self._net.outputs)
        self._told.update({(path, *key): self._shapes[value] for key, value in self._values.items()})
        slots = [slot for name in self._net.layers for slot in self._slots.get(name, [])]
        shapes = [tuple(torch_shape(shape)) for shape in self._shapes[:inputs]]
        net = Net(tuple(shapes), self._parts, tuple(self._calls), outputs)
        try:
            check_net(net)
        except ValueError as error:
            raise damaged(self._source, f"the graph of {shown(self._net.name)} does not connect ({error})") from error
        net, layouts = fold_layouts(net, self._shapes)
        slots = [_refold(slot, target, layouts) for slot in slots]
        return TranslatedNet(net, tuple(self._shapes[value] for value in outputs), tuple(slots))

    def _check_class(self, layer: KerasLayer) -> None:
        """Before anything is built: only known classes, and code only in the one form that is known."""
        known = layer.net is not None or layer.bare or layer.class_name == "InputLayer"
        if not known and layer.class_name not in _TRANSLATORS:
            raise unsupported(self._source, f"{shown(layer.name)} has the unknown class {shown(layer.class_name)}")
        if layer.class_name == "Lambda" and not str(layer.config.get("module", "")).endswith(KNOWN_CODE):
            raise hostile(self._source, f"layer {shown(layer.name)} carries program code")

    def _check_all_reached(self) -> None:
        """A saved graph holds what its outputs need and nothing else."""
        for layer in self._net.layers.values():
            calls = 1 if layer.class_name == "InputLayer" else max(len(layer.calls), 1)
            for call in range(calls):
                if (layer.name, call, 0) not in self._values:
                    raise damaged(self._source, f"layer {shown(layer.name)} is connected to no output")

    def _add_input(self, ref: Ref, given: Shape | None) -> None:
        layer = self._net.layer_of(ref, self._source)
        if layer.class_name != "InputLayer" or (layer.calls and layer.calls[0].inputs):
            raise damaged(self._source, f"the input {shown(ref.layer)} is no input layer")
        declared = layer.config.get("batch_input_shape", layer.config.get("batch_shape"))
        if not isinstance(declared, list) or not 2 <= len(declared) <= 4:
            raise damaged(self._source, f"the input {shown(ref.layer)} has the shape {shown(declared)}")
        sizes = declared[1:]
        if given is not None:
            if len(given) != len(sizes) or any(n is not None and n != m for n, m in zip(sizes, given, strict=True)):
                raise damaged(self._source, f"{shown(self._net.name)} is given {given}, expects {sizes}")
            sizes = list(given)
        if any(type(n) is not int or not 1 <= n <= 1 << 24 for n in sizes):
            raise damaged(self._source, f"the input {shown(ref.layer)} has the shape {shown(declared)}")
        view = LayerView("InputLayer", ref.layer, {}, (), self._dialect, self._source)
        if (ref.layer, 0, 0) in self._values:
            raise damaged(self._source, f"the input {shown(ref.layer)} is listed twice")
        self._values[(ref.layer, 0, 0)] = len(self._shapes)
        self._shapes.append(view.checked(tuple(sizes)))

    def _value(self, ref: Ref) -> int:
        value = self._values.get((ref.layer, ref.call, ref.output))
        if value is None:
            raise damaged(self._source, f"{shown(ref.layer)} has no output {ref.output}")
        return value

    def _run_order(self, wanted: Ref) -> None:
        """Emit the calls that `wanted` needs, sources first; a call met again while it waits is a cycle."""
        open_calls: set[tuple[str, int]] = set()
        stack = [(wanted, False)]
        while stack:
            ref, ready = stack.pop()
            key = (ref.layer, ref.call)
            if ready:
                open_calls.discard(key)
                self._emit(ref)
                continue
            layer = self._net.layer_of(ref, self._source)
            if (ref.layer, ref.call, 0) in self._values:
                continue
            if key in open_calls:
                raise damaged(self._source, f"the graph runs in a circle through {shown(ref.layer)}")
            if layer.class_name == "InputLayer" or not layer.calls[ref.call].inputs:
                raise damaged(self._source, f"{shown(ref.layer)} has no input")
            open_calls.add(key)
            stack.append((ref, True))
            stack.extend((source, False) for source in reversed(layer.calls[ref.call].inputs))

    def _emit(self, ref: Ref) -> None:
        if (ref.layer, ref.call, 0) in self._values:
            return
        layer = self._net.layers[ref.layer]
        inputs = tuple(self._value(source) for source in layer.calls[ref.call].inputs)
        shapes = tuple(self._shapes[value] for value in inputs)
        if layer.net is not None:
            self._emit_net(layer, ref, inputs, shapes)
        else:
            self._emit_operations(layer, ref, inputs, shapes)

    def _emit_net(self, layer: KerasLayer, ref: Ref, inputs: tuple[int, ...], shapes: tuple[Shape, ...]) -> None:
        assert layer.net is not None
        if layer.name not in self._known:
            name = module_name(layer.name, self._parts)
            inner = _NetTranslator(layer.net, self._dialect, self._source, self._told)
            built = inner.build((*self._path, layer.name), f"{self._target}{name}.", shapes)
            self._parts[name] = built.net
            self._slots[layer.name] = list(built.slots)
            self._known[layer.name] = (shapes, [name], built.outputs)
        first, names, outputs = self._known[layer.name]
        if first != shapes:
            raise damaged(self._source, f"{shown(layer.name)} is called with {shapes} and with {first}")
        self._add_call(names[0], inputs, outputs, ref)

    def _add_call(self, part: str, inputs: tuple[int, ...], outputs: tuple[Shape, ...], ref: Ref | None) -> int:
        start = len(self._shapes)
        self._calls.append(Call(part, inputs, tuple(range(start, start + len(outputs)))))
        self._shapes.extend(outputs)
        if ref is not None:
            for position in range(len(outputs)):
                self._values[(ref.layer, ref.call, position)] = start + position
        return start

    def _emit_operations(self, layer: KerasLayer, ref: Ref, inputs: tuple[int, ...], shapes: tuple[Shape, ...]) -> None:
        if layer.name not in self._known:
            translation = self._translated(layer, ref, shapes)
            names = []
            for suffix, operation in translation.operations:
                names.append(module_name(f"{layer.name}_{suffix}" if suffix else layer.name, self._parts))
                self._parts[names[-1]] = operation
            self._known[layer.name] = (shapes, names, (translation.output,))
            self._slots[layer.name] = self._slots_of(layer, translation, names)
        first, names, outputs = self._known[layer.name]
        if first != shapes:
            raise damaged(self._source, f"{shown(layer.name)} is called with {shapes} and with {first}")
        for position, name in enumerate(names):
            last = position == len(names) - 1
            # Values inside a layer have no shape of their own in the file; the layer's is what folding asks for.
            inputs = (self._add_call(name, inputs, outputs, ref if last else None),)

    def _translated(self, layer: KerasLayer, ref: Ref, shapes: tuple[Shape, ...]) -> Translation:
        call = layer.calls[ref.call]
        view = LayerView(
            layer.class_name,
            layer.name,
            layer.config,
            shapes,
            self._dialect,
            self._source,
            call.constants,
            call.arguments,
            self._recorded.get((ref.layer, ref.call)),
        )
        translator = bare_operation if layer.bare else _TRANSLATORS[layer.class_name]
        return translator(view)

    def _slots_of(self, layer: KerasLayer, translation: Translation, names: list[str]) -> list[Slot]:
        counts: dict[str, int] = {}
        slots = []
        for weight in translation.weights:
            index = counts.get(weight.place, 0)
            counts[weight.place] = index + 1
            target = f"{self._target}{names[weight.part]}.{weight.target}" if weight.target else ""
            slots.append(
                Slot(
                    (*self._path, layer.name),
                    layer.class_name,
                    weight.kind,
                    index,
                    weight.place,
                    weight.shape,
                    target,
                    weight.layout,
                    weight.learned and layer.trainable,
                    weight.learned,
                )
            )
        return slots


def torch_shape(shape: Shape) -> Shape:
    """(H, W, C) to (C, H, W); other ranks stay."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape


def _refold(slot: Slot, prefix: str, layouts: Mapping[str, tuple[Order | None, Order | None]]) -> Slot:
    part, _, parameter = slot.target.removeprefix(prefix).partition(".")
    if not slot.target.startswith(prefix) or part not in layouts or "." in parameter:
        return slot
    rows, columns = layouts[part]
    layout = slot.layout
    if columns is not None and parameter == "weight":
        layout = layout.with_columns(columns)
    if rows is not None:
        layout = layout.with_rows(rows)
    return replace(slot, layout=layout)
