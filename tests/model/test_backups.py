"""Backups and snapshots: which sets are kept, what they hold, and going back to them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_model import CountingOptimizer, TinyModel, train, value_of

from fsdeploy.errors import InputError
from fsdeploy.model.backup import Backup


def test_the_lowest_average_loss_is_kept_as_backup(trained: Path) -> None:
    backup = safetensors.torch.load_file(trained / "tiny.safetensors.bk")
    assert {float(tensor.max()) for tensor in backup.values()} == {1.0}
    state = json.loads((trained / "tiny_state.json").read_text())
    assert (state["iterations"], state["lowest_avg_loss"]) == (2, 0.5)
    assert json.loads((trained / "tiny_state.json.bk").read_text())["lowest_avg_loss"] == 0.5


def backup_state(folder: Path) -> tuple[int, float]:
    """(iterations, lowest average) of the backup."""
    state = json.loads((folder / "tiny_state.json.bk").read_text())
    return state["iterations"], state["lowest_avg_loss"]


def test_a_single_easy_batch_is_no_record(folder: Path) -> None:
    model = TinyModel(folder)
    model.build()
    train(model, 0.01, losses=1)
    assert backup_state(folder) == (1, 0.0), "the first save of a model is kept, whatever its loss"
    for loss, losses, expected in (
        (0.30, 99, (2, (0.01 + 99 * 0.30) / 100)),  # the first batch counts in a longer average
        (0.02, 1, (2, 0.2971)),  # an exit right after a save, say
        (0.25, 59, (4, (0.02 + 59 * 0.25) / 60)),
        (0.26, 60, (4, (0.02 + 59 * 0.25) / 60)),
    ):
        train(model, loss, losses=losses)
        iterations, lowest = backup_state(folder)
        assert (iterations, lowest) == (expected[0], pytest.approx(expected[1]))
    model.close()


def test_saves_that_are_close_together_share_an_average(folder: Path) -> None:
    model = TinyModel(folder)
    model.build()
    for iterations, loss in ((2, 0.5), (4, 0.4), (6, 0.3), (8, 0.2)):
        for _ in range(2):
            train(model, loss, losses=25)
        assert backup_state(folder) == (iterations, pytest.approx(loss))
    model.close()


def test_a_snapshot_holds_the_weights_of_its_name_and_the_logs(trained: Path) -> None:
    (trained / "tiny_logs" / "session_1").mkdir(parents=True)
    (trained / "tiny_logs" / "session_1" / "events").write_text("log")
    model = TinyModel(trained)
    model.build()
    model.state.increment_iterations()
    with torch.no_grad():
        for tensor in model.model.parameters():
            tensor.fill_(3.0)
    model.io.snapshot(CountingOptimizer(3))
    model.close()
    assert value_of(trained / "tiny_snapshot_3") == (3.0, 3)
    assert (trained / "tiny_snapshot_3" / "tiny_logs" / "session_1" / "events").read_text() == "log"
    assert value_of(trained) == (2.0, 2)


def test_restore_brings_the_backup_back_and_archives_the_present_set_and_newer_logs(trained: Path) -> None:
    model = TinyModel(trained)
    model.build()
    train(model, loss=2.0)
    for session in (1, 2):
        (trained / "tiny_logs" / f"session_{session}").mkdir(parents=True)
    archive = Backup(trained, "tiny").restore()
    assert value_of(trained) == (1.0, 1)
    assert value_of(archive) == (3.0, 3)
    assert [path.name for path in (archive / "tiny_logs").iterdir()] == ["session_2"]
    assert [path.name for path in (trained / "tiny_logs").iterdir()] == ["session_1"]


def test_restore_brings_a_snapshot_back(trained: Path) -> None:
    model = TinyModel(trained)
    model.build()
    model.io.snapshot()
    train(model)
    assert [(point.kind, point.iterations) for point in Backup(trained, "tiny").restore_points()] == [
        ("backup", 1), ("snapshot", 2),
    ]  # fmt: skip
    Backup(trained, "tiny").restore(2)
    assert value_of(trained) == (2.0, 2)
    with pytest.raises(InputError, match="no snapshot of iteration 5"):
        Backup(trained, "tiny").restore(5)


def log(folder: Path, name: str, content: str, minutes_ago: int) -> Path:
    """A log file that was written that long ago."""
    path = folder / "tiny_logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (1_700_000_000 - 60 * minutes_ago,) * 2)
    return path


def test_snapshots_share_the_logs_that_are_finished_and_keep_what_was_in_the_growing_one(trained: Path) -> None:
    finished = [log(trained, f"session_{n}/train/events.{n}", f"log {n}", 60 - n) for n in (1, 2)]
    growing = log(trained, "session_2/train/events.3", "log 3", 1)
    model = TinyModel(trained)
    model.build()
    model.io.snapshot()
    model.close()
    with growing.open("a") as stream:
        stream.write(" and more")
    logs = trained / "tiny_snapshot_2" / "tiny_logs"
    assert {str(path.relative_to(logs)): path.read_text() for path in logs.rglob("events*")} == {
        "session_1/train/events.1": "log 1", "session_2/train/events.2": "log 2", "session_2/train/events.3": "log 3",
    }  # fmt: skip
    for path in finished:
        assert path.samefile(logs / path.relative_to(trained / "tiny_logs"))
        path.unlink()  # a user who tidies up takes nothing from the snapshot
    assert (logs / "session_1" / "train" / "events.1").read_text() == "log 1"


def test_snapshots_copy_logs_where_a_file_system_has_no_links(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*paths: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    files = [log(trained, f"session_1/events.{n}", f"log {n}", 60 - n) for n in (1, 2)]
    model = TinyModel(trained)
    model.build()
    model.io.snapshot()
    model.close()
    for path in files:
        copy = trained / "tiny_snapshot_2" / path.relative_to(trained)
        assert copy.read_text() == path.read_text()
        assert not copy.samefile(path)
