"""Reading a model folder takes no lock: what is read while a training saves is one whole save, without false alarm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import ALWAYS, CountingOptimizer, TinyModel, train, value_of

from fsdeploy.cli.describe.models import model_folder
from fsdeploy.errors import ReplacedError
from fsdeploy.model.saved_set import FileSet

ROOT = Path(__file__).resolve().parents[2]
Interrupt = Callable[[str, str, Callable[[], object]], None]


@pytest.fixture
def model(folder: Path) -> Iterator[TinyModel]:
    """A training that saved at iteration 1, its best so far, and 2."""
    model = TinyModel(folder, training=ALWAYS)
    model.build()
    train(model, 0.5, CountingOptimizer(1), exit=False)
    train(model, 0.9, CountingOptimizer(2), exit=False)
    yield model
    model.close()


@pytest.fixture
def once_before(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """`once_before(module, name, event)`: something happens just before a function of a module is called next."""

    def interrupt(module: str, name: str, event: Callable[[], object]) -> None:
        function = getattr(sys.modules[module], name)
        events = [event]

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            if events:
                events.pop()()
            return function(*args, **kwargs)

        monkeypatch.setattr(sys.modules[module], name, interrupted)

    return interrupt


READING_TENSORS = ("fsdeploy.model.tensor_file", "safe_open")
HASHING = ("fsdeploy.files", "sha256_of")
CHECKING_THE_STATE = ("fsdeploy.model.saved_set", "_check_state")


def unfinished(files: FileSet) -> None:
    """Undo the renames of the last save, as if it had been committed and not yet published."""
    for path in (files.weights, files.optimizer, files.state):
        path.with_name(path.name + ".new").write_bytes(path.read_bytes())
        path.write_bytes(b"of the save before")


@pytest.mark.parametrize("step", [CHECKING_THE_STATE, HASHING, READING_TENSORS], ids=lambda step: step[1])
def test_a_save_in_the_middle_of_a_load_is_loaded_whole_and_without_a_warning(
    folder: Path,
    model: TinyModel,
    step: tuple[str, str],
    once_before: Interrupt,
    caplog: pytest.LogCaptureFixture,
) -> None:
    once_before(*step, lambda: train(model, 0.9, CountingOptimizer(3), exit=False))
    assert value_of(folder) == (3.0, 3)
    assert not caplog.text


@pytest.mark.parametrize("step", [CHECKING_THE_STATE, HASHING, READING_TENSORS], ids=lambda step: step[1])
def test_files_that_get_their_public_names_in_the_middle_of_a_load_are_found(
    folder: Path,
    model: TinyModel,
    step: tuple[str, str],
    once_before: Interrupt,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = FileSet(folder, "tiny")
    unfinished(files)
    once_before(*step, files.finish)
    assert value_of(folder) == (2.0, 2)
    assert not caplog.text


def test_looking_at_the_files_during_a_save_reports_no_damage(
    folder: Path, model: TinyModel, once_before: Interrupt, caplog: pytest.LogCaptureFixture
) -> None:
    once_before(*HASHING, lambda: train(model, 0.9, CountingOptimizer(3), exit=False))
    facts = model_folder(folder)
    assert "damaged" not in facts
    assert not caplog.text


def test_inspect_describes_one_save_though_another_follows_between_its_looks(
    folder: Path, model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = FileSet.find
    saves = iter([3])

    def find_then_save(self: FileSet, with_optimizer: bool = True) -> object:
        found = find(self, with_optimizer)
        for iteration in saves:
            train(model, 0.9, CountingOptimizer(iteration), exit=False)
        return found

    monkeypatch.setattr(FileSet, "find", find_then_save)
    facts = model_folder(folder)
    weights = next(file for file in facts["files"] if file["file"] == "tiny.safetensors")
    assert facts["iterations"] == weights["iterations"] == 2
    assert facts["weights_sha256"] == weights["sha256"]


def test_real_damage_is_still_told_and_the_last_good_set_taken(
    folder: Path, model: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tiny.safetensors").write_bytes(b"")
    assert value_of(folder) == (1.0, 1)
    assert caplog.text.count("tiny.safetensors is missing or damaged") == 1


def test_parts_are_taken_from_a_model_that_is_being_trained(
    folder: Path, model: TinyModel, tmp_path: Path, once_before: Interrupt
) -> None:
    young = TinyModel(tmp_path / "young", load_weights=folder)
    files = FileSet(folder, "tiny")
    unfinished(files)
    once_before(*READING_TENSORS, files.finish)
    young.build()
    part = young.model.parts(0)["encoder"]
    young.close()
    encoder = {float(value) for tensor in part.state_dict().values() for value in tensor.unique()}
    assert encoder == {2.0}


def test_a_model_opened_before_a_save_does_not_take_the_weights_after_it(folder: Path, model: TinyModel) -> None:
    opened = TinyModel(folder, predict=True)
    train(model, 0.9, CountingOptimizer(3), exit=False)
    with pytest.raises(ReplacedError, match="saved anew") as caught:
        opened.build()
    assert str(folder) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the experiment forks, which this system cannot")
def test_every_load_beside_a_training_that_saves_without_pause_is_right() -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "load_during_saves.py"), "--json", "--seconds", "3"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert result["loads"] > 1
