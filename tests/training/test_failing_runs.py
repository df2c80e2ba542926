"""Runs that end by an error, and errors that no run may end by. Nothing that was trained is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import PLAIN, FakeLoader, Folders, poisoned, run, start

from fsdeploy.errors import InputError
from fsdeploy.model.saved_set import FileSet
from fsdeploy.training.preview_sheets import PreviewSheets
from fsdeploy.training.train import NonFiniteLossError, Trainer


def test_what_was_trained_is_saved_when_the_faces_vanish(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    real = trainer.loader.__next__

    def draw() -> Any:
        if trainer.iterations == 3:
            raise InputError("none of its faces can be read any more")
        return real()

    monkeypatch.setattr(trainer, "loader", FakeLoader(trainer, draw))
    with pytest.raises(InputError, match="read any more"):
        run(trainer, 9)
    resumed = start(tmp_path, drawn_faces, PLAIN)
    assert resumed.iterations == 3
    resumed.close()


def adam_steps(folder: Path) -> set[float]:
    """What the saved optimizer has counted."""
    state = load_file(folder / "two_sizes_optimizer.safetensors")
    return {float(tensor) for name, tensor in state.items() if name.endswith("/step")}


def fail_in_training(trainer: Trainer, after: int, error: BaseException) -> None:
    """Have the step after so many iterations fail in the middle, gradients half made."""
    real = trainer.plugin.train_batch

    def train_batch(*arguments: Any) -> Any:
        if trainer.iterations == after:
            for parameter in trainer.model.model.parameters():
                parameter.grad = torch.full_like(parameter, 1e6)
            raise error
        return real(*arguments)

    trainer.plugin.train_batch = train_batch  # type: ignore[method-assign]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["device", "machine", "python"])
def test_what_was_trained_is_saved_with_the_optimizer_when_memory_runs_out(
    tmp_path: Path, drawn_faces: Folders, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    fail_in_training(trainer, 7, error)
    with pytest.raises(InputError, match=r"not enough .*memory.*lower --batch-size"):
        run(trainer, 20, save_interval=100)
    assert "iteration 7 was saved" in caplog.text
    resumed = start(tmp_path, drawn_faces, PLAIN)
    assert resumed.iterations == 7
    resumed.close()
    assert adam_steps(tmp_path) == {7.0}


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: unspecified"), ZeroDivisionError(), KeyboardInterrupt()])
def test_what_was_trained_is_saved_whatever_ends_a_run(
    tmp_path: Path, drawn_faces: Folders, error: BaseException
) -> None:
    trainer = start(tmp_path, drawn_faces, {**PLAIN, "gradient_accumulation": 3})
    fail_in_training(trainer, 7, error)
    with pytest.raises(type(error)):
        run(trainer, 20, save_interval=100)
    resumed = start(tmp_path, drawn_faces, {**PLAIN, "gradient_accumulation": 3})
    assert resumed.iterations == 7
    resumed.close()
    assert adam_steps(tmp_path) == {2.0}
    state = load_file(tmp_path / "two_sizes_optimizer.safetensors")
    assert not [name for name in state if "accumulated" in name], "half a backward pass is nothing to go on with"


def test_without_memory_for_the_optimizer_the_weights_are_saved(tmp_path: Path, drawn_faces: Folders) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    fail_in_training(trainer, 7, MemoryError())

    def state_tensors() -> Any:
        raise MemoryError

    trainer.optimizer.state_tensors = state_tensors  # type: ignore[method-assign]
    with pytest.raises(InputError, match="memory"):
        run(trainer, 20, save_interval=100)
    resumed = start(tmp_path, drawn_faces, PLAIN)
    assert resumed.iterations == 7
    resumed.close()


def test_the_first_error_is_shown_when_saving_fails_too(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fsdeploy.training.rescue._RETRY_S", 0.0)
    trainer = start(tmp_path, drawn_faces, PLAIN)
    fail_in_training(trainer, 3, ZeroDivisionError("first"))

    real = trainer.save

    def save(is_exit: bool = False, **options: Any) -> None:
        if is_exit:
            raise InputError("second")
        real()

    trainer.save = save  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError, match="first"):
        run(trainer, 9, save_interval=100)
    assert "could not be saved: second" in caplog.text


def spoil(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(trainer, "loader", FakeLoader(trainer, poisoned(trainer, at)))


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_iteration_before_a_loss_that_is_not_finite_is_saved(
    tmp_path: Path,
    drawn_faces: Folders,
    monkeypatch: pytest.MonkeyPatch,
    accumulation: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {**PLAIN, "gradient_accumulation": accumulation}
    run(start(tmp_path / "short", drawn_faces, options), 6)
    trainer = start(tmp_path / "m", drawn_faces, options)
    spoil(trainer, monkeypatch, 7)
    monkeypatch.setattr("fsdeploy.training.train._FETCH_INTERVAL_S", 3600)  # as on a GPU: it is noticed later
    with pytest.raises(NonFiniteLossError, match=r"iteration 7: loss A is nan \(mae\)") as failure:
        run(trainer, 9, save_interval=100)
    assert failure.value.exit_code == 1
    assert "iteration 6 was saved" in caplog.text
    expected, saved = (load_file(tmp_path / name / "two_sizes.safetensors") for name in ("short", "m"))
    learned = [name for name in expected if "norm" not in name]  # batch norm has seen the batches since
    assert all(torch.equal(expected[name], saved[name]) for name in learned)
    assert adam_steps(tmp_path / "m") == {6.0 // accumulation}
    resumed = start(tmp_path / "m", drawn_faces, options)
    assert (resumed.iterations, resumed.model.state.sessions[1]["iterations"]) == (6, 6)
    resumed.train_one_step(None)
    figures = resumed.fetch_figures()
    assert figures is not None
    assert figures.is_finite
    resumed.close()


def test_with_loss_scaling_too_the_iteration_before_is_saved(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """float16: the scaler skips an update whose gradients are not finite, and these are."""

    def scaled(folder: Path) -> Trainer:
        trainer = start(folder, drawn_faces, PLAIN)
        trainer.optimizer.scaler = torch.amp.GradScaler("cpu")
        return trainer

    run(scaled(tmp_path / "short"), 3)
    trainer = scaled(tmp_path / "m")
    real = trainer.optimizer.backward
    monkeypatch.setattr(
        trainer.optimizer, "backward", lambda loss: real(loss + torch.inf if trainer.iterations == 3 else loss)
    )
    monkeypatch.setattr("fsdeploy.training.train._FETCH_INTERVAL_S", 3600)
    with pytest.raises(NonFiniteLossError, match="iteration 4"):
        run(trainer, 9, save_interval=100)
    assert "iteration 3 was saved" in caplog.text
    expected, saved = (load_file(tmp_path / name / "two_sizes.safetensors") for name in ("short", "m"))
    learned = [name for name in expected if "norm" not in name]
    assert all(torch.equal(expected[name], saved[name]) for name in learned)
    assert adam_steps(tmp_path / "m") == {3.0}


def test_a_training_that_fell_apart_before_is_not_saved_over_a_good_one(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    spoil(trainer, monkeypatch, 7)
    trainer.model.state.lowest_avg_loss = 1e-6
    with pytest.raises(NonFiniteLossError):
        run(trainer, 9, save_interval=4)
    assert "had risen" in caplog.text
    resumed = start(tmp_path, drawn_faces, PLAIN)
    assert resumed.iterations == 4
    resumed.close()


def test_statistics_that_are_not_finite_are_not_saved(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    real, count = trainer.loader.__next__, 0

    def draw() -> Any:
        nonlocal count
        count += 1
        inputs, targets, meta = real()
        if count == 7:
            inputs[0].fill_(torch.nan)
        return inputs, targets, meta

    monkeypatch.setattr(trainer, "loader", FakeLoader(trainer, draw))
    with pytest.raises(NonFiniteLossError):
        run(trainer, 9, save_interval=4)
    assert "not finite: the last saved set stays" in caplog.text
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "two_sizes.safetensors").values())


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, InputError("none of its faces can be read any more")])
def test_a_preview_that_fails_is_warned_about_once_and_training_goes_on(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:  # fmt: skip
    def fail(*arguments: Any) -> Any:
        raise error

    film = {"timelapse_folders": drawn_faces, "timelapse_output": tmp_path / "film"}
    trainer = start(tmp_path, drawn_faces, PLAIN, preview=True, **film)
    monkeypatch.setattr(PreviewSheets, "_swap", fail)
    modes = [module.training for module in trainer.model.model.modules()]
    run(trainer, 9, save_interval=2, viewer=lambda image, name: None, timelapse=True)
    assert trainer.iterations == 9
    assert [module.training for module in trainer.model.model.modules()] == modes
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len([text for text in warnings if "the preview failed" in text]) == 1
    assert len([text for text in warnings if "the time-lapse failed" in text]) == 1


def test_a_viewer_and_a_film_that_cannot_be_written_do_not_end_training(tmp_path: Path, drawn_faces: Folders) -> None:
    options = {"timelapse_folders": drawn_faces, "timelapse_output": tmp_path / "film"}
    trainer = start(tmp_path / "m", drawn_faces, {**PLAIN, "preview_images": 2}, preview=True, **options)
    (tmp_path / "film").rmdir()
    (tmp_path / "film").write_text("a file where a folder was")

    def view(image: Any, name: str) -> None:
        raise InputError("cannot write training_preview.png: Permission denied")

    run(trainer, 5, save_interval=2, viewer=view, timelapse=True)
    assert trainer.iterations == 5


def break_saves(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, broken: Callable[[int], bool]) -> list[int]:
    """Have the folder fail in those writes (counted from 1, snapshots included); the iterations of each attempt."""
    commit, tried = FileSet.commit, []

    def fail_or_commit(target: FileSet, state: dict[str, Any], *arguments: Any) -> Any:
        if target.suffix == "":
            tried.append(int(state["iterations"]))
            if broken(len(tried)):
                raise InputError(f"cannot write {target.weights}: Stale file handle: check the folder")
        return commit(target, state, *arguments)

    monkeypatch.setattr(FileSet, "commit", fail_or_commit)
    monkeypatch.setattr("fsdeploy.training.rescue._RETRY_S", 0.0)
    return tried


def test_a_save_and_a_snapshot_that_fail_in_the_background_do_not_end_a_run(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN, snapshot_interval=5)
    tried = break_saves(monkeypatch, trainer, lambda attempt: attempt in (3, 4))
    run(trainer, 11, save_interval=3)
    assert tried == [1, 3, 5, 6, 9, 10, 11]
    assert caplog.text.count("Stale file handle") == 2
    assert [path.name for path in tmp_path.glob("*_snapshot_*")] == ["two_sizes_snapshot_10"]
    resumed = start(tmp_path, drawn_faces, PLAIN)
    assert resumed.iterations == 11
    resumed.close()


@pytest.mark.parametrize("ends_by_error", [False, True])
def test_the_last_save_waits_for_a_folder_that_is_away_for_a_while(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, ends_by_error: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    trainer = start(tmp_path, drawn_faces, PLAIN)
    tried = break_saves(monkeypatch, trainer, lambda attempt: attempt in (2, 3))
    if ends_by_error:
        fail_in_training(trainer, 5, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError) if ends_by_error else nullcontext():
        run(trainer, 9 if ends_by_error else 5, save_interval=100)
    assert tried == [1, 5, 5, 5]
    assert "still in memory, and saving is tried again for" in caplog.text
    resumed = start(tmp_path, drawn_faces, PLAIN)
    assert resumed.iterations == 5
    resumed.close()
    assert adam_steps(tmp_path) == {5.0}


def test_a_folder_that_cannot_be_written_from_the_start_ends_the_run_at_once(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    tried = break_saves(monkeypatch, trainer, lambda attempt: True)
    with pytest.raises(InputError, match="Stale file handle"):
        run(trainer, 1000, save_interval=3)
    assert len(tried) == 2
    assert trainer.iterations <= 4
