"""Files that could not be used, or that others take the place of, stay somewhere in the folder, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import CountingOptimizer, TinyModel, train, value_of

from fsdeploy.model.backup import Backup
from fsdeploy.model.saved_set import FileSet


def resumed(folder: Path) -> TinyModel:
    model = TinyModel(folder)
    model.build()
    return model


def archives(folder: Path) -> list[Path]:
    return sorted(folder.glob("tiny_archived_*"))


def bytes_of(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def leave_unpublished(folder: Path, renamed: tuple[str, ...] = ()) -> None:
    """As if the last save had been interrupted after its commit, when only `renamed` had their public names."""
    for name in {"tiny.safetensors", "tiny_optimizer.safetensors", "tiny_state.json"} - set(renamed):
        (folder / f"{name}.new").write_bytes((folder / name).read_bytes())
        (folder / name).write_bytes((folder / f"{name}.bk").read_bytes())


def test_training_on_after_a_fall_back_keeps_the_intact_files_of_the_newer_set(trained: Path) -> None:
    (trained / "tiny_state.json").write_text("{")
    newer = bytes_of(trained, "tiny.safetensors", "tiny_optimizer.safetensors", "tiny_state.json")
    model = resumed(trained)
    assert not archives(trained), "looking changes nothing"
    train(model)
    train(model)
    model.close()
    (archive,) = archives(trained)
    assert bytes_of(archive, *newer) == newer
    assert value_of(trained) == (3.0, 3)


def test_a_save_without_its_state_is_kept_with_the_names_it_had(trained: Path) -> None:
    leave_unpublished(trained)
    for name in ("tiny_state.json", "tiny_state.json.new"):
        (trained / name).write_text("{")
    newest = bytes_of(trained, "tiny.safetensors.new")
    model = resumed(trained)
    train(model)
    model.close()
    (archive,) = archives(trained)
    assert bytes_of(archive, *newest) == newest


def test_a_damaged_optimizer_is_reported_until_the_next_save_and_kept(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (trained / "tiny_optimizer.safetensors").write_bytes(b"half")
    model = resumed(trained)
    assert "tiny_optimizer.safetensors is missing or damaged" in caplog.text
    train(model, exit=False)  # without the optimizer's state
    model.close()
    caplog.clear()
    assert (
        "tiny_optimizer.safetensors" not in json.loads((trained / "tiny_state.json").read_text())["fsdeploy"]["files"]
    )
    resumed(trained).close()
    assert "damaged" not in caplog.text
    (archive,) = archives(trained)
    assert [path.name for path in archive.iterdir()] == ["tiny_optimizer.safetensors"]
    assert value_of(trained) == (3.0, 3)


def test_a_missing_optimizer_leaves_no_empty_archive(trained: Path) -> None:
    (trained / "tiny_optimizer.safetensors").unlink()
    model = resumed(trained)
    train(model)
    model.close()
    assert not archives(trained)


def test_an_optimizer_saved_after_a_damaged_one_is_kept_beside_newer_weights(trained: Path) -> None:
    (trained / "tiny_optimizer.safetensors").write_bytes(b"half")
    model = resumed(trained)
    train(model, optimizer=CountingOptimizer(3))
    train(model, exit=False)
    model.close()
    again = TinyModel(trained)
    optimizer = again.io.load_optimizer()
    again.close()
    assert optimizer is not None
    assert optimizer["metadata"] == {"value": 3}


@pytest.mark.parametrize("renamed", [(), ("tiny.safetensors",), ("tiny.safetensors", "tiny_optimizer.safetensors")])
def test_restore_archives_a_committed_save_whose_renames_were_interrupted(
    trained: Path, renamed: tuple[str, ...]
) -> None:
    leave_unpublished(trained, renamed)
    assert value_of(trained) == (2.0, 2)
    archive = Backup(trained, "tiny").restore()
    assert value_of(trained) == (1.0, 1)
    assert value_of(archive) == (2.0, 2)
    assert FileSet(archive, "tiny").find().optimizer is not None


def test_going_back_to_a_snapshot_keeps_the_best_set_that_came_after_it(folder: Path) -> None:
    model = TinyModel(folder)
    model.build()
    train(model, 0.9)
    model.io.snapshot()
    train(model, 0.2)
    train(model, 0.5)
    model.close()
    archive = Backup(folder, "tiny").restore(1)
    model = resumed(folder)
    train(model, 0.8)
    model.close()
    assert FileSet(folder, "tiny", ".bk").find().state["lowest_avg_loss"] == pytest.approx(0.8)
    best = FileSet(archive, "tiny", ".bk").find()
    assert (best.state["iterations"], best.state["lowest_avg_loss"]) == (2, pytest.approx(0.2))
    assert [(point.kind, point.iterations) for point in Backup(archive, "tiny").restore_points()] == [("backup", 2)]
