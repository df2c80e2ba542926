"""Data sets: crops where the landmarks say, preview sizes, pairing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsdeploy.config.training import FaceOptions, LossOptions, MaskOptions, TrainingOptions
from fsdeploy.errors import InputError
from fsdeploy.images import read_image
from fsdeploy.training.data.data_set import MultiDataset, PreviewSet, TrainSet

NO_MASKS = TrainingOptions(mask=MaskOptions(mask_type="none"), loss=LossOptions(penalized_mask_loss=False))


def white_dot(crop):
    """Centre of the dot that is drawn on landmark 30."""
    weight = np.maximum(crop.min(axis=2).astype(float) - 200, 0)
    y, x = np.mgrid[0 : len(crop), 0 : len(crop)]
    return (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()


@pytest.mark.parametrize(
    "face",
    [
        FaceOptions(),
        FaceOptions(coverage=75.0),
        FaceOptions(centering="head"),
        FaceOptions(centering="legacy", coverage=87.5),
        FaceOptions(vertical_offset=10),
    ],
)
def test_image_landmarks_and_masks_of_a_crop_fit_each_other(folder_a, face):
    dataset = TrainSet("A", folder_a, 128, options=TrainingOptions(face=face))
    for index in range(6):
        crop, used = dataset[index]
        assert (crop.shape, crop.dtype, used) == ((128, 128, 6), np.uint8, index)
        spec = dataset.spec
        points = dataset.faces[index].aligned.aligned_landmarks(
            128, spec.centering, spec.coverage, spec.vertical_offset
        )
        # the crop is cut at whole stored pixels, which are up to two pixels of the crop
        np.testing.assert_allclose(white_dot(crop[..., :3]), points[30], atol=2.5)
        for channel, part in ((3, 30), (4, 37), (5, 62)):  # face: nose; eye; mouth
            x, y = np.rint(points[part]).astype(int)
            assert crop[y, x, channel] > 127
        assert crop[0, 0, 3:].max() == 0


def test_a_stored_mask_comes_with_the_crop(folder_a):
    options = TrainingOptions(
        mask=MaskOptions(mask_type="custom_face", mask_blur_kernel=0),
        loss=LossOptions(eye_multiplier=1, mouth_multiplier=1),
    )
    crop, _ = TrainSet("A", folder_a, 64, options=options)[0]
    expected = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 20, 255, -1)  # as stored: same crop, same size
    assert crop.shape == (64, 64, 4)
    assert np.abs(crop[..., 3].astype(int) - expected).mean() < 1


def test_a_kept_crop_is_the_crop_that_was_cut(folder_a, tmp_path):
    fresh = TrainSet("A", folder_a, 64)
    for kept in (
        TrainSet("A", folder_a, 64, cache_budget=1 << 24),
        TrainSet("A", folder_a, 64, cache_budget=1 << 24, cache_file=tmp_path / "a.crops"),
        TrainSet("A", folder_a, 64, cache_budget=3 * 64 * 64 * 6),  # three faces
    ):
        for _ in range(2):
            for index in (0, 7, 29):
                np.testing.assert_array_equal(kept[index][0], fresh[index][0])


def test_kept_crops_spare_the_decoder(folder_a, monkeypatch):
    dataset = TrainSet("A", folder_a, 64, cache_budget=1 << 24)
    first = dataset[3][0]
    monkeypatch.setattr("fsdeploy.training.data.crop.read_image", None)
    np.testing.assert_array_equal(dataset[3][0], first)


def test_a_face_that_vanishes_is_reported_once_and_replaced(new_folder, caplog, monkeypatch):
    monkeypatch.setattr("fsdeploy.training.data.outage.PATIENCE_S", 0)
    dataset = TrainSet("A", new_folder("faces", 4), 64)
    (dataset.scan.folder / "face_001.png").unlink()
    for _ in range(3):
        np.testing.assert_array_equal(dataset[1][0], dataset[2][0])
    assert caplog.text.count("face_001.png") == 1
    for path in dataset.scan.folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="none of its 4 faces"):
        dataset[0]


def test_an_index_outside_the_folder_is_an_index_error(folder_a):
    with pytest.raises(IndexError):
        TrainSet("A", folder_a, 64)[30]


@pytest.mark.parametrize(("coverage", "output", "full"), [(100.0, 64, 64), (87.5, 64, 74), (62.5, 128, 204)])
def test_a_preview_target_shows_the_output_at_true_scale(folder_a, coverage, output, full):
    assert full == 2 * round(output / (coverage / 100) / 2)
    preview = PreviewSet("A", folder_a, 48, output, "bgr", options=TrainingOptions(face=FaceOptions(coverage=coverage)))
    feed, target = preview[0]
    assert (feed.shape, target.shape) == ((48, 48, 3), (full, full, 4))
    assert feed.dtype == target.dtype == np.float32
    assert target.min() >= 0
    assert target.max() <= 1
    inner = target[(full - output) // 2 :, (full - output) // 2 :, :3][:output, :output]
    small = cv2.resize(inner, (48, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(small - feed).mean() < 0.03


def test_preview_colours_are_the_models(folder_a):
    (feed, target), (feed_2, target_2) = (PreviewSet("A", folder_a, 32, 32, order)[0] for order in ("bgr", "rgb"))
    np.testing.assert_array_equal(feed, feed_2[..., ::-1])
    np.testing.assert_array_equal(target[..., :3], target_2[..., 2::-1])
    np.testing.assert_array_equal(target[..., 3], target_2[..., 3])


def test_a_preview_without_masks_has_an_open_one(folder_a):
    _, target = PreviewSet("A", folder_a, 32, 32, "bgr", options=NO_MASKS)[0]
    assert (target[..., 3] == 1).all()


def test_a_time_lapse_keeps_the_first_faces(folder_a):
    preview = PreviewSet("A", folder_a, 32, 32, "bgr", num_images=4)
    assert [face.path.name for face in preview.faces] == [f"face_{i:03d}.png" for i in range(4)]


def test_legacy_images_train_with_legacy_centering(new_folder):
    folder = new_folder("old", 2, version=1.0)
    options = TrainingOptions(face=FaceOptions(centering="legacy"))
    crop, _ = TrainSet("A", folder, 128, options=options)[0]
    # centering and coverage are those of the stored image, which has this size: nothing is cut or resampled
    np.testing.assert_array_equal(crop[..., :3], read_image(folder / "face_000.png"))


class Numbers:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return np.array([index]), index


def test_side_by_side_every_face_is_used_once_before_any_repeats():
    sets = MultiDataset((Numbers(10), Numbers(4)), seed=1)
    assert len(sets) == 10
    seen = []
    for _ in range(2):
        seen += [sets[i][1] for i in range(10)]
        sets.shuffle()
    first, second = np.array(seen).T
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    assert (first[:10] != first[10:]).any()
    for start in range(0, 20, 4):  # the rest of a permutation is carried into the next epoch
        assert sorted(second[start : start + 4]) == list(range(4))


def test_side_by_side_in_order_pairs_by_index():
    sets = MultiDataset((Numbers(3), Numbers(2)), is_random=False)
    assert [sets[i][1].tolist() for i in range(3)] == [[0, 0], [1, 1], [2, 0]]
    with pytest.raises(IndexError):
        sets[3]
