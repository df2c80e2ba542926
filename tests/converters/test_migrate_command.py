"""`fsdeploy migrate` as a user meets it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_models import write_keras2

from fsdeploy.cli.migrate import migrate
from fsdeploy.errors import CheckFailedError, FsdeployError, InputError
from fsdeploy.images import read_image
from fsdeploy.model.folder import load_model
from fsdeploy.model.inference import Inference


@pytest.fixture
def old(tmp_path):
    """A folder with a small Keras 2 model and its state."""
    folder = tmp_path / "old"
    folder.mkdir()
    write_keras2(folder / "small.h5")
    state = {
        "name": "small",
        "sessions": {"1": {"timestamp": 5.0, "no_logs": True, "loss_names": ["total"], "batchsize": 4, "iterations": 70,
                           "config": {"learning_rate": 5e-05}}},
        "lowest_avg_loss": {"a": 0.25, "b": 0.5},
        "iterations": 70,
        "training_size": 256,
        "config": {"centering": "legacy", "coverage": 68.75, "mask_type": "facehull", "learn_mask": True,
                   "clipnorm": True, "loss_function_2": None, "allow_growth": False, "eye_multiplier": 3},
    }  # fmt: skip
    (folder / "small_state.json").write_text(json.dumps(state))
    return folder


def run(*arguments):
    return CliRunner().invoke(migrate, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_report_says_what_was_found_and_the_folder_loads(old, tmp_path):
    result = run(old, "-o", tmp_path / "new", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["plugin"], found["model_name"], found["iterations"]) == ("imported", "small", 70)
    assert found["outputs"] == [[3, 8, 8], [1, 8, 8]]
    assert [part["name"] for part in found["parts"]] == ["encoder", "decoder_a", "decoder_b"]
    assert found["parts"][0]["parameters"] == 456 + 1925 + 144 + 1760
    assert found["kept_under_legacy"] == ["config.allow_growth", "training_size"]
    model = load_model(tmp_path / "new")
    info = model.info()
    assert (info.input_size, info.output_size, info.has_mask, info.centering, info.coverage) == (
        16,
        8,
        True,
        "legacy",
        0.6875,
    )
    assert model.state.lowest_avg_loss == 0.75 and model.iterations == 70
    assert model.training.mask.mask_type == "components" and model.training.optimizer.gradient_clipping == "norm"
    assert list(model.state.sessions[1]) == ["timestamp", "no_logs", "batchsize", "iterations", "config"]
    assert model.state.legacy["sessions"] == {"1": {"loss_names": ["total"]}}


def test_a_few_options_without_meaning_are_named_and_many_are_counted(old, tmp_path):
    few = run(old, "-o", tmp_path / "few").stdout
    assert "kept under 'legacy' in the state file: config.allow_growth, training_size" in few
    path = old / "small_state.json"
    state = json.loads(path.read_text())
    state["config"].update({f"dec_filters_{number}": number for number in range(60)})
    path.write_text(json.dumps(state))
    many = run(old, "-o", tmp_path / "many").stdout
    assert "62 options (--json names them)" in many and "dec_filters" not in many
    assert len(many.splitlines()) == len(few.splitlines())
    found = json.loads(run(old, "--dry-run", "--json").stdout)
    assert "config.dec_filters_59" in found["kept_under_legacy"] and len(found["kept_under_legacy"]) == 62


def test_the_default_folder_lies_beside_the_source(old):
    assert run(old / "small.h5").exit_code == 0
    assert (old / "small_migrated" / "imported_state.json").is_file()
    with pytest.raises(InputError, match="exists already"):
        run(old / "small.h5")


def test_a_dry_run_writes_nothing(old, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert "not written" in run(old, "--dry-run").stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_write_leaves_no_folder(old, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fsdeploy.model.migrate.stream_tensors", full)
    with pytest.raises(FsdeployError, match="No space left"):
        run(old, "-o", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_an_empty_folder_is_filled_and_stays_the_folder_it_is(old, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir(mode=0o750)
    (tmp_path / "link").symlink_to(here)
    before = here.stat()
    monkeypatch.chdir(here)
    for output in (".", "", here, tmp_path / "link"):
        assert run(old, "-o", output).exit_code == 0
        assert load_model(here).iterations == 70
        names = sorted(path.name for path in here.iterdir())
        assert names == ["imported.safetensors", "imported_state.json"]
        for path in here.iterdir():
            path.unlink()
    assert (here.stat().st_ino, here.stat().st_mode) == (before.st_ino, before.st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_link_to_a_folder_that_is_not_there_yet_is_followed(old, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "far" / "new")
    assert run(old, "-o", tmp_path / "link").exit_code == 0
    assert (tmp_path / "link").is_symlink() and load_model(tmp_path / "far" / "new").iterations == 70


@pytest.mark.parametrize("failing", ["stream_tensors", "sync_folder"])
def test_a_failed_write_leaves_an_empty_folder_empty(old, tmp_path, monkeypatch, failing):
    (tmp_path / "new").mkdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"fsdeploy.model.migrate.{failing}", full)
    with pytest.raises(FsdeployError, match="No space left"):
        run(old, "-o", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("output", ["/", ".", "file", "full", "circle"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(old, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    before = sorted(tmp_path.rglob("*"))

    def read(*_):
        raise AssertionError("read before the folder was checked")

    monkeypatch.setattr("fsdeploy.model.migrate.open_migration", read)
    with pytest.raises(InputError, match="with -o"):
        run(old, "-o", output)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_root_is_no_model_and_gives_no_name(tmp_path):
    with pytest.raises(InputError, match="name the folder with -o"):
        run("/")
    with pytest.raises(FsdeployError, match="no known format"):
        run("/", "-o", tmp_path / "new")


def test_the_report_of_a_written_folder_survives_a_failed_export(old, tmp_path, monkeypatch):
    made = []

    def export_model(folder, target, swapped, settings):
        if made:
            raise InputError(f"cannot write {target}")
        made.append(target)
        return SimpleNamespace(path=target, sha256="0", max_difference=0.0)

    monkeypatch.setattr("fsdeploy.export.export_model", export_model)
    result = CliRunner().invoke(migrate, [str(old), "-o", str(tmp_path / "new"), "--export", "--json"])
    assert isinstance(result.exception, InputError)
    found = json.loads(result.stdout)
    assert found["output"] == str(tmp_path / "new") and found["iterations"] == 70
    assert [entry["path"] for entry in found["exported"]] == [str(made[0])]
    assert load_model(tmp_path / "new").iterations == 70


def swapped_faces(old, face):
    """What the model makes of (N, H, W, 3) faces of A: (N, 8, 8, 3)."""
    from fsdeploy.model.migrate import open_migration

    with open_migration(old) as migration, torch.inference_mode():
        feed = torch.from_numpy(face.transpose(0, 3, 1, 2).copy())
        return migration.network().swap(feed, 1)[0].permute(0, 2, 3, 1).numpy()


def test_the_models_own_outputs_are_its_reference(old, tmp_path):
    face = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    np.savez(tmp_path / "own.npz", input_a=face, a2b_0=swapped_faces(old, face))
    result = run(old, "--dry-run", "--reference", tmp_path / "own.npz", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["reference_difference"]["a2b_0"] < 1e-6


@pytest.mark.parametrize("case", ["nan", "inf", "nan input", "text", "objects", "complex", "one value", "one face"])
def test_a_reference_that_compares_nothing_is_refused(old, tmp_path, case):
    face = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    good = swapped_faces(old, face)
    odd = np.where(np.arange(8)[:, None] == 3, np.float32(np.inf if case == "inf" else np.nan), good)
    arrays = {
        "nan": (face, odd), "inf": (face, odd), "nan input": (face * np.float32("nan"), good),
        "text": (face, good.astype(str)), "objects": (face, good.astype(object)),
        "complex": (face, good.astype(np.complex64)), "one value": (face, good.mean(keepdims=True)),
        "one face": (face, good[:1]),
    }[case]  # fmt: skip
    np.savez(tmp_path / "odd.npz", input_a=arrays[0], a2b_0=arrays[1])
    with pytest.raises(InputError, match=r"odd\.npz cannot be compared with"):
        run(old, "--dry-run", "--reference", tmp_path / "odd.npz")


def test_a_damaged_reference_is_refused(old, tmp_path):
    face = np.zeros((2, 16, 16, 3), np.float32)
    np.savez_compressed(tmp_path / "cut.npz", input_a=face, a2b_0=face)
    packed = bytearray((tmp_path / "cut.npz").read_bytes())
    start = 30 + int.from_bytes(packed[26:28], "little") + int.from_bytes(packed[28:30], "little")
    for place in range(start, start + 40):
        packed[place] ^= 0xFF
        (tmp_path / "cut.npz").write_bytes(packed)
        with pytest.raises(InputError, match=r"cut\.npz cannot be compared with"):
            run(old, "--dry-run", "--reference", tmp_path / "cut.npz")


def test_a_model_that_gives_nan_is_not_the_references_model(old, tmp_path, monkeypatch):
    face = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    np.savez(tmp_path / "own.npz", input_a=face, input_b=face, a2b_0=swapped_faces(old, face))
    nan = float("nan")
    monkeypatch.setattr("fsdeploy.model.reference._differences", lambda *_: {"a2b_0": 1e-9, "b2a_0": nan})
    result = CliRunner().invoke(migrate, [str(old), "--dry-run", "--reference", str(tmp_path / "own.npz"), "--json"])
    assert isinstance(result.exception, CheckFailedError)
    assert json.loads(result.stdout)["reference_difference"] == {"a2b_0": 1e-9, "b2a_0": None}


def test_the_sheet_shows_faces_as_a_and_as_b(old, tmp_path, real_data):
    sheet = tmp_path / "sheet.png"
    run(old, "--dry-run", "--preview", real_data / "faces", "-o", sheet)
    image = read_image(sheet)
    assert image.shape[1] == 3 * 192 and image.shape[0] > 2 * 192


def test_another_models_reference_is_noticed(old, tmp_path):
    face = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    np.savez(tmp_path / "other.npz", input_a=face, a2b_0=np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(CheckFailedError, match="not the same model"):
        run(old, "--dry-run", "--reference", tmp_path / "other.npz")


def test_an_imported_model_trains_on(old, tmp_path):
    run(old, "-o", tmp_path / "new")
    model = load_model(tmp_path / "new", predict=False)
    network = model.model.train()
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    face = torch.rand(2, 3, 16, 16)
    outputs = network([face, face])
    sum(output.square().mean() for side in outputs for output in side).backward()
    optimizer.step()
    changed = {name for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == set(before), "every parameter gets a gradient"
    model.io.save(is_exit=True)
    model.close()
    again = Inference(load_model(tmp_path / "new"), switch_sides=False)
    swap, mask = again(face)
    assert swap.shape == (2, 3, 8, 8) and mask.shape == (2, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(swap, network.eval().swap(face, 1)[0])


def test_both_directions_are_exported_at_once(old, tmp_path):
    pytest.importorskip("onnxruntime")
    result = run(old, "-o", tmp_path / "new", "--export", "--json")
    exported = json.loads(result.stdout)["exported"]
    assert [entry["path"].rpartition("/")[2] for entry in exported] == ["new_a2b.onnx", "new_b2a.onnx"]
    assert all(entry["max_difference"] <= 1e-4 for entry in exported)
