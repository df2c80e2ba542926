"""Exported files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fsdeploy.cli.describe.facts import Facts
from fsdeploy.errors import InputError


def onnx_file(path: Path) -> Facts:
    """An ONNX file: its borders, and what it says about itself."""
    from fsdeploy.runtime.metadata import SwapMetadata
    from fsdeploy.runtime.onnxfile import scan

    outline = scan(path)
    facts: Facts = {
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "ir_version": outline.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in outline.opsets.items()},
        "external_files": list(outline.external),
        **_onnx_graph(path),
    }
    try:
        facts["fsdeploy"] = dataclasses.asdict(SwapMetadata.from_props(outline.metadata, str(path)))
    except InputError as error:
        facts |= {"note": str(error), "metadata": outline.metadata}
    return facts


def _onnx_graph(path: Path) -> Facts:
    """Borders and number of nodes of an ONNX file whose outline is sound."""
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
        own = {tensor.name for tensor in graph.initializer}
        tensors = [
            {"direction": direction, **_value_info(value)}
            for direction, values in (("input", graph.input), ("output", graph.output))
            for value in values
            if value.name not in own
        ]
    except Exception as error:  # protobuf's own, and the one below
        raise InputError(f"{path} is damaged inside its graph: export it again, or restore a good copy") from error
    return {"tensors": tensors, "nodes": len(graph.node)}


def _value_info(value: Any) -> Facts:
    import onnx

    tensor = value.type.tensor_type
    shape = [entry.dim_param or entry.dim_value for entry in tensor.shape.dim]
    types = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    texts = (value.name, *(entry.dim_param for entry in tensor.shape.dim))
    if not all(isinstance(text, str) for text in texts):  # protobuf gives the bytes of what is no text
        raise UnicodeError("a name in the graph is no text")
    return {"name": value.name, "type": types.get(tensor.elem_type, f"unknown ({tensor.elem_type})"), "shape": shape}
