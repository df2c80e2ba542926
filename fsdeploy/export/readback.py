"""Read a written file back and refuse anything but what was asked for: exporters only log what they changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from fsdeploy.errors import CheckFailedError
from fsdeploy.export.graph import Port
from fsdeploy.runtime.onnxfile import scan, without_weights

_TYPES = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8}


def ir_for(opset: int) -> int:
    """IR version that belongs to an opset: the oldest that allows it, 8 at least (IR 8 = opset 17)."""
    return max(8, int(onnx.helper.OP_SET_ID_VERSION_MAP[("ai.onnx", opset)]))


def read_back(path: Path, opset: int, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Check the file's opset, IR, operators, borders and completeness, and run onnx.checker over it.

    Raises:
        CheckFailedError: the first thing that is not as it should be, expected and found.
    """
    outline = scan(path)
    _same("opset", {"": opset}, {("" if k == "ai.onnx" else k): v for k, v in outline.opsets.items()})
    _same("IR version", ir_for(opset), outline.ir_version)
    _same("side files", (), outline.external)
    model = onnx.load_model_from_string(without_weights(path))
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise CheckFailedError(f"onnx.checker refuses the exported file: {_first(error)}") from error
    del model.graph.input[len(inputs) :]
    _same("operator domains", {""}, {node.domain for node in model.graph.node})
    _same("local functions", 0, len(model.functions))
    _same("inputs", [_shown(port) for port in inputs], [_declared(entry) for entry in model.graph.input])
    _same("outputs", [_shown(port) for port in outputs], [_declared(entry) for entry in model.graph.output])


def _same(what: str, expected: object, found: object) -> None:
    if expected != found:
        raise CheckFailedError(f"the exporter wrote another {what} than asked for: expected {expected}, found {found}")


def _shown(port: Port) -> tuple[str, int, tuple[int | str, ...]]:
    return port.name, _TYPES[port.dtype], port.shape


def _declared(entry: onnx.ValueInfoProto) -> tuple[str, int, tuple[int | str, ...]]:
    kind = entry.type.tensor_type
    edges = tuple(edge.dim_value if edge.HasField("dim_value") else edge.dim_param for edge in kind.shape.dim)
    return entry.name, kind.elem_type, edges


def _first(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
