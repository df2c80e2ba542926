"""Smaller and faster numbers inside an exported graph; borders stay as they are.

- fp16-storage: weights stored in half precision and cast back when the file is loaded. Half the size, same arithmetic.
- fp16: arithmetic in half precision too, except the output sigmoid. For GPUs.
- int8: weights and activations in 8 bits (quantise and dequantise nodes), ranges measured on calibration faces.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from fsdeploy.errors import CheckFailedError
from fsdeploy.export.graph import Graph

_LARGE = 1024
"""Elements from which a weight is worth storing in half precision."""
_FLOAT32_OPERATORS = ("Sigmoid", "ReduceMean", "ReduceSum", "InstanceNormalization")
_QUANTIZED_OPERATORS = ("Conv", "Gemm", "MatMul", "ConvTranspose")


def apply(graph: Graph, precision: str, calibration: Sequence[NDArray[Any]]) -> Graph:
    """The graph at another precision.

    Args:
        calibration: inputs that the int8 ranges are measured on.

    Raises:
        CheckFailedError: weights too large for half precision.
    """
    if precision == "fp16-storage":
        return half_storage(graph)
    if precision == "fp16":
        return half_arithmetic(graph)
    if precision == "int8":
        return quantized(graph, calibration)
    return graph


def half_storage(graph: Graph) -> Graph:
    """Store large float32 weights as float16 with a Cast behind each."""
    casts = []
    weights: dict[str, NDArray[Any]] = {}
    for name, array in graph.weights.items():
        if array.dtype != np.float32 or array.size < _LARGE:
            weights[name] = array
            continue
        weights[f"{name}.half"] = _half(name, array)
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"Cast_{name}", to=onnx.TensorProto.FLOAT))
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *graph.model.graph.node])
    return Graph(model, weights)


def _half(name: str, array: NDArray[Any]) -> NDArray[np.float16]:
    largest = float(np.abs(array).max())
    if not largest < 65504:
        raise CheckFailedError(f"weight '{name}' reaches {largest:.3g}, beyond half precision: export with fp32")
    return array.astype(np.float16)


def half_arithmetic(graph: Graph) -> Graph:
    """Compute in float16 inside, float32 at the borders."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    with _quiet():
        converted = convert_float_to_float16(
            graph.to_proto(),
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPERATORS],
            disable_shape_infer=False,
        )
    return _bare(converted, graph)


def quantized(graph: Graph, calibration: Sequence[NDArray[Any]]) -> Graph:
    """Static 8-bit quantisation, per channel, ranges from the calibration inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Faces(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self._feeds = iter([{name: feed} for feed in calibration])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "quantized.onnx"
        quantize_static(
            graph.to_proto(),
            str(target),
            Faces(graph.model.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(_QUANTIZED_OPERATORS),
        )
        converted = onnx.load(str(target))
    return _bare(converted, graph)


def _bare(converted: onnx.ModelProto, graph: Graph) -> Graph:
    """Keep the nodes and tensors of a converted model, and everything else of the original."""
    found = Graph.from_proto(converted)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.initializer[:]
    given = {*found.weights, *(entry.name for entry in graph.model.graph.input)}
    for index, node in enumerate(in_order(list(found.model.graph.node), given)):
        node.name = f"{node.op_type}_{index}"
        node.ClearField("doc_string")
        model.graph.node.append(node)
    return Graph(model, dict(sorted(found.weights.items())))


def in_order(nodes: list[onnx.NodeProto], given: set[str]) -> list[onnx.NodeProto]:
    """Nodes sorted so that each follows what it reads, otherwise in the given order (converters append at will)."""
    ready, known, waiting = [], given | {""}, nodes
    while waiting:
        late = []
        for node in waiting:
            if all(name in known for name in node.input):
                ready.append(node)
                known |= set(node.output)
            else:
                late.append(node)
        if len(late) == len(waiting):
            raise CheckFailedError(f"the converted graph reads '{late[0].input[0]}', which nothing computes")
        waiting = late
    return ready


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converters' advice off the screen: what they did is judged by its result."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
