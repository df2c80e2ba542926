"""What convert's tests share: a tiny model, and the command line run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from drawn import colour_model


@pytest.fixture(scope="session")
def dimmer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that darkens faces: 32 px, so that every test is quick."""
    return colour_model(tmp_path_factory.mktemp("model") / "dim_a2b.onnx", size=32, output=32, gain=(0.5, 0.5, 0.5))


@pytest.fixture
def fsdeploy(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, stdout, stderr."""
    from fsdeploy.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        before = sys.argv
        sys.argv = ["fsdeploy", *map(str, arguments)]
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            sys.argv = before
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
