"""Partners for a warp to landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from fsdeploy.errors import ConfigError, InputError
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.png import read_header
from fsdeploy.training.data.collate import LandmarkMatcher
from fsdeploy.training.data.files import get_sorted_images


def aligned(folder, size=64, centering="face", coverage=1.0, offset=0.0):
    from pathlib import Path

    faces = [AlignedFace.from_landmarks(read_header(Path(p)).face.landmarks) for p in get_sorted_images(folder)]
    return np.stack([face.aligned_landmarks(size, centering, coverage, offset) for face in faces])


def test_each_face_comes_with_its_own_landmarks_and_those_of_a_near_face(folder_a, folder_b):
    own = [aligned(folder_a), aligned(folder_b)]
    matcher = LandmarkMatcher([str(folder_a), str(folder_b)], 64, "face", 1.0, 0.0, num_choices=4)
    indices = np.array([[0, 3, 29], [25, 7, 1]])
    for seed in range(5):
        pairs = matcher.get_close_landmarks(indices, np.random.default_rng(seed))
        assert (pairs.shape, pairs.dtype) == ((6, 2, 68, 2), np.float32)
        for row, pair in enumerate(pairs):
            side, item = divmod(row, 3)
            mine = own[side][indices[side, item]]
            np.testing.assert_allclose(pair[0], mine, atol=1e-3)
            distances = np.square(own[1 - side] - mine).sum(axis=(1, 2))
            nearest = own[1 - side][np.argsort(distances)[:4]]
            assert np.abs(nearest - pair[1]).max(axis=(1, 2)).min() < 1e-3


def test_all_near_faces_are_chosen_in_turn(folder_a, folder_b):
    matcher = LandmarkMatcher([folder_a, folder_b], 64, "face", 1.0, 0.0, num_choices=3)
    random = np.random.default_rng(0)
    partners = {matcher.get_close_landmarks(np.array([[4], [4]]), random)[0, 1].tobytes() for _ in range(40)}
    assert len(partners) == 3


@pytest.mark.parametrize("count", [1, 9, 10])
def test_a_folder_may_hold_no_more_faces_than_choices(new_folder, folder_a, count):
    matcher = LandmarkMatcher([folder_a, new_folder("few", count)], 64, "face", 1.0, 0.0, num_choices=10)
    assert matcher.get_close_landmarks(np.zeros((2, 5), np.int64)).shape == (10, 2, 68, 2)


def test_legacy_centering_takes_a_vertical_offset(folder_a, folder_b):
    matcher = LandmarkMatcher([folder_a, folder_b], 128, "legacy", 0.8, 0.1)
    expected = aligned(folder_a, 128, "legacy", 0.8, 0.1)[2]
    pairs = matcher.get_close_landmarks(np.array([[2], [0]]), np.random.default_rng(0))
    np.testing.assert_allclose(pairs[0, 0], expected, atol=1e-3)


def test_faces_without_68_landmarks_are_refused_by_name(new_folder, folder_a):
    with pytest.raises(InputError, match=r"face_000\.png has 4 landmarks"):
        LandmarkMatcher([folder_a, new_folder("boxes", 2, points=4)], 64, "face", 1.0, 0.0)


def test_only_two_folders_can_be_matched(folder_a):
    with pytest.raises(ConfigError, match="two folders"):
        LandmarkMatcher([folder_a] * 3, 64, "face", 1.0, 0.0)
