"""A run that is asked to end while it waits for faces: it ends at once, and saves."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_runs import PLAIN, FakeLoader, Folders, run, start

from fsdeploy.errors import InputError
from fsdeploy.images import read_image
from fsdeploy.training.requests import Keys, Requests
from fsdeploy.training.train import Trainer

OPTIONS = {**PLAIN, "cache_budget": 0}
FACES = 3
"""Of each side in a batch; none is kept."""


def take_away(monkeypatch: pytest.MonkeyPatch, folder: Path, reads: int) -> None:
    """Have the storage of a folder refuse all files after so many of them were read."""
    count = 0

    def read(path: Path) -> NDArray[np.uint8]:
        nonlocal count
        if path.parent == folder:
            count += 1
            if count > reads:
                stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
                raise InputError(f"cannot read {path}: {stale.strerror}") from stale
        return read_image(path)

    monkeypatch.setattr("fsdeploy.training.data.crop.read_image", read)
    monkeypatch.setattr("fsdeploy.training.data.data_set.read_image", read)
    monkeypatch.setattr("fsdeploy.training.data.outage.RETRY_S", 0.05)
    # Long enough for the slowest machine; a run that waits it out ends by an error.
    monkeypatch.setattr("fsdeploy.training.data.outage.PATIENCE_S", 20.0)


def ask_before(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, batch: int, ask: Callable[[], None]) -> None:
    """Ask for something while a batch is waited for."""
    real, count = trainer.loader.__next__, 0

    def draw() -> Any:
        nonlocal count
        count += 1
        if count == batch:
            ask()
        return real()

    monkeypatch.setattr(trainer, "loader", FakeLoader(trainer, draw))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("by_key", [False, True])
def test_a_stop_while_faces_are_away_saves_and_ends(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch, workers: int, by_key: bool
) -> None:
    trainer = start(tmp_path, drawn_faces, {**OPTIONS, "num_processes": workers})
    take_away(monkeypatch, drawn_faces[1], 4 * FACES)
    requests, pressed = Requests(), threading.Event()

    def poll(keys: Keys) -> None:
        if pressed.is_set():
            requests.stop.set()

    monkeypatch.setattr(Keys, "poll", poll)
    ask_before(monkeypatch, trainer, 5, pressed.set if by_key else requests.stop.set)
    run(trainer, 9, requests)
    resumed = start(tmp_path, drawn_faces, OPTIONS)
    assert resumed.iterations == 4
    assert resumed.loader.iteration == 4, "the batch that never came is the next one"
    assert resumed.model.io.load_optimizer() is not None
    resumed.close()


def test_a_stop_before_the_first_batch_leaves_no_model(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(tmp_path, drawn_faces, OPTIONS)
    take_away(monkeypatch, drawn_faces[1], 0)
    requests = Requests()
    ask_before(monkeypatch, trainer, 1, requests.stop.set)
    with pytest.raises(KeyboardInterrupt):
        run(trainer, 9, requests)
    assert not trainer.model.io.model_exists


def test_one_of_several_processes_does_not_leave_the_others_alone_but_fails_at_once(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that left the loop by itself would have the others wait for it for ever."""
    trainer = start(tmp_path, drawn_faces, OPTIONS)
    monkeypatch.setattr(trainer.plugin, "acts_alone", False)
    take_away(monkeypatch, drawn_faces[1], 4 * FACES)
    monkeypatch.setattr("fsdeploy.training.data.outage.PATIENCE_S", 1e9)  # only the request can end the wait
    requests = Requests()
    ask_before(monkeypatch, trainer, 5, requests.stop.set)
    with pytest.raises(InputError, match="read any more"):
        run(trainer, 9, requests)
    resumed = start(tmp_path, drawn_faces, OPTIONS)
    assert resumed.iterations == 4
    resumed.close()
