"""Cutting a face out and putting it back."""

import numpy as np
import pytest

from fsdeploy.runtime.paste import crop_patch, paste_patch, resized_matrix


def smooth_frame(height: int = 240, width: int = 320) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x / width * 255, y / height * 255, 127 + 100 * np.sin(x / 17) * np.cos(y / 23)], -1).astype(
        np.uint8
    )


def similarity(scale: float, degrees: float, tx: float, ty: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    return np.array([[scale * np.cos(a), scale * np.sin(a), tx], [-scale * np.sin(a), scale * np.cos(a), ty]])


@pytest.mark.parametrize("scale", [0.2, 0.4, 0.9, 1.0, 1.7, 3.0])
def test_a_crop_pasted_back_leaves_a_smooth_frame_as_it_was(scale: float) -> None:
    frame = smooth_frame()
    matrix = similarity(scale, 11, 0, 0)
    matrix[:, 2] = 31.5 - matrix[:, :2] @ np.array([160, 120])
    patch = crop_patch(frame, matrix, 64)
    out = frame.copy()
    alpha = np.zeros((64, 64), np.float32)
    alpha[4:-4, 4:-4] = 1
    landed = paste_patch(out, patch.astype(np.float32) / 255, alpha, matrix)
    assert landed is not None
    region = np.s_[landed.y : landed.y + landed.alpha.shape[0], landed.x : landed.x + landed.alpha.shape[1]]
    allowed = 1.0 if scale >= 0.4 else 6.0  # five-fold shrinking loses the sine itself
    assert np.abs(out[region].astype(float) - frame[region]).mean() < allowed


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.6])
def test_white_on_white_stays_white_whatever_the_mask(scale: float) -> None:
    frame = np.full((100, 120, 3), 255, np.uint8)
    alpha = np.random.default_rng(3).random((32, 32)).astype(np.float32)
    paste_patch(frame, np.ones((32, 32, 3), np.float32), alpha, similarity(scale, 30, -5, 10))
    assert frame.min() >= 254


def test_white_on_black_shows_the_mask_itself_once() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    alpha = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(64, 0)
    paste_patch(frame, np.ones((64, 64, 3), np.float32), alpha, similarity(1, 0, 0, 0))
    np.testing.assert_allclose(frame[32, 1:-1, 0], np.rint(255 * alpha[32, 1:-1]), atol=1)


def test_a_face_half_outside_is_cut_and_padded_with_black() -> None:
    frame = smooth_frame()
    before = frame.copy()
    matrix = similarity(1, 0, 32, 0)  # patch x = frame x + 32
    patch = crop_patch(frame, matrix, 64)
    assert patch[:, :31].max() == 0
    landed = paste_patch(frame, np.zeros((64, 64, 3), np.float32), np.ones((64, 64), np.float32), matrix)
    assert landed is not None and landed.x == 0 and landed.alpha.shape[1] <= 34
    assert np.array_equal(frame[:, 40:], before[:, 40:]) and frame[:63, :31].max() == 0


def test_a_face_wholly_outside_or_fully_masked_changes_nothing() -> None:
    frame = smooth_frame()
    before = frame.copy()
    ones = np.ones((64, 64), np.float32)
    assert paste_patch(frame, np.zeros((64, 64, 3), np.float32), ones, similarity(1, 0, 5000, 0)) is None
    assert paste_patch(frame, np.zeros((64, 64, 3), np.float32), ones * 0, similarity(1, 0, 0, 0)) is None
    assert np.array_equal(frame, before)


def test_sixteen_bit_frames_keep_their_depth() -> None:
    frame = np.full((50, 50, 3), 40000, np.uint16)
    paste_patch(frame, np.full((8, 8, 3), 0.5, np.float32), np.ones((8, 8), np.float32), similarity(1, 0, -10, -10))
    assert frame[14, 14, 0] == 32768 and frame[0, 0, 0] == 40000


def test_resizing_a_patch_keeps_its_centres() -> None:
    matrix = similarity(0.7, 5, 3, 4)
    small = resized_matrix(matrix, 128, 64)
    centre = np.linalg.inv(matrix[:, :2]) @ (np.array([63.5, 63.5]) - matrix[:, 2])
    np.testing.assert_allclose(small[:, :2] @ centre + small[:, 2], [31.5, 31.5])


@pytest.mark.parametrize("scale", [0.8, 1.3, 2.6, 3.9])
@pytest.mark.parametrize("shown", [(9, 17, 50, 58), (20, 3, 47, 61)])
def test_what_a_face_looks_like_does_not_depend_on_how_much_of_it_the_mask_shows(
    scale: float, shown: tuple[int, int, int, int]
) -> None:
    patch = np.random.default_rng(1).random((64, 64, 3)).astype(np.float32)
    matrix = similarity(scale, 13, 0, 0)
    matrix[:, 2] = 31.5 - matrix[:, :2] @ np.array([60.3, 49.8])
    left, top, right, bottom = shown
    alpha = np.zeros((64, 64), np.float32)
    alpha[top:bottom, left:right] = 1
    part, whole = np.zeros((2, 100, 120, 3), np.uint8)
    paste_patch(part, patch, alpha, matrix)
    paste_patch(whole, patch, np.ones((64, 64), np.float32), matrix)
    y, x = np.mgrid[:100, :120]
    u, v = np.einsum("ij,jhw->ihw", matrix[:, :2], np.stack([x, y])) + matrix[:, 2, None, None]
    margin = 2 * max(scale, 1)  # the areas and samples that a frame's pixel is made of
    inside = (u > left + margin) & (u < right - 1 - margin) & (v > top + margin) & (v < bottom - 1 - margin)
    assert inside.sum() > 4
    np.testing.assert_allclose(part[inside].astype(int), whole[inside], atol=1)
