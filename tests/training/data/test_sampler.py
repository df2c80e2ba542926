"""The endless order of faces."""

from __future__ import annotations

import numpy as np
import pytest

from fsdeploy.training.data.sampler import EndlessSampler, FaceStream


@pytest.mark.parametrize(("length", "batch"), [(7, 3), (3, 7), (5, 5), (1, 4)])
def test_every_face_is_used_once_before_any_repeats(length, batch):
    sampler = EndlessSampler([length], batch, seed=1)
    flat = np.concatenate([sampler.indices(i)[0] for i in range(20)])
    for start in range(0, len(flat) - length + 1, length):
        assert sorted(flat[start : start + length]) == list(range(length))


def test_folders_of_unequal_size_are_paired_at_random():
    sampler = EndlessSampler([40, 10], 8, seed=3)
    batches = np.concatenate([sampler.indices(i) for i in range(50)], axis=1)
    assert np.bincount(batches[0]).tolist() == [10] * 40
    assert np.bincount(batches[1]).tolist() == [40] * 10
    partners = {tuple(sorted(set(batches[1][batches[0] == face]))) for face in range(40)}
    assert len(partners) > 20


def test_a_seed_fixes_the_order_and_another_changes_it():
    first, same, other = (EndlessSampler([30, 30], 16, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.indices(9), same.indices(9))
    assert (first.indices(9) != other.indices(9)).any()
    assert (first.indices(9) != first.indices(10)).any()
    assert (first.indices(9)[0] != first.indices(9)[1]).any()


def test_a_batch_can_be_asked_for_without_those_before():
    one = EndlessSampler([11, 6], 4, seed=0)
    for i in range(30):
        one.indices(i)
    np.testing.assert_array_equal(EndlessSampler([11, 6], 4, seed=0).indices(29), one.indices(29))


def test_processes_share_every_face_among_them():
    whole = EndlessSampler([24], 12, seed=2)
    parts = [EndlessSampler([24], 6, seed=2, rank=rank, world_size=2) for rank in range(2)]
    together = np.concatenate([part.indices(1) for part in parts], axis=1)
    np.testing.assert_array_equal(together, whole.indices(1))
    draws = [part.random(1).random(4) for part in parts]
    assert (draws[0] != draws[1]).all()


def test_an_epoch_is_one_use_of_the_longest_folder():
    sampler = EndlessSampler([100, 40], 10, seed=0)
    assert [sampler.epoch(i) for i in (0, 5, 10, 25)] == [0, 0.5, 1, 2.5]


def test_permutations_of_a_stream_differ():
    stream = FaceStream(50, seed=0, identity=0)
    assert (stream.permutation(0) != stream.permutation(1)).any()
    assert (stream.permutation(0) != FaceStream(50, seed=0, identity=1).permutation(0)).any()
