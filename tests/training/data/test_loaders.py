"""The loaders: the same batches whatever the workers, from any iteration on."""

from __future__ import annotations

import dataclasses
import shutil
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import SequentialSampler

from fsdeploy.config.training import FaceOptions, LoaderOptions, LossOptions, MaskOptions, TrainingOptions
from fsdeploy.errors import ConfigError, InputError
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.data.data_set import TrainSet
from fsdeploy.training.data.loader import PreviewLoader, TrainLoader

OPEN = []


@pytest.fixture(autouse=True)
def _closed_loaders():
    """No thread reads faces when their folder is removed."""
    yield
    while OPEN:
        OPEN.pop().close()


def loader(*folders, batch=4, workers=0, size=32, outputs=None, loading=None, config=None, options=None, **more):
    options = options or TrainingOptions()
    options = dataclasses.replace(options, loader=LoaderOptions(num_processes=workers, **(loading or {})))
    config = TrainConfig(folders, batch, **(config or {}))
    OPEN.append(TrainLoader(size, outputs or (size,), "bgr", config, options=options, **more))
    return OPEN[-1]


def flat(batch):
    feeds, targets, meta = batch
    return [*feeds, *targets, *meta.mask_face, *meta.mask_eye, *meta.mask_mouth]


def assert_same(first, second):
    for a, b in zip(flat(first), flat(second), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("config", [{}, {"cache_landmarks": True}])
@pytest.mark.parametrize("path", ["cpu", "device"])
def test_batches_are_the_same_for_any_number_of_workers(folder_a, folder_b, config, path):
    loaders = [loader(folder_a, folder_b, workers=n, config=config, seed=7, augment_on=path) for n in (0, 1, 2)]
    for _ in range(10):  # beyond an epoch of either folder
        first, *others = [next(each) for each in loaders]
        for other in others:
            assert_same(first, other)


def test_a_run_goes_on_in_the_middle_of_an_epoch(folder_a, folder_b):
    whole = loader(folder_a, folder_b, workers=2, seed=3)
    batches = [next(whole) for _ in range(9)]
    assert whole.iteration == 9
    resumed = loader(folder_a, folder_b, workers=1, seed=3, start_iteration=5)
    for expected in batches[5:]:
        assert_same(expected, next(resumed))
    assert resumed.iteration == 9
    assert resumed.epoch == pytest.approx(9 * 4 / 30)


def test_another_seed_gives_other_batches(folder_a, folder_b):
    first, second = (next(loader(folder_a, folder_b, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first[0][0], second[0][0])


def test_batches_come_from_both_folders_with_every_face_once_per_epoch(folder_a, folder_b):
    still = {"augment_color": False, "flip": False, "warp": False}
    whole = loader(folder_a, folder_b, batch=10, config=still)
    names = set()
    for _ in range(3):
        feeds, targets, _ = next(whole)
        assert not torch.equal(targets[0][:, 0], targets[0][:, 1])
        names |= {row.numpy().tobytes() for row in feeds[0]}
    assert len(names) == 30


def test_a_folder_may_be_smaller_than_the_batch(new_folder, folder_a):
    feeds, targets, _ = next(loader(folder_a, new_folder("few", 3), batch=40, minimum_faces=1))
    assert [len(feed) for feed in feeds] == [40, 40]
    assert targets[0].shape == (40, 2, 3, 32, 32)


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_identities_is_loaded(folder_a, folder_b, count):
    feeds, targets, meta = next(loader(*[folder_a, folder_b, folder_a][:count], workers=2))
    assert len(feeds) == count
    assert targets[0].shape == (4, count, 3, 32, 32)
    assert meta.mask_face[0].shape == (4, count, 1, 32, 32)


def test_several_outputs_and_a_learned_mask_are_targets(folder_a, folder_b):
    options = TrainingOptions(mask=MaskOptions(learn_mask=True))
    feeds, targets, _ = next(loader(folder_a, folder_b, size=32, outputs=(32, 64), options=options))
    assert [tuple(t.shape) for t in targets] == [(4, 2, 3, 32, 32), (4, 2, 3, 64, 64), (4, 2, 1, 64, 64)]
    assert feeds[0].shape == (4, 3, 32, 32)


@pytest.mark.parametrize("loading", [{"cache_budget": 0}, {"cache_budget": 1}, {"pre_fetch": 1}])
def test_the_way_of_loading_does_not_change_the_batches(folder_a, folder_b, loading):
    plain = loader(folder_a, folder_b, size=64)
    other = loader(folder_a, folder_b, size=64, workers=2, loading=loading)
    for _ in range(9):
        assert_same(next(plain), next(other))


def test_a_crop_cache_in_a_folder_serves_the_next_run(folder_a, folder_b, tmp_path, monkeypatch):
    loading = {"cache_folder": str(tmp_path)}
    first = loader(folder_a, folder_b, loading=loading)
    batches = [next(first) for _ in range(9)]
    first.close()
    monkeypatch.setattr("fsdeploy.training.data.crop.read_image", None)  # every crop must come from the file
    second = loader(folder_a, folder_b, loading=loading)
    for batch in batches:
        assert_same(batch, next(second))


def test_bad_files_are_skipped_and_said(new_folder, folder_b, caplog):
    folder = new_folder("faces", 26)
    (folder / "face_003.png").write_bytes(b"nothing")
    whole = loader(folder, folder_b)
    next(whole)
    assert len(whole.datasets[0]) == 25
    assert "1 skipped" in caplog.text
    assert "face_003.png" in whole.table
    (folder / "face_004.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="24 usable faces, 25 are needed"):
        loader(folder, folder_b)


def test_faces_that_vanish_during_a_run_do_not_end_it(new_folder, folder_b, caplog):
    folder = new_folder("faces", 26)
    whole = loader(folder, folder_b, workers=2)
    for index in range(0, 26, 2):
        (folder / f"face_{index:03d}.png").unlink()
    for _ in range(8):
        next(whole)
    assert "face_002.png" in caplog.text
    whole.close()


def test_an_error_in_a_worker_reaches_the_trainer(new_folder, folder_b, monkeypatch):
    monkeypatch.setattr("fsdeploy.training.data.outage.PATIENCE_S", 0)
    folder = new_folder("faces", 26)
    whole = loader(folder, folder_b, workers=2, loading={"cache_budget": 0})
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="none of its 26 faces"):
        for _ in range(4):
            next(whole)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (TrainingOptions(mask=MaskOptions(mask_type="none")), "mask_type"),
        (TrainingOptions(face=FaceOptions(coverage=50.0)), "coverage"),
        (TrainingOptions(loss=LossOptions(eye_multiplier=0)), "eye_multiplier"),
    ],
)
def test_options_are_refused_by_name_before_anything_is_read(folder_a, folder_b, options, named):
    with pytest.raises(ConfigError, match=named):
        loader(folder_a, folder_b, options=options)


def test_a_warp_to_landmarks_needs_two_folders_with_landmarks(folder_a, folder_b, new_folder):
    with pytest.raises(ConfigError, match="two folders"):
        loader(folder_a, folder_b, folder_a, config={"cache_landmarks": True})
    boxes = new_folder("boxes", 25, points=4, masks=("custom_face",))
    options = TrainingOptions(
        mask=MaskOptions(mask_type="custom_face"), loss=LossOptions(eye_multiplier=1, mouth_multiplier=1)
    )
    with pytest.raises(InputError, match="4 landmarks"):
        loader(folder_a, boxes, config={"cache_landmarks": True}, options=options)


def test_a_closed_loader_leaves_no_threads(folder_a, folder_b):
    import threading

    before = set(threading.enumerate())
    whole = loader(folder_a, folder_b, workers=2)
    next(whole)
    threads = set(threading.enumerate()) - before
    assert [thread for thread in threads if thread.name.startswith("faces")]
    whole.close()
    for thread in threads:
        thread.join(5)
    assert not [thread for thread in threads if thread.is_alive()]


def preview(*folders, **details):
    return PreviewLoader(48, 64, "bgr", folders, 14, **details)


def test_previews_come_identity_first_and_channels_last(folder_a, folder_b):
    feeds, targets = next(preview(folder_a, folder_b))
    assert (feeds.shape, targets.shape) == ((2, 14, 48, 48, 3), (2, 14, 64, 64, 4))
    assert feeds.dtype == targets.dtype == torch.float32


def test_previews_go_on_for_ever_and_change(folder_a, folder_b):
    faces = preview(folder_a, folder_b)
    seen = [next(faces)[0] for _ in range(5)]
    assert [len(feed[0]) for feed in seen] == [14] * 5
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[3])


