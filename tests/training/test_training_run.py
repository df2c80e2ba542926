"""Whole runs of a small model: resuming, protection, snapshots, precision, frozen parts, requests."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import PLAIN, FakeLoader, Folders, poisoned, run, start

from fsdeploy.errors import ConfigError, InputError
from fsdeploy.model.backup import Backup
from fsdeploy.training import session
from fsdeploy.training.requests import Requests

EVERYTHING: dict[str, Any] = {
    "num_processes": 2, "learn_mask": True, "loss_function": "ssim", "loss_function_2": "ffl", "loss_weight_2": 50,
    "loss_function_3": "laploss", "loss_weight_3": 25, "loss_function_4": "l_inf_norm", "loss_weight_4": 10,
    "gradient_clipping": "autoclip", "autoclip_history": 5, "gradient_accumulation": 2, "optimizer": "adabelief",
    "epsilon_exponent": -16, "learning_rate": 1e-3, "weight_decay": 0.01, "preview_images": 2,
}  # fmt: skip


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    weights = load_file(folder / "two_sizes.safetensors")
    return weights | load_file(folder / "two_sizes_optimizer.safetensors")


@pytest.mark.parametrize("first", [5, 8])
def test_a_run_in_two_parts_equals_one_run_to_the_bit(tmp_path: Path, drawn_faces: Folders, first: int) -> None:
    settings: dict[str, Any] = {"snapshot_interval": 4, "warmup_steps": 5}
    # The whole run makes previews as well, which must leave no trace in the weights.
    whole_run = start(tmp_path / "whole", drawn_faces, EVERYTHING, preview=True, **settings)
    run(whole_run, 13, save_interval=4, viewer=lambda image, name: None)
    run(start(tmp_path / "parts", drawn_faces, EVERYTHING, **settings), first, save_interval=3)
    torch.manual_seed(99)  # the second run gets its random numbers from the state, not from the process
    resumed = start(tmp_path / "parts", drawn_faces, EVERYTHING, seed=None, **settings)
    assert resumed.iterations == first
    run(resumed, 13 - first, save_interval=2)
    whole, parts = saved_tensors(tmp_path / "whole"), saved_tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    different = [name for name in whole if not torch.equal(whole[name], parts[name])]
    assert not different
    assert any("accumulated_grad" in name for name in whole)


def test_a_run_in_the_memory_layout_of_gpus_is_saved_and_resumed_exactly(tmp_path: Path, drawn_faces: Folders) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    trainer.model.model.to(memory_format=torch.channels_last)
    run(trainer, 2)
    resumed = start(tmp_path, drawn_faces, PLAIN)
    resumed.model.model.to(memory_format=torch.channels_last)
    resumed.close()
    pairs = zip(trainer.model.model.parameters(), resumed.model.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    first, second = trainer.optimizer.state_tensors()[0], resumed.optimizer.state_tensors()[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_snapshots_bear_the_iteration_they_hold(tmp_path: Path, drawn_faces: Folders) -> None:
    run(start(tmp_path, drawn_faces, PLAIN, snapshot_interval=3), 7)
    points = [point for point in Backup(tmp_path, "two_sizes").restore_points() if point.kind == "snapshot"]
    assert [point.iterations for point in points] == [6, 3]
    assert all(point.has_optimizer and not point.problem for point in points)


def test_the_state_counts_sessions_and_iterations(tmp_path: Path, drawn_faces: Folders) -> None:
    run(start(tmp_path, drawn_faces, PLAIN), 2)
    run(start(tmp_path, drawn_faces, {**PLAIN, "learning_rate": 2e-4}, batch_size=4), 3)
    state = json.loads((tmp_path / "two_sizes_state.json").read_text())
    assert state["iterations"] == 5
    assert [(s["batchsize"], s["iterations"]) for s in state["sessions"].values()] == [(3, 2), (4, 3)]
    assert state["sessions"]["2"]["config"]["learning_rate"] == 2e-4


def test_the_loss_falls(drawn_faces: Folders) -> None:
    trainer = start(None, drawn_faces, {**PLAIN, "learning_rate": 5e-3})
    totals = []
    for _ in range(40):
        trainer.train_one_step(None)
        figures = trainer.fetch_figures()
        assert figures is not None
        totals.append(sum(figures.totals))
    trainer.close()
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])


def test_without_protection_training_goes_on(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(tmp_path, drawn_faces, {**PLAIN, "nan_protection": False})
    monkeypatch.setattr(trainer, "loader", FakeLoader(trainer, poisoned(trainer, 2)))
    run(trainer, 3)
    assert trainer.iterations == 3


def test_frozen_parts_do_not_change_and_a_later_run_trains_them(tmp_path: Path, drawn_faces: Folders) -> None:
    run(start(tmp_path, drawn_faces, PLAIN), 2)
    before = load_file(tmp_path / "two_sizes.safetensors")
    run(start(tmp_path, drawn_faces, PLAIN, model_options={"freeze_weights": True}), 2)
    frozen = load_file(tmp_path / "two_sizes.safetensors")
    assert torch.equal(before["encoder.conv.weight"], frozen["encoder.conv.weight"])
    assert not torch.equal(before["decoder_a.face_out.weight"], frozen["decoder_a.face_out.weight"])
    run(start(tmp_path, drawn_faces, PLAIN), 2)
    assert not torch.equal(
        frozen["encoder.conv.weight"], load_file(tmp_path / "two_sizes.safetensors")["encoder.conv.weight"]
    )


def test_precision_can_change_between_runs(tmp_path: Path, drawn_faces: Folders) -> None:
    for mixed in (False, True, False):
        trainer = run(start(tmp_path, drawn_faces, {**PLAIN, "mixed_precision": mixed}), 2)
        assert trainer.model.settings.use_mixed_precision == mixed
    assert trainer.iterations == 6
    assert {tensor.dtype for tensor in load_file(tmp_path / "two_sizes.safetensors").values()} <= {
        torch.float32,
        torch.int64,
    }


@pytest.mark.parametrize(
    ("mode", "periodic", "final"), [("never", False, False), ("exit", False, True), ("always", True, True)]
)
def test_optimizer_state_is_saved_when_the_user_wants_it(
    tmp_path: Path, drawn_faces: Folders, mode: str, periodic: bool, final: bool
) -> None:
    trainer = start(tmp_path, drawn_faces, {**PLAIN, "save_optimizer": mode})
    trainer.train_one_step(None)
    trainer.save()
    trainer.model.io.wait()
    assert (tmp_path / "two_sizes_optimizer.safetensors").exists() == periodic
    trainer.save(is_exit=True)
    trainer.close()
    assert (tmp_path / "two_sizes_optimizer.safetensors").exists() == final


def test_another_loss_configuration_starts_a_new_lowest_average(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdeploy.model.io.FEWEST_AVERAGED", 2)
    run(start(tmp_path, drawn_faces, PLAIN), 2)
    same = start(tmp_path, drawn_faces, PLAIN)
    assert same.model.state.lowest_avg_loss > 0
    same.close()
    other = start(tmp_path, drawn_faces, {**PLAIN, "loss_function": "ssim"})
    assert other.model.state.lowest_avg_loss == 0
    other.close()


def test_requests_save_and_end_a_run(tmp_path: Path, drawn_faces: Folders) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    requests = Requests()
    step, saves = trainer.train_one_step, []
    save = trainer.save

    def train_one_step(*arguments: Any) -> None:
        step(*arguments)
        if trainer.iterations == 3:
            requests.save.set()
        if trainer.iterations == 5:
            requests.stop.set()

    def note_save(is_exit: bool = False, with_optimizer: bool = True) -> None:
        saves.append((trainer.iterations, is_exit))
        save(is_exit, with_optimizer)

    trainer.train_one_step, trainer.save = train_one_step, note_save  # type: ignore[method-assign]
    session.run(trainer, requests, quiet=True)
    trainer.close()
    assert saves == [(1, False), (3, False), (5, True)]


def test_too_few_faces_are_refused_by_name(tmp_path: Path, drawn_faces: Folders) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(drawn_faces[1].iterdir())[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"few holds 3 usable faces, 25 are needed"):
        start(None, (drawn_faces[0], few), PLAIN)


def test_a_loss_that_the_model_is_too_small_for_is_refused(drawn_faces: Folders) -> None:
    with pytest.raises(ConfigError, match="ms_ssim"):
        start(None, drawn_faces, {**PLAIN, "loss_function": "ms_ssim"})


def test_torch_compile_that_cannot_work_is_left_out_with_a_warning(
    drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        def fail(*inputs: Any) -> Any:
            raise RuntimeError("no compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *a, **k: None)
    trainer = start(None, drawn_faces, PLAIN, compile_network=True)
    with caplog.at_level(logging.WARNING):
        trainer.train_one_step(None)
    trainer.close()
    assert "no compiler here" in caplog.text
    assert trainer.iterations == 1


def test_torch_compile_that_worked_once_is_not_blamed_later(
    drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *a, **k: None)
    trainer = start(None, drawn_faces, PLAIN, compile_network=True)
    trainer.train_one_step(None)

    def train_batch(*arguments: Any) -> Any:
        raise RuntimeError("the device is gone")

    trainer.plugin.train_batch = train_batch  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the device is gone"):
        trainer.train_one_step(None)
    trainer.close()
    assert "torch.compile" not in caplog.text


def test_previews_show_the_same_faces_until_others_are_asked_for(tmp_path: Path, drawn_faces: Folders) -> None:
    trainer = start(tmp_path, drawn_faces, {**PLAIN, "preview_images": 2}, preview=True)
    sheets: list[Any] = []

    def look() -> Any:
        trainer.train_one_step(lambda image, name: sheets.append(image))
        height, width = sheets[-1].shape[:2]
        return sheets[-1][height // 2 :, : width // 6]  # the last face of A itself, which no weights touch

    first = look()
    for is_same in (False, True):  # the overlay, and without it again
        trainer.toggle_mask()
        assert (look() == first).all() == is_same
    trainer.refresh_preview()
    other = look()
    assert (other != first).any()
    assert (look() == other).all()
    trainer.close()


def test_a_time_lapse_without_faces_is_refused_before_learning_rates_are_searched(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*arguments: Any) -> float:
        raise AssertionError("minutes of searching for nothing")

    monkeypatch.setattr("fsdeploy.training.optimizer.Optimizer.find_learning_rate", search)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        start(None, drawn_faces, PLAIN, lr_finder=True, timelapse_folders=(drawn_faces[0], tmp_path / "empty"))
