"""What `fsdeploy train` tells about a run, and what it takes from the folder it resumes."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from small_runs import PLAIN, run, start
from training_process import TINY

from fsdeploy.cli.train import train
from fsdeploy.errors import InputError
from fsdeploy.training import command
from fsdeploy.training.data import loader
from fsdeploy_plugins.models.compact import Model

Faces = tuple[Path, Path]
WITHOUT_PLUGIN = TINY[2:]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments], standalone_mode=False)


def messages(log: Path) -> str:
    assert log.exists()
    return log.read_text("utf-8")


def test_a_model_is_resumed_by_the_plugin_of_its_folder(tmp_path: Path, drawn_faces: Faces) -> None:
    a, b = drawn_faces
    model = tmp_path / "m"
    assert invoke("-A", a, "-B", b, "-m", model, *TINY, "-i", 1, "-q").exception is None
    again = invoke("-A", a, "-B", b, "-m", model, *WITHOUT_PLUGIN, "-i", 2, "-F", tmp_path / "log")
    assert again.exception is None
    assert json.loads((model / "compact_state.json").read_text())["iterations"] == 3
    assert "compact, 0." in messages(tmp_path / "log")
    assert "from iteration 1 on, on " in messages(tmp_path / "log")
    summary = invoke("-m", model, "--summary")
    assert summary.exception is None
    assert "compact:" in summary.output


def test_of_two_models_in_a_folder_one_must_be_named(tmp_path: Path, drawn_faces: Faces) -> None:
    a, b = drawn_faces
    for name in ("compact", "original"):
        (tmp_path / f"{name}_state.json").write_text("{}")
    error = invoke("-A", a, "-B", b, "-m", tmp_path, "-i", 1).exception
    assert isinstance(error, InputError)
    assert "several models (compact, original)" in str(error)
    assert "-t" in str(error)


def test_the_help_names_the_installed_plugins_and_imports_none() -> None:
    code = (
        "import sys\nfrom fsdeploy.cli.train import train\n"
        "train(['--help'], standalone_mode=False)\n"
        "print([name for name in ('torch', 'cv2', 'onnxruntime', 'fsdeploy_plugins') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown.rstrip().endswith("[]")
    assert "compact, imported, lightweight, original" in re.sub(r"\s+", " ", shown)


def test_one_folder_for_both_sides_is_warned_about(tmp_path: Path, drawn_faces: Faces) -> None:
    a, b = drawn_faces
    (tmp_path / "link").symlink_to(a)
    for other, said in ((tmp_path / "link", True), (b, False)):
        log = tmp_path / f"{said}.log"
        result = invoke("-A", a, "-B", other, "-m", tmp_path / f"m{said}", *TINY, "-i", 1, "-q", "-F", log)
        assert result.exception is None
        assert ("the same folder" in messages(log)) is said


def test_a_run_begins_with_the_model_and_its_device(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(None)
    model.build()
    count = sum(tensor.numel() for tensor in model.model.state_dict().values())
    trainer: Any = SimpleNamespace(model=model, device=torch.device("cpu"), iterations=0)
    with caplog.at_level(logging.INFO, "fsdeploy"):
        command._announce(trainer)
    assert caplog.messages == [f"compact, {count / 1e6:.1f} M parameters, a new model, on cpu"]


@pytest.mark.parametrize(("device", "is_slow"), [("cpu", True), ("cuda", False)])
def test_a_large_model_on_a_cpu_comes_with_a_proposal(
    caplog: pytest.LogCaptureFixture, device: str, is_slow: bool
) -> None:
    with torch.device("meta"):
        network = torch.nn.Linear(9000, 9000)
    large = SimpleNamespace(name="original", model=network)
    trainer: Any = SimpleNamespace(model=large, device=torch.device(device), iterations=7)
    with caplog.at_level(logging.INFO, "fsdeploy"):
        command._announce(trainer)
    assert caplog.messages[0].startswith(f"original, 81.0 M parameters, from iteration 7 on, on {device}")
    assert ("-t compact" in caplog.messages[0]) is is_slow


def test_saves_name_their_iteration_and_the_losses_of_both_sides(
    tmp_path: Path, drawn_faces: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = start(tmp_path / "m", drawn_faces, PLAIN)
    totals: list[tuple[float, ...]] = []
    keep = trainer.model.add_history
    trainer.model.add_history = lambda loss: (totals.append(tuple(loss)), keep(loss))[1]  # type: ignore[assignment]
    with caplog.at_level(logging.INFO, "fsdeploy"):
        run(trainer, 3)
    a, b = totals[0]
    average = sum(map(sum, totals[1:])) / 2
    assert f"saving iteration 1: loss A + B is {a + b:.5f}" in caplog.messages
    assert f"saving iteration 3: loss A + B averages {average:.5f} since the last save" in caplog.messages


def test_the_last_line_tells_the_losses_of_both_sides(tmp_path: Path, drawn_faces: Faces) -> None:
    a, b = drawn_faces
    log = tmp_path / "log"
    assert invoke("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-i", 1, "-F", log).exception is None
    (a_and_b,) = re.findall(r"saving iteration 1: loss A \+ B is (\S+)", messages(log))
    ((one, two),) = re.findall(r"iteration 1 saved to .* \(loss A (\S+) B (\S+)\)", messages(log))
    assert float(one) + float(two) == pytest.approx(float(a_and_b), abs=2e-5)


def test_only_a_number_of_workers_that_somebody_chose_is_commented(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loader, "available_cpus", lambda: 2)
    with caplog.at_level(logging.INFO, "fsdeploy"):
        assert loader._workers(4) == 2, "the default"
        assert caplog.messages == []
        assert loader._workers(8) == 2
    assert "'num_processes' is 8 but there are 2 cores: using 2" in caplog.messages
