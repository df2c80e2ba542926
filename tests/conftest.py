"""What every test may use: the real faces and legacy files, where this machine has them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Two tests run side by side on two cores: one thread each. Before numpy, torch and OpenCV are imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest


def shared_folder() -> Path | None:
    """The folder that holds `data/` and `fixtures/`: FSDEPLOY_TEST_DATA, else `../shared` beside the checkout."""
    named = os.environ.get("FSDEPLOY_TEST_DATA")
    candidates = [Path(named)] if named else [Path(__file__).resolve().parents[2] / "shared"]
    return next((folder for folder in candidates if (folder / "data").is_dir()), None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with `faces/A`, `faces/B`, `clip_A.mp4`, ... of two real people."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no real faces here: set FSDEPLOY_TEST_DATA to the folder that holds data/ and fixtures/")
    return folder / "data"


@pytest.fixture(scope="session")
def legacy_models() -> Path:
    """Folder with `migrate/` and `hostile/`: model files of earlier programs."""
    folder = shared_folder()
    if folder is None or not (folder / "fixtures").is_dir():
        pytest.skip("no legacy models here: set FSDEPLOY_TEST_DATA to the folder that holds data/ and fixtures/")
    return folder / "fixtures"


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """Under nohup or in the background some signals are ignored, by child processes too, and some tests send them."""
    names = [name for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
    ignored = [getattr(signal, name) for name in names]
    ignored = [number for number in ignored if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command run inside a test sets up logging; the next test starts without its handlers and level."""
    logger = logging.getLogger("fsdeploy")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate
