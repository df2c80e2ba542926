"""`fsdeploy inspect` of models and faces and `fsdeploy restore`, on real and damaged things."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result
from tiny_model import CountingOptimizer, TinyModel

from fsdeploy.cli.inspect import inspect
from fsdeploy.cli.restore import restore
from fsdeploy.errors import CorruptModelError, FsdeployError, InputError
from fsdeploy.model.folder import load_model


def run(command: object, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def facts(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(run(inspect, path, "--json").stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model saved at iteration 1 (backup), kept as snapshot 2, saved at iteration 3."""
    model = TinyModel(tmp_path / "m")
    model.build()
    for step in (1, 2, 3):
        model.state.increment_iterations()
        model.add_history([float(step)])
        if step == 2:
            model.io.snapshot(CountingOptimizer(2))
        else:
            model.io.save(CountingOptimizer(step), is_exit=True)
    model.close()
    return tmp_path / "m"


def test_a_model_folder_says_what_it_is(folder: Path) -> None:
    found = facts(folder)
    expected = {"kind": "model folder", "plugin": "tiny", "input_size": 8, "output_size": 8, "iterations": 3}
    assert expected.items() <= found.items()
    assert "tiny" in run(inspect, folder).stdout


def test_a_damaged_model_folder_says_so_and_what_would_be_loaded(folder: Path) -> None:
    (folder / "tiny.safetensors").write_bytes(b"")
    found = facts(folder)
    assert "tiny.safetensors is missing or damaged" in str(found["damaged"])
    assert str(found["loads_from"]).endswith(str(Path("tiny_snapshot_2") / "tiny.safetensors"))


def test_weights_list_their_tensors_and_plugin(folder: Path) -> None:
    found = facts(folder / "tiny.safetensors")
    assert found["kind"] == "safetensors"
    assert found["fsdeploy"]["plugin"] == "tiny"  # type: ignore[index]
    assert {"name": "encoder.conv.weight", "type": "F32", "shape": [4, 3, 5, 5]} in found["tensors"]  # type: ignore[operator]


def test_foreign_safetensors_are_described_too(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"x": np.zeros((2, 3), np.float16)}, tmp_path / "x.safetensors")
    assert facts(tmp_path / "x.safetensors")["tensors"] == [{"name": "x", "type": "F16", "shape": [2, 3]}]


