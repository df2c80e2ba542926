"""Small, exact graph clean-ups: nothing here changes a result by a single bit.

Constants are computed once, equal nodes are shared, zero padding moves into the convolution behind it, dead nodes go.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

_FOLDED_ELEMENTS = 4096
_IMPURE = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "If", "Loop"}
)


def simplify(graph: onnx.GraphProto, weights: set[str]) -> None:
    """Clean a graph in place. Small constants become initialisers; `weights` are inputs that are left alone."""
    fold_constants(graph)
    share_equal_nodes(graph)
    merge_padding(graph)
    drop_identities(graph)
    drop_dead(graph)


def fold_constants(graph: onnx.GraphProto) -> None:
    """Evaluate nodes whose inputs are all small constants, and turn their results into initialisers."""
    known = {entry.name: entry for entry in graph.initializer}
    kept = []
    outputs = {entry.name for entry in graph.output}
    for node in graph.node:
        value = _constant(node)
        if value is not None:
            value.name = node.output[0]
            known[value.name] = value
        elif not _foldable(node, known, outputs):
            kept.append(node)
        else:
            for tensor in _evaluate(node, known):
                known[tensor.name] = tensor
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(known.values())


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant":
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        return tensor
    return numpy_helper.from_array(np.asarray(helper.get_attribute_value(attribute)))


def _foldable(node: onnx.NodeProto, known: dict[str, onnx.TensorProto], outputs: set[str]) -> bool:
    if node.op_type in _IMPURE or not node.input or outputs & set(node.output):
        return False
    named = [name for name in node.input if name]
    return all(name in known and int(np.prod(known[name].dims)) <= _FOLDED_ELEMENTS for name in named)


def _evaluate(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> list[onnx.TensorProto]:
    names = sorted({name for name in node.input if name})
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "constant", [], outputs, [known[name] for name in names])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    results = ReferenceEvaluator(model).run(None, {})
    return [numpy_helper.from_array(np.asarray(r), name) for r, name in zip(results, node.output, strict=True)]


def share_equal_nodes(graph: onnx.GraphProto) -> None:
    """Compute equal things once: a part traced twice (the encoder on the way to two decoders) becomes one again."""
    seen: dict[bytes, list[str]] = {}
    renamed: dict[str, str] = {}
    outputs = {entry.name for entry in graph.output}
    for tensor in graph.initializer:
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        bare.name = ""
        first = seen.setdefault(b"t" + bare.SerializeToString(deterministic=True), [tensor.name])
        if first[0] != tensor.name:
            renamed[tensor.name] = first[0]
    kept = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        key = onnx.NodeProto()
        key.CopyFrom(node)
        key.name = key.doc_string = ""
        del key.output[:]
        first = seen.setdefault(b"n" + key.SerializeToString(deterministic=True), list(node.output))
        if first == list(node.output) or node.op_type in _IMPURE or outputs & set(node.output):
            kept.append(node)
        else:
            renamed.update(zip(node.output, first, strict=True))
    del graph.node[:]
    graph.node.extend(kept)


def merge_padding(graph: onnx.GraphProto) -> None:
    """Fold zero padding into the convolution behind it: one pass over memory less, and no Pad operator."""
    constants = {entry.name: entry for entry in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {entry.name for entry in graph.output}
    for node in graph.node:
        pads = _spatial_pads(node, constants)
        following = users.get(node.output[0], [])
        if pads is None or node.output[0] in outputs or not following:
            continue
        if all(user.op_type == "Conv" and user.input[0] == node.output[0] for user in following):
            for user in following:
                _add_pads(user, pads)
                user.input[0] = node.input[0]


def _spatial_pads(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[int] | None:
    """[top, left, bottom, right] of a node that pads the last two of four axes with zeros, else None."""
    if node.op_type != "Pad" or node.input[1] not in constants:
        return None
    mode = next((entry.s for entry in node.attribute if entry.name == "mode"), b"constant")
    value = node.input[2] if len(node.input) > 2 else ""
    zero = not value or (value in constants and not numpy_helper.to_array(constants[value]).any())
    pads = [int(edge) for edge in numpy_helper.to_array(constants[node.input[1]])]
    plain = len(pads) == 8 and not any(pads[0:2] + pads[4:6]) and min(pads) >= 0
    return [*pads[2:4], *pads[6:8]] if mode == b"constant" and zero and plain else None


def _add_pads(conv: onnx.NodeProto, pads: list[int]) -> None:
    for attribute in conv.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [old + new for old, new in zip(attribute.ints, pads, strict=True)]
            return
    conv.attribute.append(helper.make_attribute("pads", pads))


def drop_identities(graph: onnx.GraphProto) -> None:
    """Remove Identity nodes that do not name an output."""
    outputs = {entry.name for entry in graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def drop_dead(graph: onnx.GraphProto) -> None:
    """Remove nodes and initialisers that no output depends on."""
    needed = {entry.name for entry in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= {name for name in node.input if name} | _captured(node)
    tensors = [entry for entry in graph.initializer if entry.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)


def _captured(node: onnx.NodeProto) -> set[str]:
    """Names of the outer graph that a node's subgraphs may use."""
    return {
        name
        for attribute in node.attribute
        if attribute.HasField("g")
        for inner in attribute.g.node
        for name in (*inner.input, *_captured(inner))
    }
