"""A traced graph: torch module in, ONNX nodes and weights out; names and bytes depend on nothing but the model.

Uses torch's TorchScript exporter (`dynamo=False`): it honours the requested opset and writes IR 8 at opset 17, which
the oldest promised runtime reads. Weights stay outside the protobuf until the file is written, so they are held in
memory only once.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from fsdeploy import __version__
from fsdeploy.errors import InputError
from fsdeploy.export import simplify

BATCH = "N"
OPSETS = range(11, 21)
"""What the exporter can write; 11 is the first with half-pixel resizing."""

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Port:
    """One input or output of a graph."""

    name: str
    shape: Shape
    """Numbers, or a name for an edge that is free."""
    dtype: Literal["float32", "uint8"] = "float32"


@dataclass
class Graph:
    """An ONNX model whose large tensors live in `weights` instead of in the protobuf."""

    model: onnx.ModelProto
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        return next(int(entry.version) for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    def to_proto(self) -> onnx.ModelProto:
        """One protobuf with the weights inside (a copy of them)."""
        full = onnx.ModelProto()
        full.CopyFrom(self.model)
        full.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.weights.items())
        return full

    @classmethod
    def from_proto(cls, model: onnx.ModelProto) -> Graph:
        """Split the initialisers off a protobuf."""
        weights = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        del bare.graph.initializer[:]
        return cls(bare, weights)


def trace(
    module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[Port], outputs: Sequence[Port], opset: int
) -> Graph:
    """Trace a module and bring the graph to its final form, without metadata.

    Args:
        module: in evaluation mode; takes the examples, returns a tuple of tensors in the order of `outputs`.
        examples: one tensor per input.
        inputs, outputs: names, shapes and types to declare; free edges by name.
        opset: ONNX operator set, one of `OPSETS`.

    Raises:
        InputError: an opset that the exporter does not write, or that an operator of the model needs to be newer.
    """
    if opset not in OPSETS:
        raise InputError(f"opset {opset} cannot be written: choose from {OPSETS.start} to {OPSETS.stop - 1}")
    model = _torchscript(module, examples, inputs, outputs, opset)
    named = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    declared = {port.name for port in inputs}
    used = [entry.name for entry in model.graph.input if entry.name not in declared]
    del model.graph.input[:]
    simplify.simplify(model.graph, set(used))
    wanted = {name for node in model.graph.node for name in node.input}
    weights = {name: _array(named[name]) for name in used if name in wanted}
    _finish(model, inputs, outputs, weights)
    return Graph(model, _tidy_names(model, weights, inputs, outputs))


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().cpu().numpy()


def _torchscript(
    module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[Port], outputs: Sequence[Port], opset: int
) -> onnx.ModelProto:
    free = {
        port.name: {axis: edge for axis, edge in enumerate(port.shape) if isinstance(edge, str)}
        for port in (*inputs, *outputs)
    }
    buffer: Any = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecation of this exporter, and tracer notes that parity decides on
            torch.onnx.export(
                module,
                tuple(examples),
                buffer,
                dynamo=False,
                opset_version=opset,
                input_names=[port.name for port in inputs],
                output_names=[port.name for port in outputs],
                dynamic_axes={name: axes for name, axes in free.items() if axes},
                export_params=False,
                do_constant_folding=False,
            )
    except torch.onnx.errors.UnsupportedOperatorError as error:
        raise InputError(f"the model cannot be exported at opset {opset}: {str(error).splitlines()[0]}") from error
    return onnx.load_model_from_string(buffer.getvalue())


def _finish(
    model: onnx.ModelProto, inputs: Sequence[Port], outputs: Sequence[Port], weights: Mapping[str, NDArray[Any]]
) -> None:
    """Declare shapes in numbers, and drop whatever depends on the machine or the moment."""
    graph = model.graph
    del graph.input[:], graph.output[:], graph.value_info[:], model.metadata_props[:]
    graph.input.extend(declare(port) for port in inputs)
    graph.output.extend(declare(port) for port in outputs)
    graph.name = "swap"
    for message, name in ((graph, "doc_string"), (model, "doc_string"), (model, "domain"), (model, "model_version")):
        message.ClearField(name)
    model.producer_name, model.producer_version = "fsdeploy", __version__


def declare(port: Port) -> onnx.ValueInfoProto:
    """A graph's border as ONNX declares it."""
    kind = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8}[port.dtype]
    return helper.make_tensor_value_info(port.name, kind, list(port.shape))


def _tidy_names(
    model: onnx.ModelProto, weights: dict[str, NDArray[Any]], inputs: Sequence[Port], outputs: Sequence[Port]
) -> dict[str, NDArray[Any]]:
    """Number values and nodes in running order; weights keep their parameter's name, in order of first use."""
    graph = model.graph
    kept = {port.name for port in (*inputs, *outputs)} | {""}
    constants = {entry.name for entry in graph.initializer}
    renamed: dict[str, str] = {name: name for name in kept}
    ordered: dict[str, NDArray[Any]] = {}
    order: list[str] = []
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        node.ClearField("doc_string")
        for position, name in enumerate(node.input):
            if name in weights and name not in ordered:
                ordered[name] = weights[name]
                renamed[name] = name
            elif name in constants and name not in renamed:
                renamed[name] = f"constant_{len(order)}"
                order.append(name)
            node.input[position] = renamed[name]
        for position, name in enumerate(node.output):
            renamed.setdefault(name, f"v{index}" if len(node.output) == 1 else f"v{index}_{position}")
            node.output[position] = renamed[name]
    small = {entry.name: entry for entry in graph.initializer}
    del graph.initializer[:]
    for name in order:
        small[name].name = renamed[name]
        graph.initializer.append(small[name])
    return _plain_names(graph, ordered)


def _plain_names(graph: onnx.GraphProto, weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Drop what wrappers put before a parameter's own name ("inference.parts.encoder.conv" -> "encoder.conv")."""
    plain = {name: name.rsplit("parts.", 1)[-1] for name in weights}
    if len(set(plain.values())) < len(plain):
        return weights
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = plain.get(name, name)
    return {plain[name]: array for name, array in weights.items()}
