"""Faces on a storage that goes away and comes back, that refuses single files, or that stays away."""

from __future__ import annotations

import errno
import os
import shutil
import threading

import numpy as np
import pytest

from fsdeploy.errors import InputError
from fsdeploy.images import read_image
from fsdeploy.training.data import outage
from fsdeploy.training.data.data_set import PreviewSet, TrainSet


class Storage:
    """Reads faces, but refuses the files and the attempts that it is told to."""

    def __init__(self, monkeypatch):
        self.attempts = []
        self.refuses = lambda attempt, name: False
        monkeypatch.setattr("fsdeploy.training.data.crop.read_image", self.read)
        monkeypatch.setattr("fsdeploy.training.data.data_set.read_image", self.read)
        monkeypatch.setattr(outage, "RETRY_S", 0.001)

    def read(self, path):
        self.attempts.append(path.name)
        if self.refuses(len(self.attempts), path.name):
            stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            raise InputError(f"cannot read {path}: {stale.strerror}") from stale
        return read_image(path)


@pytest.fixture
def storage(monkeypatch):
    return Storage(monkeypatch)


@pytest.fixture
def expected(folder_a):
    """All crops of folder A."""
    dataset = TrainSet("A", folder_a, 64)
    return [dataset[index][0] for index in range(len(dataset))]


def test_a_storage_that_comes_back_costs_no_face(folder_a, expected, storage, caplog):
    dataset = TrainSet("A", folder_a, 64)
    storage.refuses = lambda attempt, name: 5 < attempt < 60
    for _ in range(2):
        crops = [dataset[index][0] for index in range(30)]
    for crop, sound in zip(crops, expected, strict=True):
        np.testing.assert_array_equal(crop, sound)
    assert caplog.text.count("cannot be read at the moment") == 1
    assert "Stale file handle" in caplog.text
    assert caplog.text.count("can be read again") == 1
    assert caplog.text.count("skipped") < outage.FAILURES_OF_AN_OUTAGE, "not every face is listed"


def test_while_the_storage_is_away_it_is_asked_now_and_then_only(folder_a, expected, storage, monkeypatch):
    dataset = TrainSet("A", folder_a, 64, cache_budget=1 << 24)
    for index in range(10):
        dataset[index]
    monkeypatch.setattr(outage, "RETRY_S", 3600.0)
    monkeypatch.setattr(outage, "PATIENCE_S", 0)
    storage.attempts.clear()
    storage.refuses = lambda attempt, name: True
    kept = {crop.tobytes() for crop in expected[:10]}
    for index in range(30):
        assert dataset[index][0].tobytes() in kept
    assert len(storage.attempts) <= outage.FAILURES_OF_AN_OUTAGE + 1


def test_crops_that_are_kept_are_used_at_once_while_the_storage_is_away(folder_a, expected, storage):
    dataset = TrainSet("A", folder_a, 64, cache_budget=1 << 24)
    for index in range(30):
        dataset[index]
    storage.refuses = lambda attempt, name: True
    for index in range(30):
        np.testing.assert_array_equal(dataset[index][0], expected[index])


def test_a_storage_that_stays_away_is_an_error_with_a_remedy(folder_a, storage, monkeypatch):
    dataset = TrainSet("A", folder_a, 64)
    monkeypatch.setattr(outage, "PATIENCE_S", 0)
    storage.refuses = lambda attempt, name: True
    with pytest.raises(InputError, match=r"none of its 30 faces .* check the disk or the network"):
        dataset[0]


def test_single_files_that_the_storage_refuses_are_replaced_and_tried_again(folder_a, expected, storage, monkeypatch):
    dataset = TrainSet("A", folder_a, 64)
    broken = {f"face_{index:03d}.png" for index in range(3, 14)}  # a patch of bad sectors: more than make an outage
    storage.refuses = lambda attempt, name: name in broken
    sound = {crop.tobytes() for crop in [*expected[:3], *expected[14:]]}
    for _ in range(2):
        assert all(dataset[index][0].tobytes() in sound for index in range(30))
    assert all(storage.attempts.count(name) <= 2 for name in broken), "they are left alone for a while"
    broken.clear()
    monkeypatch.setattr("fsdeploy.training.data.data_set.TrainSet._rests", lambda self, face: False)
    for index in range(30):
        np.testing.assert_array_equal(dataset[index][0], expected[index])


def test_a_folder_that_goes_and_comes_back_as_an_empty_mount_point_does(new_folder, tmp_path, monkeypatch):
    folder = new_folder("faces", 6)
    fresh = TrainSet("A", folder, 32)
    sound = [fresh[index][0] for index in range(6)]
    dataset = TrainSet("A", folder, 32)
    shutil.move(folder, tmp_path / "away")
    folder.mkdir()
    waits = []

    def wait(self):
        waits.append(1)
        if len(waits) == 3:
            folder.rmdir()
            shutil.move(tmp_path / "away", folder)
        return True

    monkeypatch.setattr(outage, "RETRY_S", 0.0)
    monkeypatch.setattr(outage.Outage, "wait", wait)
    for index in range(6):
        np.testing.assert_array_equal(dataset[index][0], sound[index])
    assert len(waits) >= 3


def test_closing_ends_the_wait(folder_a, storage, monkeypatch):
    monkeypatch.setattr(outage, "RETRY_S", 3600.0)
    monkeypatch.setattr(outage, "PATIENCE_S", 7200.0)
    dataset = TrainSet("A", folder_a, 64)
    storage.refuses = lambda attempt, name: True
    failures = []

    def use():
        try:
            dataset[0]
        except InputError as error:
            failures.append(error)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    dataset.close()
    thread.join(60)
    assert len(failures) == 1


def test_a_preview_gives_up_on_a_storage_that_is_away_without_trying_every_face(folder_a, storage):
    preview = PreviewSet("A", folder_a, 32, 32, "bgr")
    storage.refuses = lambda attempt, name: True
    with pytest.raises(InputError, match="no preview: the faces of A cannot be read"):
        preview[0]
    assert len(storage.attempts) < 12
