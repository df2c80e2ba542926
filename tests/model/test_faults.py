"""What a save does when the machine works against it. docs/reliability.md lists the results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import CountingOptimizer, TinyModel

from fsdeploy.config.training import OptimizerOptions, TrainingOptions
from fsdeploy.errors import InputError
from fsdeploy.model.background import TOLERATED_SAVES
from fsdeploy.model.folder import load_model
from fsdeploy.model.io import FEWEST_AVERAGED
from fsdeploy.model.saved_set import FileSet

ROOT = Path(__file__).resolve().parents[2]
ALWAYS = TrainingOptions(optimizer=OptimizerOptions(save_optimizer="always"))


def kill(rounds: int) -> dict[str, object]:
    """What benchmarks/kill_during_saves.py reports."""
    script = [sys.executable, str(ROOT / "benchmarks" / "kill_during_saves.py"), "--json", "--rounds", str(rounds)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the experiment forks, which this system cannot")
def test_a_folder_loads_after_sigkill_at_random_moments_and_before_every_step_of_a_save() -> None:
    result = kill(rounds=20)
    assert (result["failures"], result["step_failures"]) == ([], [])
    assert int(str(result["saves"])) >= 10
    assert int(str(result["steps"])) > 20


def started(folder: Path) -> TinyModel:
    """A model that was saved once, at iteration 1."""
    model = TinyModel(folder, training=ALWAYS)
    model.build()
    model.state.increment_iterations()
    model.io.save(CountingOptimizer(1), is_exit=True)
    return model


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_save_fails_and_loses_nothing(model: TinyModel, folder: Path, message: str) -> None:
    before = names(folder)
    model.state.increment_iterations()
    model.add_history([0.1])
    with pytest.raises(InputError, match=message):
        model.io.save(CountingOptimizer(2), is_exit=True)
    model.close()
    assert names(folder) == before, "nothing half-written stays"
    assert load_model(folder).iterations == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.name == "nt" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_reported_and_the_last_good_set_loads(small_disk: Path) -> None:
    model = started(small_disk)
    (small_disk / "other").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
    assert_save_fails_and_loses_nothing(model, small_disk, "No space left on device.*free space")


def test_a_disk_that_is_full_for_a_while_is_warned_about_and_the_next_save_succeeds(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = started(small_disk)
    (small_disk / "other").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
    model.state.increment_iterations()
    model.add_history([0.1])
    model.io.save()
    model.io.save()  # waits for the one before
    model.io.snapshot()
    model.io._writes.join()
    assert caplog.text.count("No space left on device") == 2
    assert "the next save tries again" in caplog.text
    assert load_model(small_disk).iterations == 1
    (small_disk / "other").unlink()
    model.io.save()
    model.io.wait()
    model.close()
    assert load_model(small_disk).iterations == 2
    assert "without this snapshot" in caplog.text


class BrokenFolder:
    """A folder that cannot be written while `is_broken`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_broken = True
        commit = FileSet.commit

        def fail_or_commit(target: FileSet, *arguments: Any) -> Any:
            if self.is_broken:
                raise OSError(116, "Stale file handle")
            return commit(target, *arguments)

        monkeypatch.setattr(FileSet, "commit", fail_or_commit)


def test_the_first_save_of_a_run_has_to_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(tmp_path).close()
    model = TinyModel(tmp_path, training=ALWAYS)
    model.build()
    BrokenFolder(monkeypatch)
    model.io.save()
    with pytest.raises(OSError, match="Stale file handle"):
        model.io.snapshot()
    model.close()


def test_saves_that_fail_again_and_again_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = started(tmp_path)
    folder = BrokenFolder(monkeypatch)

    def save(is_broken: bool) -> None:
        folder.is_broken = is_broken
        model.io.save()
        model.io._writes.join()
        model.io.weigh_failure()

    for _ in range(2):
        save(is_broken=False)  # counted anew
        for _ in range(TOLERATED_SAVES - 1):
            save(is_broken=True)
    with pytest.raises(OSError, match="Stale file handle"):
        save(is_broken=True)
    model.close()


def test_a_lowest_average_counts_when_its_set_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = started(tmp_path)

    def save(loss: float) -> None:
        for _ in range(FEWEST_AVERAGED):
            model.add_history([loss])
        model.io.save()
        model.io._writes.join()

    save(0.5)
    folder = BrokenFolder(monkeypatch)
    save(0.2)
    assert model.state.lowest_avg_loss == 0.5
    folder.is_broken = False
    model.state.increment_iterations()
    save(0.4)
    model.close()
    assert model.state.lowest_avg_loss == pytest.approx(0.3), "over the losses of the save that failed, too"
    assert FileSet(tmp_path, "tiny", ".bk").find().state["iterations"] == 2


