"""Write an ONNX file weight by weight, so that a large model is never held twice in memory.

The protobuf wire format (https://protobuf.dev/programming-guides/encoding/) nests messages as length and bytes. The
lengths are known before the first byte is written, so the graph can be framed by hand and its weights streamed. The
bytes are those that protobuf itself would write, and the same graph always gives the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from fsdeploy.errors import InputError
from fsdeploy.export.graph import Graph

_GRAPH, _INITIALIZER, _RAW_DATA = b"\x3a", b"\x2a", b"\x4a"  # length-delimited fields 7, 5 and 9
_LIMIT = 2**31 - 1


def set_metadata(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Replace the model's metadata_props, sorted by name."""
    del model.metadata_props[:]
    for name in sorted(properties):
        entry = model.metadata_props.add()
        entry.key, entry.value = name, properties[name]


def write_graph(graph: Graph, path: Path) -> None:
    """Write `graph` to `path`.

    Raises:
        InputError: the file would pass protobuf's limit of 2 GB.
    """
    before, after = _halves(graph.model.graph, {"node", "name", "initializer"})
    head, tail = _halves(
        graph.model, {"ir_version", "producer_name", "producer_version", "domain", "model_version"}, "graph"
    )
    headers = [_tensor_header(name, array) for name, array in graph.weights.items()]
    sizes = [len(header) + array.nbytes for header, array in zip(headers, graph.weights.values(), strict=True)]
    length = len(before) + len(after) + sum(len(_INITIALIZER) + len(_varint(size)) + size for size in sizes)
    if len(head) + length + len(tail) > _LIMIT:
        raise InputError(
            f"the exported file would have {length / 2**30:.1f} GB, above ONNX's 2 GB: use --precision fp16"
        )
    with path.open("wb") as stream:
        stream.write(head + _GRAPH + _varint(length) + before)
        for header, array, size in zip(headers, graph.weights.values(), sizes, strict=True):
            stream.write(_INITIALIZER + _varint(size) + header)
            _write_array(stream, array)
        stream.write(after + tail)


def _halves(message: Any, first: set[str], skipped: str = "") -> tuple[bytes, bytes]:
    """A message's bytes as protobuf would write them, cut behind the fields `first`, without the field `skipped`."""
    front, back = type(message)(), type(message)()
    front.CopyFrom(message)
    back.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        name = descriptor.name
        if name not in first:
            front.ClearField(name)
        if name in first or name == skipped:
            back.ClearField(name)
    return front.SerializeToString(deterministic=True), back.SerializeToString(deterministic=True)


def _tensor_header(name: str, array: NDArray[Any]) -> bytes:
    """A TensorProto up to its raw data."""
    tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    head: bytes = tensor.SerializeToString(deterministic=True)
    return head + _RAW_DATA + _varint(array.nbytes)


def _write_array(stream: BinaryIO, array: NDArray[Any]) -> None:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    stream.write(little.reshape(-1).view(np.uint8).data)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
