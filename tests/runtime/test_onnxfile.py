"""Looking into ONNX files that may be cut, changed or hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fsdeploy.errors import InputError
from fsdeploy.runtime.onnxfile import scan, without_weights


def small_model() -> onnx.ModelProto:
    shape = ["N", 4]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y0"]), helper.make_node("Add", ["y0", "b"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2048])],
        [
            numpy_helper.from_array(np.ones((4, 2048), np.float32), "w"),
            numpy_helper.from_array(np.ones(2048, np.float16).astype(np.float32)[:1], "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"fsdeploy.name": '"ä"', "other": "1"})
    return model


DATA = small_model().SerializeToString()


def test_the_outline_is_what_onnx_reads(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(DATA)
    found = scan(tmp_path / "m.onnx")
    assert (found.ir_version, found.opsets, found.external) == (8, {"": 17}, ())
    assert found.metadata == {"fsdeploy.name": '"ä"', "other": "1"}


def test_a_model_without_its_weights_passes_the_checker_with_typed_inputs_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(DATA)
    bare = onnx.load_model_from_string(without_weights(tmp_path / "m.onnx"))
    onnx.checker.check_model(bare, full_check=True)
    assert [entry.name for entry in bare.graph.input] == ["x", "w"]
    assert [edge.dim_value for edge in bare.graph.input[1].type.tensor_type.shape.dim] == [4, 2048]
    assert [entry.name for entry in bare.graph.initializer] == ["b"]


def test_external_data_is_found_in_nodes_and_subgraphs_too(tmp_path: Path) -> None:
    model = small_model()
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="inner.bin")
    branch = helper.make_graph([helper.make_node("Constant", [], ["z"], value=tensor)], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["q"], then_branch=branch, else_branch=branch))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert scan(tmp_path / "m.onnx").external == ("inner.bin",)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 400), value=st.integers(0, 255), keep=st.integers(0, len(DATA)))
def test_changed_and_cut_files_are_read_or_refused_and_nothing_else(
    tmp_path: Path, position: int, value: int, keep: int
) -> None:
    changed = bytearray(DATA[:keep])
    if position < len(changed):
        changed[position] = value
    (tmp_path / "m.onnx").write_bytes(changed)
    try:
        scan(tmp_path / "m.onnx")
    except InputError as error:
        assert "m.onnx" in str(error)


def test_graphs_nested_beyond_reason_are_refused(tmp_path: Path) -> None:
    graph = onnx.GraphProto(name="deep")
    for _ in range(40):
        outer = onnx.GraphProto(name="deep")
        node = outer.node.add(op_type="If")
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)
        graph = outer
    model = helper.make_model(graph, ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="not a whole ONNX file"):
        scan(tmp_path / "m.onnx")


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field of less than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(field(8, field(1, b"\xff\xfe") + b"\x10\x11"), id="domain is no text"),
        pytest.param(field(8, field(2, b"seventeen")), id="opset is no number"),
        pytest.param(field(14, field(1, b"key") + field(2, b"\x80")), id="property is no text"),
    ],
)
def test_a_damaged_outline_is_not_called_an_empty_file(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08" + damage + field(7, b""))
    with pytest.raises(InputError, match=r"m\.onnx is not a whole ONNX file"):
        scan(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="it is empty"):
        scan(tmp_path / "m.onnx")
