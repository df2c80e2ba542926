"""Saving, loading, falling back: what is in the folder after each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_model import ALWAYS, CountingOptimizer, TinyModel, TinyOptions, train, value_of

from fsdeploy.config.training import (
    FaceOptions,
    LossOptions,
    MaskOptions,
    OptimizerOptions,
    TrainingOptions,
)  # fmt: skip
from fsdeploy.errors import CorruptModelError, InputError, UnknownModelError
from fsdeploy.model.folder import load_model, write_model_folder
from fsdeploy.model.network import SwapNetwork
from fsdeploy.model.saved_set import read_state


def test_a_saved_model_loads_with_its_weights_options_and_iterations(folder: Path) -> None:
    model = TinyModel(folder, TinyOptions(width=6), TrainingOptions(mask=MaskOptions(learn_mask=True)))
    model.build()
    face = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        before = model.model.swap(face, 1)
    model.state.increment_iterations()
    model.io.save(is_exit=True)
    loaded = load_model(folder)
    after = loaded.model.swap(face, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (loaded.options.width, loaded.iterations, len(after)) == (6, 1, 2)
    assert not loaded.model.training
    assert not any(tensor.requires_grad for tensor in loaded.model.parameters())


def test_the_folder_holds_the_documented_names(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        ".tiny.lock", "tiny.safetensors", "tiny.safetensors.bk", "tiny_optimizer.safetensors",
        "tiny_optimizer.safetensors.bk", "tiny_state.json", "tiny_state.json.bk",
    ]  # fmt: skip


def test_plain_safetensors_reads_the_weights_as_float32(trained: Path) -> None:
    tensors = safetensors.torch.load_file(trained / "tiny.safetensors")
    assert set(tensors) == set(load_model(trained).model.state_dict())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_all_files_have_the_permissions_that_the_user_gives_new_files(trained: Path) -> None:
    (trained / "other").touch()
    expected = (trained / "other").stat().st_mode
    assert {path.stat().st_mode for path in trained.glob("tiny*")} == {expected}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list a process's mappings")
def test_a_loaded_model_holds_on_to_no_file(trained: Path) -> None:
    model = TinyModel(trained)
    model.build()
    optimizer = model.io.load_optimizer()
    assert optimizer is not None
    assert str(trained) not in Path("/proc/self/maps").read_text()


def test_constants_that_are_not_saved_are_there_after_loading(folder: Path) -> None:
    class WithConstant(TinyModel):
        def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
            network = super().build_model(inputs)
            network.register_buffer("scale", torch.tensor([2.0, 3.0]), persistent=False)
            return network

    WithConstant.name = "tiny"
    model = WithConstant(folder)
    model.build()
    train(model)
    loaded = WithConstant(folder, predict=True)
    loaded.build()
    assert loaded.model.scale.tolist() == [2.0, 3.0]
    assert float(next(loaded.model.parameters()).max()) == 1.0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 4
    path.write_bytes(bytes(data))


def flip_a_digit(path: Path) -> None:
    path.write_text(path.read_text().replace('"iterations": 2', '"iterations": 6', 1))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, Path.unlink])
def test_damaged_weights_are_replaced_by_the_last_good_set_with_a_message(
    trained: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    damage(trained / "tiny.safetensors")
    assert value_of(trained) == (1.0, 1)
    assert "tiny.safetensors is missing or damaged" in caplog.text
    assert "last good set" in caplog.text
    assert "iteration 1" in caplog.text


@pytest.mark.parametrize("damage", [truncate, flip_a_digit, empty, Path.unlink])
def test_a_damaged_state_file_is_replaced_by_the_last_good_set_with_a_message(
    trained: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    damage(trained / "tiny_state.json")
    assert value_of(trained) == (1.0, 1)
    assert "tiny_state.json" in caplog.text


def test_every_single_flipped_bit_of_the_state_file_is_noticed_or_harmless(trained: Path) -> None:
    path = trained / "tiny_state.json"
    good = path.read_bytes()
    state = read_state(path)
    for position in range(0, len(good), 7):
        data = bytearray(good)
        data[position] ^= 1 << position % 8
        path.write_bytes(bytes(data))
        try:
            found = read_state(path)
        except CorruptModelError:
            continue
        assert found == state


def test_a_damaged_optimizer_file_costs_only_the_optimizer_state(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip_a_bit(trained / "tiny_optimizer.safetensors")
    model = TinyModel(trained)
    assert (model.iterations, model.io.load_optimizer()) == (2, None)
    assert "optimizer state starts fresh" in caplog.text


def test_without_any_good_set_the_error_names_the_files(trained: Path) -> None:
    for name in ("tiny.safetensors", "tiny.safetensors.bk"):
        truncate(trained / name)
    with pytest.raises(CorruptModelError, match=r"no set .* can be used.*tiny\.safetensors .*tiny\.safetensors\.bk"):
        load_model(trained)


def test_the_newest_good_one_of_backup_and_snapshots_replaces_a_damaged_set(trained: Path) -> None:
    model = TinyModel(trained)
    model.build()
    model.io.snapshot()
    model.close()
    truncate(trained / "tiny.safetensors")
    assert value_of(trained) == (2.0, 2)
    truncate(trained / "tiny_snapshot_2" / "tiny.safetensors")
    assert value_of(trained) == (1.0, 1)


def test_training_after_a_fall_back_writes_a_good_set_again(trained: Path) -> None:
    truncate(trained / "tiny.safetensors")
    model = TinyModel(trained)
    model.build()
    train(model)
    assert value_of(trained) == (2.0, 2)


def test_after_a_fall_back_no_optimizer_file_of_another_set_is_taken_over(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truncate(trained / "tiny.safetensors")
    model = TinyModel(trained)
    model.build()
    train(model)  # without the optimizer
    model.close()
    caplog.clear()
    assert TinyModel(trained).io.load_optimizer() is None
    assert "damaged" not in caplog.text
    assert "no optimizer state was saved with iteration 2" in caplog.text


def test_a_state_file_of_another_program_points_to_migrate(tmp_path: Path) -> None:
    (tmp_path / "tiny_state.json").write_text('{"name": "tiny", "sessions": {}, "config": {}}')
    with pytest.raises(CorruptModelError, match="fsdeploy migrate"):
        load_model(tmp_path)


def test_an_edited_state_file_loads_once_its_digest_is_emptied(trained: Path) -> None:
    path = trained / "tiny_state.json"
    state = json.loads(path.read_text())
    state["config"]["pace"] = 1.5
    state["fsdeploy"]["digest"] = ""
    path.write_text(json.dumps(state))
    assert load_model(trained).options.pace == 1.5


def test_the_optimizer_is_saved_as_the_option_says(folder: Path) -> None:
    for when, exit, expected in [("never", True, False), ("exit", False, False), ("exit", True, True)]:
        model = TinyModel(
            folder / f"{when}{exit}", training=TrainingOptions(optimizer=OptimizerOptions(save_optimizer=when))
        )
        model.build()
        train(model, optimizer=CountingOptimizer(7), exit=exit)
        model.close()
        again = TinyModel(folder / f"{when}{exit}")
        found = again.io.load_optimizer()
        assert (found is not None) is expected
        if found is not None:
            assert found["metadata"] == {"value": 7}
            assert torch.equal(found["tensors"]["encoder.conv.weight/exp_avg"], torch.full((16,), 7.0))
        again.close()


def test_a_save_without_optimizer_keeps_the_one_of_the_last_exit_beside_newer_weights(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = TinyModel(folder)
    model.build()
    train(model, optimizer=CountingOptimizer(1), exit=True)
    train(model, optimizer=CountingOptimizer(2), exit=False)
    model.close()
    records = read_state(folder / "tiny_state.json")["fsdeploy"]["files"]
    assert {name: record["iterations"] for name, record in records.items()} == {
        "tiny.safetensors": 2, "tiny_optimizer.safetensors": 1,
    }  # fmt: skip
    again = TinyModel(folder)
    optimizer = again.io.load_optimizer()
    assert optimizer is not None
    assert optimizer["metadata"] == {"value": 1}
    assert optimizer["behind"] == 1
    assert "the optimizer state is of iteration 1, the weights are of 2" in caplog.text
    assert "save_optimizer" in caplog.text
    again.close()


def test_weights_that_were_saved_without_an_optimizer_are_resumed_with_a_word_about_it(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for when, said in (("exit", True), ("never", False)):
        options = TrainingOptions(optimizer=OptimizerOptions(save_optimizer=when))
        model = TinyModel(folder / when, training=options)
        model.build()
        assert model.io.load_optimizer() is None
        assert not caplog.records, "a new model has nothing to resume"
        train(model, optimizer=CountingOptimizer(1), exit=False)
        model.close()
        caplog.clear()
        again = TinyModel(folder / when, training=options)
        assert again.io.load_optimizer() is None
        assert ("no optimizer state was saved with iteration 1" in caplog.text) is said
        again.close()
        caplog.clear()


def test_an_optimizer_of_the_same_iteration_is_resumed_without_a_word(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = TinyModel(trained)
    optimizer = model.io.load_optimizer()
    assert optimizer is not None
    assert optimizer["behind"] == 0
    assert not caplog.records


def test_training_on_goes_on_while_a_save_is_written_and_does_not_change_it(folder: Path) -> None:
    model = TinyModel(folder)
    model.build()
    train(model)
    model.io.save()
    with torch.no_grad():
        for tensor in model.model.parameters():
            tensor.fill_(99.0)
    model.close()
    assert value_of(folder) == (1.0, 1)


def test_a_second_training_on_a_folder_is_refused_with_the_pid_of_the_first(trained: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from fsdeploy.model.lock import FolderLock\n"
         "with FolderLock(Path(sys.argv[1]), 'tiny'): print('held', flush=True); input()", str(trained)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(InputError, match=f"in use by another training .pid {holder.pid} on "):
        TinyModel(trained)
    assert value_of(trained) == (2.0, 2), "reading needs no lock"
    holder.kill()
    holder.wait()
    TinyModel(trained).close()


def test_a_second_training_in_one_process_is_refused_too(trained: Path) -> None:
    first = TinyModel(trained)
    with pytest.raises(InputError, match="in use"):
        TinyModel(trained)
    first.close()
    TinyModel(trained).close()


def test_fixed_options_follow_the_model_and_changeable_ones_the_run(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = TrainingOptions(
        face=FaceOptions(coverage=87.5), loss=LossOptions(loss_function="mae"), optimizer=ALWAYS.optimizer
    )
    model = TinyModel(trained, TinyOptions(width=9, pace=0.5), run)
    assert (model.options.width, model.options.pace) == (4, 0.5)
    assert (model.training.face.coverage, model.training.loss.loss_function) == (100.0, "mae")
    assert "option 'coverage' is fixed" in caplog.text
    assert model.state.current_session["config"]["loss_function"] == "mae"
    assert "coverage" not in model.state.current_session["config"]


def test_a_folder_of_another_plugin_is_refused_by_name(trained: Path) -> None:
    from fsdeploy.model.registry import model_class

    with pytest.raises(InputError, match="holds a model of the plugin 'tiny', not of 'original'"):
        model_class("original")(trained)


def test_an_unknown_plugin_name_suggests_the_nearest() -> None:
    from fsdeploy.model.registry import model_class

    with pytest.raises(UnknownModelError, match="did you mean 'original'"):
        model_class("orignal")
    assert model_class("Light-Weight".replace("-", "")).name == "lightweight"


def test_a_plugin_whose_class_has_another_name_than_its_entry_point_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from fsdeploy.model import registry

    point = EntryPoint("mine", "fsdeploy_plugins.models.lightweight:Model", "fsdeploy.models")
    monkeypatch.setattr(registry, "entry_points", lambda group, name="mine": [point])
    with pytest.raises(UnknownModelError, match="'mine' calls itself 'lightweight'"):
        registry.model_class("mine")


def test_an_empty_or_missing_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "original.h5").write_bytes(b"x")
    (tmp_path / "original_state.json").write_text('{"name": "original"}')
    with pytest.raises(InputError, match="legacy model: run 'fsdeploy migrate'"):
        load_model(tmp_path)


def test_weights_of_other_options_are_refused_tensor_by_tensor(trained: Path) -> None:
    path = trained / "tiny_state.json"
    state = json.loads(path.read_text())
    state["config"]["width"] = 5
    state["fsdeploy"]["digest"] = ""
    path.write_text(json.dumps(state))
    with pytest.raises(CorruptModelError, match=r"encoder\.conv\.weight is \(4, 3, 5, 5\), not \(5, 3, 5, 5\)"):
        load_model(trained)


def test_a_folder_written_without_training_loads_and_keeps_unknown_keys(tmp_path: Path) -> None:
    source = TinyModel(None)
    source.build()
    legacy = {
        "name": "tiny",
        "sessions": {"1": {"timestamp": 1.5, "no_logs": False, "batchsize": 8, "iterations": 40, "config": {},
                           "loss_names": ["a", "b"]}},
        "lowest_avg_loss": {"a": 0.25, "b": 0.5},
        "iterations": 40,
        "inputs": {"face_in:0": [64, 64, 3]},
        "config": {"dssim_loss": True, "centering": "face", "coverage": 87.5, "subpixel_upscaling": False,
                   "mask_type": None, "learn_mask": False, "penalized_mask_loss": False},
    }  # fmt: skip
    optimizer = ({"encoder.conv.weight/exp_avg": torch.ones(4, 3, 5, 5)}, {"name": "adam"})
    write_model_folder(tmp_path / "m", legacy, source.model.state_dict(), optimizer, extra={"origin": "keras2"})
    loaded = TinyModel(tmp_path / "m")
    loaded.build()
    assert (loaded.iterations, loaded.state.lowest_avg_loss) == (40, 0.75)
    assert loaded.training.face.coverage == 87.5
    assert loaded.training.loss.loss_function == "ssim"
    assert loaded.state.config["subpixel_upscaling"] is False
    assert loaded.state.legacy == {"inputs": {"face_in:0": [64, 64, 3]}}
    assert loaded.state.extra["origin"] == "keras2"
    assert loaded.io.load_optimizer()["metadata"] == {"name": "adam"}  # type: ignore[index]
    with pytest.raises(InputError, match="holds a model 'tiny' already"):
        write_model_folder(tmp_path / "m", legacy, source.model.state_dict())
