"""The conformance check: good files pass, hand-broken files fail on the right rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from fsdeploy.cli.check import check
from fsdeploy.errors import HostileFileError, InputError
from fsdeploy.export import ExportSettings, export_model
from fsdeploy.export.check import check_file

R = 128


def handmade() -> onnx.ModelProto:
    """A small file of another producer that keeps every rule a reader breaks on: a darker face, an ellipse twice."""
    axis = np.linspace(-1, 1, R, dtype=np.float32)
    disc = (axis[None] ** 2 + axis[:, None] ** 2 < 0.5).astype(np.float32)[None, :, :, None]
    shape = ["batch", R, R]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["in_face:0", "gain"], ["out_celeb_face:0"]),
            helper.make_node("Slice", ["in_face:0", "zero", "one", "last"], ["channel"]),
            helper.make_node("Mul", ["channel", "nothing"], ["blank"]),
            helper.make_node("Add", ["blank", "disc"], ["out_face_mask:0"]),
            helper.make_node("Add", ["blank", "disc"], ["out_celeb_face_mask:0"]),
        ],
        "handmade",
        [helper.make_tensor_value_info("in_face:0", TensorProto.FLOAT, [*shape, 3])],
        [
            helper.make_tensor_value_info("out_face_mask:0", TensorProto.FLOAT, [*shape, 1]),
            helper.make_tensor_value_info("out_celeb_face:0", TensorProto.FLOAT, [*shape, 3]),
            helper.make_tensor_value_info("out_celeb_face_mask:0", TensorProto.FLOAT, [*shape, 1]),
        ],
        [
            numpy_helper.from_array(np.array([0.9, 0.8, 0.7], np.float32), "gain"),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(np.array([3], np.int64), "last"),
            numpy_helper.from_array(np.float32(0), "nothing"),
            numpy_helper.from_array(disc, "disc"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def verdicts(path: Path, *apps: str) -> dict[str, str]:
    return {finding.rule: finding.status for finding in check_file(path, apps)}


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_a_handmade_file_passes_with_what_is_not_on_record(tmp_path: Path) -> None:
    found = verdicts(save(handmade(), tmp_path / "me.dfm"))
    assert {rule for rule, status in found.items() if status != "pass"} == {"C17", "C19"}
    assert (found["C17"], found["C19"]) == ("skip", "warn") and len(found) == 20


def replace(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for entry in (*model.graph.input, *model.graph.output):
        entry.name = new if entry.name == old else entry.name


def rename_input(model: onnx.ModelProto) -> None:
    replace(model, "in_face:0", "in_face")


def list_a_weight_as_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [3]))


def newer_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 10


def newest_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


def opset_18(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def drop_an_output(model: onnx.ModelProto) -> None:
    del model.graph.output[2]


def picture_first(model: onnx.ModelProto) -> None:
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend([outputs[1], outputs[0], outputs[2]])


def rename_output(model: onnx.ModelProto) -> None:
    replace(model, "out_face_mask:0", "mask")


def half_precision_border(model: onnx.ModelProto) -> None:
    node = helper.make_node("Cast", ["half"], ["in_face_32"], to=TensorProto.FLOAT)
    replace(model, "in_face:0", "half")
    for other in model.graph.node:
        other.input[:] = ["in_face_32" if name == "half" else name for name in other.input]
    model.graph.node.insert(0, node)
    model.graph.input[0].name = node.input[0] = "in_face:0"
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def free_height(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "h"


def free_output_width(model: onnx.ModelProto) -> None:
    # a reshape to a run-time shape, so that no runtime can infer the numbers again
    for entry in model.graph.output:
        entry.type.tensor_type.shape.dim[2].dim_param = "w"
    model.graph.node[0].output[0] = "picture"
    model.graph.node.append(helper.make_node("NonZero", ["gain"], ["where"]))
    model.graph.node.append(helper.make_node("Shape", ["in_face:0"], ["sizes"]))
    model.graph.node.append(helper.make_node("Compress", ["sizes", "all"], ["kept"], axis=0))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, bool), "all"))
    model.graph.node.append(helper.make_node("Reshape", ["picture", "kept"], ["out_celeb_face:0"]))


def mix_faces(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "picture"
    model.graph.node.append(helper.make_node("ReduceMean", ["picture"], ["average"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["picture", "average"], ["out_celeb_face:0"]))


def not_a_number(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "picture"
    model.graph.node.append(helper.make_node("Log", ["picture"], ["logged"]))
    model.graph.node.append(helper.make_node("Log", ["logged"], ["out_celeb_face:0"]))


def random_noise(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "picture"
    model.graph.node.append(helper.make_node("RandomUniformLike", ["picture"], ["noise"]))
    model.graph.node.append(helper.make_node("Mul", ["picture", "noise"], ["out_celeb_face:0"]))


def too_bright(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(3, 3, np.float32), "gain"))


def flat_picture(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), "gain"))


def empty_masks(model: onnx.ModelProto) -> None:
    model.graph.initializer[5].CopyFrom(numpy_helper.from_array(np.zeros((1, R, R, 1), np.float32), "disc"))


def full_masks(model: onnx.ModelProto) -> None:
    model.graph.initializer[5].CopyFrom(numpy_helper.from_array(np.ones((1, R, R, 1), np.float32), "disc"))


def custom_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[0].domain = "com.example"


def cross_fade(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("morph_value:0", TensorProto.FLOAT, [1]))
    model.graph.node[0].output[0] = "picture"
    model.graph.node.append(helper.make_node("Mul", ["picture", "morph_value:0"], ["out_celeb_face:0"]))


@pytest.mark.parametrize(
    "broken, rule, status",
    [
        (custom_operator, "C2", "fail"),
        (newer_ir, "C3", "fail"),
        (newest_opset, "C3", "fail"),
        (opset_18, "C3", "warn"),
        (rename_input, "C4", "fail"),
        (list_a_weight_as_input, "C4", "fail"),
        (drop_an_output, "C5", "fail"),
        (picture_first, "C5", "fail"),
        (rename_output, "C5", "warn"),
        (half_precision_border, "C6", "fail"),
        (free_height, "C7", "fail"),
        (free_output_width, "C8", "fail"),
        (mix_faces, "C9", "fail"),
        (not_a_number, "C10", "fail"),
        (random_noise, "C10", "fail"),
        (too_bright, "C11", "warn"),
        (flat_picture, "C13", "warn"),
        (empty_masks, "C14", "fail"),
        (full_masks, "C14", "warn"),
        (cross_fade, "C16", "warn"),
    ],
)
def test_a_broken_file_is_caught_by_the_rule_it_breaks(
    tmp_path: Path, broken: Callable[[onnx.ModelProto], None], rule: str, status: str
) -> None:
    model = handmade()
    broken(model)
    assert verdicts(save(model, tmp_path / "me.dfm"))[rule] == status


def test_side_files_and_extensions_and_names_are_judged(tmp_path: Path) -> None:
    path = save(handmade(), tmp_path / "me.dfm")
    (tmp_path / "me.dfm.data").write_bytes(b"left over")
    assert verdicts(path)["C1"] == "fail"
    plain = save(handmade(), tmp_path / "__me.onnx")
    assert verdicts(plain, "deepfacelive")["C1"] == "fail"
    assert verdicts(plain, "facefusion")["C1"] == "pass"
    assert verdicts(plain, "facefusion")["C20"] == "warn"


def test_weights_beside_the_file_fail_and_outside_its_folder_are_refused(tmp_path: Path) -> None:
    model = handmade()
    path = tmp_path / "me.dfm"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert verdicts(path)["C1"] == "fail"
    model = onnx.load(str(path), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    with pytest.raises(HostileFileError, match="outside its own folder"):
        check_file(save(model, path))


def test_a_size_that_apps_handle_badly_is_a_warning(tiny: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format="dfm", size=96)
    assert verdicts(export_model(tiny, tmp_path / "me.dfm", settings=settings).path)["C15"] == "warn"


def test_our_own_dfm_passes_every_rule_for_every_app(tiny: Path, tmp_path: Path) -> None:
    for swap_sides in (False, True):
        settings = ExportSettings(format="dfm")
        path = export_model(tiny, tmp_path / f"me{swap_sides:d}.dfm", swap_sides, settings=settings).path
        found = verdicts(path, "facefusion", "deepfacelive", "visomaster")
        assert set(found.values()) == {"pass"} and len(found) == 20


@pytest.mark.parametrize(
    "settings", [ExportSettings(batch=3), ExportSettings(io="uint8"), ExportSettings(graph="frame")]
)
def test_our_own_onnx_files_pass(tiny: Path, tmp_path: Path, settings: ExportSettings) -> None:
    found = verdicts(export_model(tiny, tmp_path / "m.onnx", settings=settings).path)
    assert set(found.values()) <= {"pass", "skip"}
    assert found["C17"] == "pass"


@pytest.mark.parametrize("settings", [ExportSettings(format="dfm", batch=1), ExportSettings(batch=1)])
def test_every_output_of_a_small_fixed_batch_is_compared_on_three_inputs(
    tiny: Path, tmp_path: Path, settings: ExportSettings
) -> None:
    path = export_model(tiny, tmp_path / "m.dfm", settings=settings).path
    manifest = tmp_path / "m.dfm.json"
    values = json.loads(manifest.read_text())
    assert {entry["samples"] for entry in values["parity"]} == {3}
    assert verdicts(path)["C17"] == "pass"
    for entry in values["parity"]:
        entry["samples"] = 2
    manifest.write_text(json.dumps(values))
    assert verdicts(path)["C17"] == "fail", "two inputs are two, whatever the number of outputs"


def test_a_manifest_of_another_file_is_noticed(tiny: Path, tmp_path: Path) -> None:
    path = export_model(tiny, tmp_path / "m.onnx").path
    manifest = tmp_path / "m.onnx.json"
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "sha256": "0" * 64}))
    assert verdicts(path)["C17"] == "fail"
    manifest.write_text("{")
    assert verdicts(path)["C17"] == "fail"


def test_rules_that_need_a_broken_one_are_skipped_and_say_so(tiny: Path, tmp_path: Path) -> None:
    path = export_model(tiny, tmp_path / "m.onnx").path
    found = {finding.rule: finding for finding in check_file(path, ["facefusion"])}
    assert {rule for rule, finding in found.items() if finding.status == "fail"} == {"C4", "C5", "C7"}
    assert not [finding for finding in found.values() if "fails when run" in finding.detail]
    for rule in ("C12", "C13", "C14"):
        assert (found[rule].status, found[rule].detail) == ("skip", "it needs C5, C7")


def last_lines(path: Path, *apps: str) -> list[str]:
    arguments = [str(path), *(word for app in apps for word in ("--for", app))]
    printed = CliRunner().invoke(check, arguments, standalone_mode=False).output.splitlines()
    return printed[-len(apps) :]


def test_the_last_lines_say_which_apps_will_run_the_file(tiny: Path, tmp_path: Path) -> None:
    plain = export_model(tiny, tmp_path / "m.onnx").path
    assert last_lines(plain, "onnxruntime") == ["onnxruntime: will run it"]
    assert last_lines(plain, "facefusion", "onnxruntime") == [
        "facefusion: will not run it (C4, C5, C7 fail): export the model with --format dfm",
        "onnxruntime: will run it",
    ]
    dfm = save(handmade(), tmp_path / "me.onnx")
    assert last_lines(dfm, "facefusion", "deepfacelive") == [
        "facefusion: will run it",
        "deepfacelive: will not run it (C1 fail)",
    ]


def test_a_file_without_an_extension_is_a_warning(tmp_path: Path) -> None:
    assert verdicts(save(handmade(), tmp_path / "me"), "facefusion")["C1"] == "warn"


def test_exit_codes_say_passed_failed_or_unreadable(tmp_path: Path) -> None:
    good = save(handmade(), tmp_path / "good.dfm")
    model = handmade()
    newer_ir(model)
    bad = save(model, tmp_path / "bad.dfm")
    runner = CliRunner()
    assert runner.invoke(check, [str(good), "--for", "facefusion"], standalone_mode=False).return_value == 0
    result = runner.invoke(check, [str(bad), "--json"], standalone_mode=False)
    assert result.return_value == 1
    assert {entry["rule"]: entry["status"] for entry in json.loads(result.stdout)}["C3"] == "fail"
    (tmp_path / "cut.dfm").write_bytes(good.read_bytes()[:200])
    with pytest.raises(InputError, match="truncated") as caught:
        check_file(tmp_path / "cut.dfm")
    assert caught.value.exit_code == 2