def test_a_save_that_could_not_even_be_prepared_costs_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = started(tmp_path)
    model.io.save()
    model.io._writes.join()
    for _ in range(FEWEST_AVERAGED):
        model.add_history([0.5])
    with monkeypatch.context() as patch:
        patch.setattr("fsdeploy.model.io.to_host", lambda *_: (_ for _ in ()).throw(InputError("no memory")))
        model.io.save()
    assert model.state.lowest_avg_loss == 0.0
    model.state.increment_iterations()
    model.io.save()
    model.close()
    backup = FileSet(tmp_path, "tiny", ".bk").find().state
    assert (backup["iterations"], backup["lowest_avg_loss"]) == (2, 0.5)


def test_an_error_of_the_program_in_a_background_save_is_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = started(tmp_path)
    model.io.save()
    model.io._writes.join()
    with monkeypatch.context() as patch:
        patch.setattr("fsdeploy.model.io.to_host", lambda *_: {}["odd"])
        model.io.save()
    model.close()
    record = next(record for record in caplog.records if "KeyError" in record.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_space_for_weights_but_not_for_the_optimizer_keeps_the_last_good_set(small_disk: Path) -> None:
    model = started(small_disk)

    class Large(CountingOptimizer):
        def state_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
            return {"moments": torch.zeros(1 << 17)}, {}

    model.state.increment_iterations()
    with pytest.raises(InputError, match=r"tiny_optimizer\.safetensors.*No space left on device"):
        model.io.save(Large(), is_exit=True)
    model.close()
    assert load_model(small_disk).iterations == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on file sizes per process")
def test_a_file_size_limit_is_reported_and_the_last_good_set_loads(tmp_path: Path) -> None:
    import resource

    model = started(tmp_path / "m")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        model.state.increment_iterations()
        with pytest.raises(InputError, match=r"cannot write .*tiny\.safetensors"):
            model.io.save(CountingOptimizer(2), is_exit=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    model.close()
    assert load_model(tmp_path / "m").iterations == 1


def test_a_folder_that_becomes_read_only_is_reported_and_still_loads(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    model = started(folder)
    if os.name == "nt":
        pytest.skip("folders have no write permission bit here")
    if os.geteuid():
        folder.chmod(0o500)
    elif subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], capture_output=True, check=False).returncode:
        pytest.skip("root writes everywhere, and a read-only mount is refused here")
    try:
        assert load_model(folder).iterations == 1
        with pytest.raises(InputError, match=r"cannot write .*(Read-only file system|Permission denied)"):
            model.io.save(is_exit=True)
        with pytest.raises(InputError, match="training needs write permission"):
            TinyModel(folder)
    finally:
        if os.geteuid():
            folder.chmod(0o700)
        else:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    assert load_model(folder).iterations == 1


@pytest.mark.parametrize("renamed", [[], ["weights"], ["weights", "optimizer"]])
def test_a_committed_save_is_read_from_a_folder_whose_renames_were_interrupted(
    tmp_path: Path, renamed: list[str]
) -> None:
    model = started(tmp_path)
    model.state.increment_iterations()
    model.io.save(CountingOptimizer(2), is_exit=True)
    files = FileSet(tmp_path, "tiny")
    committed = {path: path.read_bytes() for path in (files.weights, files.optimizer, files.state)}
    started_over = FileSet(tmp_path, "tiny")
    for role in ("weights", "optimizer", "state"):
        path: Path = getattr(started_over, role)
        if role not in renamed:
            path.with_name(path.name + ".new").write_bytes(committed[path])
            path.write_bytes(b"of the save before")
    loaded = load_model(tmp_path)
    assert loaded.iterations == 2
    model.state.increment_iterations()
    model.io.save(CountingOptimizer(3), is_exit=True)
    assert not list(tmp_path.glob("*.new"))
    assert load_model(tmp_path).iterations == 3


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path: Path) -> None:
    model = started(tmp_path)
    for name in ("tiny.safetensors.new", ".tiny.safetensors.123.tmp.new", "tiny_optimizer.safetensors.new"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".tiny_snapshot_7.tmp").mkdir()
    (tmp_path / ".tiny_snapshot_7.tmp" / "tiny.safetensors").write_bytes(b"half")
    assert load_model(tmp_path).iterations == 1
    model.io.save(is_exit=True)
    assert not [name for name in names(tmp_path) if "tmp" in name or name.endswith(".new")]
