"""Masks and their fade."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.runtime.mask import ellipse_mask, feather, hull_mask, match_mean, raise_brows


@pytest.mark.parametrize("size", [32, 64, 256])
def test_any_mask_fades_to_exactly_zero_at_the_edge_of_the_patch(size: int) -> None:
    faded = feather(np.ones((size, size), np.float32))
    edge = np.concatenate([faded[0], faded[-1], faded[:, 0], faded[:, -1]])
    assert edge.max() == 0 and faded[size // 2, size // 2] == pytest.approx(1, abs=1e-6)


def test_a_fade_never_grows_beyond_its_mask() -> None:
    mask = np.zeros((64, 64), np.float32)
    cv2.circle(mask, (32, 32), 20, 1.0, -1)
    faded = feather(mask)
    assert faded[mask == 0].max() == 0 and faded.max() > 0.999
    assert (np.diff(faded[32, 12:33]) >= -1e-6).all(), "rises steadily from the outline to the middle"


def test_the_outline_of_the_landmarks_is_their_hull() -> None:
    angle = np.arange(17) * np.pi / 16
    jaw = np.stack([0.5 - 0.62 * np.cos(angle), 0.2 + np.sin(angle)], axis=1)
    points = np.concatenate([jaw, MEAN_FACE]) * 60 + (34, 30)
    expected = np.zeros((128, 128), np.uint8)
    cv2.fillConvexPoly(expected, cv2.convexHull(np.rint(raise_brows(points)).astype(np.int32)), 255, cv2.LINE_AA)
    difference = np.abs(hull_mask(points, 128) - expected / 255.0)
    assert difference.mean() < 0.006 and (difference > 0.99).sum() < 20


def test_an_ellipse_has_the_area_of_its_half_axes() -> None:
    mask = ellipse_mask(256, (0.5, 0.45), (0.3, 0.4))
    assert mask.mean() == pytest.approx(np.pi * 0.3 * 0.4, rel=0.01)
    assert mask[int(0.45 * 256), 128] == 1 and mask[0].max() == 0


def test_colours_are_matched_under_the_mask_only() -> None:
    rng = np.random.default_rng(5)
    swapped, reference = rng.random((16, 16, 3), np.float32) * 0.3 + 0.3, np.full((16, 16, 3), 0.5, np.float32)
    mask = np.zeros((16, 16), np.float32)
    mask[4:12, 4:12] = 1
    matched = match_mean(swapped.astype(np.float32), reference, mask)
    np.testing.assert_allclose(matched[4:12, 4:12].mean(axis=(0, 1)), 0.5, atol=1e-5)
    np.testing.assert_array_equal(match_mean(swapped, reference, mask * 0), reference)