def test_a_foreign_onnx_file_shows_inputs_outputs_and_that_it_is_not_ours(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", 1, ["N", 3])], [value("y", 1, ["N", 3])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "x.onnx")
    found = facts(tmp_path / "x.onnx")
    assert (found["opsets"], found["ir_version"]) == ({"ai.onnx": 17}, 8)
    assert found["tensors"] == [
        {"direction": "input", "name": "x", "type": "float", "shape": ["N", 3]},
        {"direction": "output", "name": "y", "type": "float", "shape": ["N", 3]},
    ]
    assert "no fsdeploy metadata" in str(found["note"])


def test_legacy_files_are_named_and_point_to_migrate(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "original.h5", "w") as file:
        file.attrs["keras_version"] = "2.10.0"
        file.create_group("model_weights")
    with zipfile.ZipFile(tmp_path / "original.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.3.3"}')
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")
    for name, version in (("original.h5", "Keras 2.10.0"), ("original.keras", "Keras 3.3.3")):
        found = facts(tmp_path / name)
        assert found["kind"] == "legacy model"
        assert version in str(found["format"])
        assert "fsdeploy migrate" in str(found["next"])


def test_a_strangers_hdf5_is_not_opened_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some damaged files make the HDF5 library run without end or crash: a child with limits looks at them."""
    for name, attributes in (("2.h5", {"keras_version": "2.3.1"}), ("none.h5", {})):
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs.update(attributes)
            file["x"] = np.zeros(3, np.float32)

    def hang(*_: object, **__: object) -> None:
        raise AssertionError("opened here")

    monkeypatch.setattr(h5py, "File", hang)
    assert facts(tmp_path / "2.h5")["format"] == "Keras HDF5, Keras 2.3.1"
    other = facts(tmp_path / "none.h5")
    assert (other["format"], other["names"]) == ("HDF5, not a Keras model", ["x"])
    assert "next" not in other


def test_a_file_that_outlasts_the_limit_of_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsdeploy_converters import child

    with h5py.File(tmp_path / "slow.h5", "w") as file:
        file.attrs["keras_version"] = "2.3.1"
    monkeypatch.setattr(child, "SECONDS", 0.0)
    child.stop()
    with pytest.raises(FsdeployError, match=r"slow\.h5.*does not come to an end"):
        run(inspect, tmp_path / "slow.h5")


def test_odd_versions_and_damaged_members_are_told_in_one_line(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file.attrs.create("keras_version", b"2.\xff\xfe", dtype=h5py.string_dtype("utf-8", 4))
    with h5py.File(tmp_path / "numbers.h5", "w") as file:
        file.attrs["keras_version"] = np.arange(3)
        file.create_group("model_weights")
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, '{"keras_version": "3.3.3"}')
    packed = bytearray((tmp_path / "m.keras").read_bytes())
    packed[packed.index(b"metadata.json") + len("metadata.json")] = 0xFF  # the first byte of the deflated text
    (tmp_path / "m.keras").write_bytes(packed)
    for name in ("text.h5", "m.keras"):
        with pytest.raises(CorruptModelError, match=name) as caught:
            run(inspect, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert facts(tmp_path / "numbers.h5")["format"] == "Keras HDF5, Keras unknown"


def test_a_zip_archive_that_is_no_model_is_named_as_such(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    found = facts(tmp_path / "x.npz")
    assert (found["format"], found["members"]) == ("zip archive, not a Keras model", ["a.npy"])


def test_real_face_images_and_alignments_are_described(real_data: Path) -> None:
    face = facts(sorted((real_data / "faces" / "A").glob("*.png"))[0])
    assert (face["kind"], face["landmarks"], face["centering"]) == ("face image", 68, "head")
    alignments = facts(real_data / "clip_A_alignments.fsa")
    assert (alignments["kind"], alignments["faces"]) == ("alignments", 331)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"hello"), ("empty.onnx", b""), ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{"),
        ("cut.h5", b"\x89HDF\r\n\x1a\nxx"), ("cut.keras", b"PK\3\4"), ("cut.png", b"\x89PNG\r\n\x1a\n"),
        ("bad.fsa", b"x"),
        ("huge.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line_that_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FsdeployError, match=name) as caught:
        run(inspect, tmp_path / name)
    assert "\n" not in str(caught.value).strip()


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere"):
        run(inspect, tmp_path / "nowhere")


def test_restore_lists_what_there_is(folder: Path) -> None:
    points = json.loads(run(restore, folder, "--list", "--json").stdout)
    assert [(point["kind"], point["iterations"], point["has_optimizer"]) for point in points] == [
        ("backup", 1, True), ("snapshot", 2, True),
    ]  # fmt: skip
    assert "snapshot" in run(restore, folder, "--list").stdout


def test_restore_goes_back_and_forth_without_losing_a_set(folder: Path) -> None:
    first = json.loads(run(restore, folder, "--json").stdout)
    assert load_model(folder).iterations == 1
    assert load_model(Path(first["archive"])).iterations == 3
    second = json.loads(run(restore, folder, "--snapshot", 2, "--json").stdout)
    assert load_model(folder).iterations == 2
    assert load_model(Path(second["archive"])).iterations == 1
    assert load_model(Path(first["archive"])).iterations == 3


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_restore_of_the_present_state_says_so_and_writes_nothing(folder: Path) -> None:
    archive = Path(json.loads(run(restore, folder, "--json").stdout)["archive"])
    before = contents(folder)
    again = run(restore, folder)
    assert "is its present state: nothing to restore" in again.stdout
    assert json.loads(run(restore, folder, "--json").stdout) == {"restored": "backup", "archive": None}
    assert contents(folder) == before and archive.is_dir()


def test_restore_of_the_present_state_still_mends_a_damaged_optimizer_file(folder: Path) -> None:
    run(restore, folder)
    (folder / "tiny_optimizer.safetensors").write_bytes(b"")
    assert json.loads(run(restore, folder, "--json").stdout)["archive"] is not None
    assert "damaged" not in facts(folder)


def test_restore_mends_a_folder_whose_files_are_damaged(folder: Path) -> None:
    (folder / "tiny_state.json").write_text("{")
    run(restore, folder)
    assert "damaged" not in facts(folder)


def test_restore_refuses_what_does_not_exist_and_a_folder_in_use(folder: Path) -> None:
    with pytest.raises(InputError, match="no snapshot of iteration 9"):
        run(restore, folder, "--snapshot", 9)
    model = TinyModel(folder)
    with pytest.raises(InputError, match="in use"):
        run(restore, folder)
    model.close()