def test_a_time_lapse_shows_the_same_faces_every_time(folder_a, folder_b):
    lapse = preview(folder_a, folder_b, sampler=SequentialSampler, num_samples=14)
    first, second = next(lapse), next(lapse)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_time_lapse_folder_may_hold_fewer_faces_than_are_shown(folder_a, new_folder):
    lapse = preview(folder_a, new_folder("six", 6), sampler=SequentialSampler, num_samples=14)
    for _ in range(3):
        feeds, targets = next(lapse)
        assert feeds.shape[:2] == targets.shape[:2] == (2, 6)


def test_a_folder_that_was_scanned_is_not_scanned_again_for_previews(folder_a, folder_b, monkeypatch):
    scans = loader(folder_a, folder_b).scans
    monkeypatch.setattr("fsdeploy.training.data.loader.scan_folder", None)
    feeds, _ = next(preview(folder_a, folder_b, scans=scans))
    assert feeds.shape[:2] == (2, 14)


def test_a_broken_preview_face_is_replaced(new_folder, folder_b):
    folder = new_folder("faces", 5)
    lapse = preview(folder, folder_b, sampler=SequentialSampler, num_samples=5)
    (folder / "face_001.png").write_bytes(b"half a file")
    feeds, _ = next(lapse)
    assert torch.equal(feeds[0, 1], feeds[0, 2])


def test_real_faces_give_batches_without_a_flaw(real_data):
    faces = real_data / "faces"
    options = TrainingOptions(mask=MaskOptions(mask_type="custom_face"))
    whole = loader(faces / "A", faces / "B", batch=8, workers=2, size=64, options=options)
    for tensor in flat(next(whole)):
        values = tensor.numpy()
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
        assert values.std() > 0.05


@pytest.mark.parametrize("workers", [0, 2])
def test_who_waits_for_a_batch_may_look_around_and_leave_without_losing_it(folder_a, folder_b, monkeypatch, workers):
    class LeftError(Exception):
        pass

    def leave():
        raise LeftError

    undisturbed = loader(folder_a, folder_b, workers=0, seed=3)
    expected = [next(undisturbed) for _ in range(2)]
    gate = threading.Event()
    crop = TrainSet.crop

    def held_crop(self, index):
        gate.wait(60)
        return crop(self, index)

    monkeypatch.setattr(TrainSet, "crop", held_crop)
    held = loader(folder_a, folder_b, workers=workers, seed=3)
    held.look_while_waiting(leave)
    try:
        for _ in range(2):
            with pytest.raises(LeftError):
                next(held)
        assert held.iteration == 0
    finally:
        gate.set()
    held.look_while_waiting(lambda: None)
    for batch in expected:
        assert_same(next(held), batch)
