"""The command line as a whole: quick help, lazy imports, one-line errors."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from fsdeploy.cli import COMMANDS

HEAVY = ("torch", "cv2", "onnxruntime", "onnx", "tensorboard", "av", "h5py")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fsdeploy", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "statement", ["import fsdeploy", "import fsdeploy.cli; fsdeploy.cli.cli(['--help'], standalone_mode=False)"]
)
def test_nothing_heavy_is_imported_before_a_command_runs(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip().endswith("LOADED []")


def test_help_takes_under_0_3_seconds_of_cpu() -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)

    # CPU time, and the best of five: a busy neighbour on the core adds to it.
    assert min(cpu_seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_with_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0, result.stderr
    assert f"fsdeploy {command}" in result.stdout, "help has no example"


def test_a_misspelt_command_suggests_the_nearest_and_exits_2() -> None:
    result = run("exprot")
    assert result.returncode == 2
    assert "Did you mean 'export'?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
