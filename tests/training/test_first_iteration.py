"""Runs that end by an error before they have trained anything: the folder is as it was before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from small_runs import PLAIN, FakeLoader, Folders, poisoned, run, start
from training_process import TINY

from fsdeploy.cli.train import train
from fsdeploy.errors import InputError
from fsdeploy.training.registry import trainer_class
from fsdeploy.training.train import NonFiniteLossError


def invoke(model: Path, faces: Folders, *more: object) -> BaseException | None:
    arguments = ["-A", faces[0], "-B", faces[1], "-m", model, *TINY, "-i", 3, "-q", *more]
    return CliRunner().invoke(train, [str(argument) for argument in arguments], standalone_mode=False).exception


def fail(*arguments: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_new_model_that_does_not_fit_into_memory_leaves_no_folder(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says to choose a smaller model: that must go into the same folder."""
    monkeypatch.setattr(trainer_class("original"), "train_batch", fail)
    looks = ["-w", "-x", drawn_faces[0], "-y", drawn_faces[1]]
    error = invoke(tmp_path / "model", drawn_faces, *looks)
    assert isinstance(error, InputError)
    assert "memory" in str(error)
    assert not (tmp_path / "model").exists()


def test_a_new_model_whose_first_loss_is_not_finite_is_not_saved(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = start(tmp_path, drawn_faces, PLAIN)
    monkeypatch.setattr(trainer, "loader", FakeLoader(trainer, poisoned(trainer, 1)))
    with pytest.raises(NonFiniteLossError):
        run(trainer, 5)
    assert not trainer.model.io.model_exists
    assert "was saved" not in caplog.text


def test_a_file_that_somebody_put_into_the_new_folder_stays(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note_and_fail(*arguments: Any) -> Any:
        (tmp_path / "model" / "notes.txt").write_text("mine")
        fail()

    monkeypatch.setattr(trainer_class("original"), "train_batch", note_and_fail)
    assert isinstance(invoke(tmp_path / "model", drawn_faces), InputError)
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("is_spoilt", [False, True])
def test_a_resumed_model_stays_as_it_was(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, is_spoilt: bool
) -> None:
    run(start(tmp_path, drawn_faces, PLAIN), 3)
    before = contents(tmp_path)
    trainer = start(tmp_path, drawn_faces, PLAIN)
    if is_spoilt:
        monkeypatch.setattr(trainer, "loader", FakeLoader(trainer, poisoned(trainer, 1)))
    else:
        monkeypatch.setattr(trainer.plugin, "train_batch", fail)
    with pytest.raises(NonFiniteLossError if is_spoilt else InputError):
        run(trainer, 3)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before if name.startswith("two_sizes"))
