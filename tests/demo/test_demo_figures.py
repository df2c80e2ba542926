"""The three figures, on inputs whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fsdeploy.demo.figures import judge, masked_error, ranks

FULL = np.ones((4, 2, 2), np.float32)


def grey(*levels: float) -> np.ndarray:
    """One (2, 2, 3) image per level."""
    return np.stack([np.full((2, 2, 3), level, np.float32) for level in levels])


def test_masked_error_is_the_mean_square_inside_the_mask():
    mask = np.zeros((1, 2, 2), np.float32)
    mask[0, 0, 0] = 1.0
    one, other = grey(0.5), grey(0.5)
    other[0, 0, 0] = (0.5, 0.8, 0.9)  # squares 0, 0.09, 0.16
    other[0, 1, 1] = 1.0  # outside the mask
    assert masked_error(one, other, mask) == pytest.approx([0.25 / 3.0])


def test_a_perfect_swap_is_closer_ranks_first_and_gains_much():
    target = grey(0.1, 0.3, 0.5, 0.9)
    figures = judge(grey(0.9, 0.8, 0.1, 0.4), target, target, FULL)
    assert figures.closer == 1.0
    assert figures.median_rank == 1.0
    assert figures.gain_db > 50.0


def test_returning_the_input_scores_nothing():
    source, target = grey(0.1, 0.2, 0.3, 0.4), grey(0.6, 0.7, 0.8, 0.9)
    figures = judge(source, source, target, FULL)
    assert figures.closer == 0.0
    assert figures.gain_db == pytest.approx(0.0, abs=1e-6)
    assert not figures.met


def test_gain_is_the_difference_of_two_psnr_values():
    # |source - target| = 0.4 and |swap - target| = 0.04: the error falls by 100, that is 20 dB, in every face.
    target = grey(0.2, 0.3, 0.4, 0.5)
    figures = judge(target + np.float32(0.4), target + np.float32(0.04), target, FULL)
    assert figures.gain_db == pytest.approx(20.0, abs=1e-3)


def test_a_constant_mean_face_wins_on_closer_and_gain_but_not_on_rank():
    rng = np.random.default_rng(0)
    target = rng.uniform(0.55, 0.65, (60, 4, 4, 3)).astype(np.float32)
    source = rng.uniform(0.05, 0.15, (60, 4, 4, 3)).astype(np.float32)
    constant = np.repeat(target.mean(axis=0, keepdims=True), 60, axis=0)
    figures = judge(source, constant, target, np.ones((60, 4, 4), np.float32))
    assert figures.closer_met and figures.gain_met
    assert figures.median_rank >= 30.0
    assert not figures.rank_met and not figures.met


def test_identical_targets_tie_to_the_last_rank():
    swap = grey(0.2, 0.4, 0.6, 0.8)
    assert ranks(swap, grey(0.5, 0.5, 0.5, 0.5), FULL).tolist() == [4, 4, 4, 4]


def test_ranks_ignore_a_shift_of_all_swaps():
    target = grey(0.1, 0.3, 0.5, 0.9)
    assert ranks(target + np.float32(0.05), target, FULL).tolist() == [1, 1, 1, 1]


def test_ranks_count_the_targets_that_are_nearer_than_the_own_one():
    # Means removed: swaps -0.3, -0.1, 0.1, 0.3; targets 0.3, 0.1, -0.1, -0.3. Own target of face 0 is the farthest.
    assert ranks(grey(0.2, 0.4, 0.6, 0.8), grey(0.8, 0.6, 0.4, 0.2), FULL).tolist() == [4, 3, 3, 4]


def test_the_rank_limit_is_ten_of_sixty_in_proportion():
    target = np.random.default_rng(1).random((30, 2, 2, 3)).astype(np.float32)
    figures = judge(1.0 - target, target, target, np.ones((30, 2, 2), np.float32))
    assert figures.max_rank == pytest.approx(5.0)
    assert figures.met


def test_stacks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="equal stacks"):
        judge(grey(0.1, 0.2), grey(0.1), grey(0.1, 0.2), FULL[:2])
