"""Masks against the specification's sums and hand-derived cases."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest

from fsdeploy.errors import HostileFileError, InputError
from fsdeploy.faces import masks
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.landmarks import INDICES_98_TO_68
from fsdeploy.faces.records import StoredMask

WINDOWS = {
    "v1": [("face", "face", 0.875, (8, 8, 112)), ("face", "legacy", 1.0, (13, 24, 102)),
           ("head", "face", 1.0, (16, 19, 96)), ("legacy", "face", 1.0, (-16, -29, 160))],
    "v2": [("face", "face", 0.875, (8, 8, 112)), ("face", "legacy", 1.0, (13, 24, 102)),
           ("head", "face", 1.0, (14, 19, 96)), ("legacy", "face", 1.0, (-15, -29, 160))],
}  # fmt: skip


def stored(pixels, centering="face"):
    return StoredMask.from_pixels(np.asarray(pixels, np.uint8), np.eye(2, 3), centering)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_windows_of_a_stored_mask_match_the_reference_vectors(request, name):
    face = AlignedFace.from_landmarks(request.getfixturevalue(name))
    for source, target, coverage, expected in WINDOWS[name]:
        mask = stored(np.zeros((128, 128)), source)
        assert masks.stored_mask_window(mask, face.offsets, target, coverage, 0.0) == expected


@pytest.mark.parametrize(("kind", "total"), [("components", 24769.57), ("extended", 27010.48)])
def test_landmark_masks_have_the_specified_sums(convert_face, kind, total):
    points = AlignedFace.from_landmarks(convert_face).aligned_landmarks(256, "face", 0.875)
    assert masks.landmark_mask(kind, points, 256).sum() / 255 == pytest.approx(total, rel=1e-3)


def test_the_mask_of_98_points_agrees_with_that_of_their_68(v2):
    points = AlignedFace.from_landmarks(v2).aligned_landmarks(256, "face", 1.0)
    wide = np.zeros((98, 2))
    wide[INDICES_98_TO_68] = points
    # Points that only the 98 set has: halfway between their neighbours on jaw, brows and eyes.
    wide[1:33:2] = (wide[0:32:2] + wide[2:34:2]) / 2
    for index in (38, 39, 40, 41):
        wide[index] = wide[37] + (wide[33] - wide[37]) * (index - 37) / 5 + (0, 2)
    for index in (47, 48, 49, 50):
        wide[index] = wide[46] + (wide[42] - wide[46]) * (index - 46) / 5 + (0, 2)
    wide[62], wide[66] = (wide[61] + wide[63]) / 2, (wide[65] + wide[67]) / 2
    wide[70], wide[74] = (wide[69] + wide[71]) / 2, (wide[73] + wide[75]) / 2
    for kind in masks.LANDMARK_MASKS:
        a, b = masks.landmark_mask(kind, points, 256), masks.landmark_mask(kind, wide, 256)
        assert np.abs(a.astype(int) - b).mean() < 2.5, kind
    assert np.array_equal(masks.landmark_mask("extended", wide, 256), masks.landmark_mask("extended", points, 256))


@pytest.mark.parametrize("count", [4, 51])
@pytest.mark.parametrize("kind", masks.LANDMARK_MASKS)
def test_a_landmark_mask_without_landmarks_for_it_is_a_clear_error(kind, count):
    with pytest.raises(InputError, match="stored mask"):
        masks.landmark_mask(kind, np.random.default_rng(1).uniform(0, 64, (count, 2)), 64)


def test_raised_brows_follow_the_formula(v1):
    points = np.floor(AlignedFace.from_landmarks(v1).aligned_landmarks(256, "face", 1.0))
    raised = masks.raise_brows(points)
    below = points[36]  # brow point 18 stands over eye corner 36
    assert np.array_equal(raised[18], points[18] + (points[18] - below) // 2)
    ql = (points[36] + (points[36] + points[0]) // 2) // 2
    assert np.array_equal(raised[17], points[17] + (points[17] - ql) // 2)
    assert np.array_equal(np.delete(raised, range(17, 27), axis=0), np.delete(points, range(17, 27), axis=0))


def test_the_eye_mask_is_two_blurred_ellipses_dilated_by_the_specified_share(v1):
    points = AlignedFace.from_landmarks(v1).aligned_landmarks(256, "face", 1.0)
    expected = np.zeros((256, 256), np.uint8)
    for group in (range(36, 42), range(42, 48)):
        hull = cv2.convexHull(np.rint(points[list(group)]).astype(np.int32))
        cv2.fillConvexPoly(expected, hull, 255, lineType=cv2.LINE_AA)
    expected = cv2.dilate(expected, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (6, 6)))  # 2.5 % of 256
    expected = cv2.GaussianBlur(expected, (17, 17), 0)  # 256 // 16, made odd
    assert np.array_equal(masks.landmark_mask("eye", points, 256), expected)


@pytest.mark.parametrize("dilation", [0.0, 2.0, -2.0])
def test_dilation_grows_and_shrinks_a_landmark_mask(v1, dilation):
    points = AlignedFace.from_landmarks(v1).aligned_landmarks(256, "face", 1.0)
    plain = masks.landmark_mask("components", points, 256).sum()
    assert np.sign(masks.landmark_mask("components", points, 256, dilation).astype(int).sum() - int(plain)) == np.sign(
        dilation
    )


def test_a_landmark_mask_is_blurred_in_proportion_to_its_crop(v1):
    points = AlignedFace.from_landmarks(v1).aligned_landmarks(256, "face", 1.0)
    plain = masks.landmark_mask("components", points, 256)
    assert np.array_equal(masks.landmark_mask("components", points, 256, 0, 3), cv2.GaussianBlur(plain, (7, 7), 0))


def test_a_stored_mask_of_its_own_centering_comes_back_as_it_was(v1):
    face = AlignedFace.from_landmarks(v1)
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    assert np.array_equal(masks.stored_mask(stored(pixels), face.offsets, "face", 1.0, 0.0, 128), pixels)


def test_a_vertical_offset_moves_a_stored_mask_also_at_full_coverage(v1):
    face = AlignedFace.from_landmarks(v1)
    pixels = np.zeros((128, 128), np.uint8)
    pixels[40:80, 40:80] = 255
    moved = masks.stored_mask(stored(pixels), face.offsets, "face", 1.0, 0.2, 128)
    assert np.array_equal(moved[13:], pixels[:-13])  # 0.2 of the 64 px core, rounded
    assert moved[:13].max() == 0


def test_a_dilation_below_one_pixel_changes_nothing(v1):
    face = AlignedFace.from_landmarks(v1)
    pixels = np.zeros((128, 128), np.uint8)
    pixels[40:80, 40:80] = 255
    assert np.array_equal(masks.stored_mask(stored(pixels), face.offsets, "face", 1.0, 0.0, 128, dilation=0.3), pixels)


def test_threshold_and_blur_are_applied_in_the_stored_masks_pixels(v1):
    face = AlignedFace.from_landmarks(v1)
    pixels = np.tile(np.arange(128, dtype=np.uint8) * 2, (128, 1))
    hard = masks.stored_mask(stored(pixels), face.offsets, "face", 1.0, 0.0, 128, threshold=10)
    assert hard[0, 12] == 0  # 24 < 25.5
    assert hard[0, 13] == 26
    assert hard[0, 114] == 228
    assert hard[0, 115] == 255  # 230 > 229.5
    soft = masks.stored_mask(stored(pixels), face.offsets, "face", 1.0, 0.0, 128, blur_kernel=4)
    assert np.array_equal(soft, cv2.GaussianBlur(pixels, (5, 5), 0))


def test_the_stored_size_decides_the_interpolation(v1):
    face = AlignedFace.from_landmarks(v1)
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    cut = pixels[8:120, 8:120]
    small = masks.stored_mask(stored(pixels), face.offsets, "face", 0.875, 0.0, 120)
    assert np.array_equal(small, cv2.resize(cut, (120, 120), interpolation=cv2.INTER_AREA))
    large = masks.stored_mask(stored(pixels), face.offsets, "face", 0.875, 0.0, 256)
    assert np.array_equal(large, cv2.resize(cut, (256, 256), interpolation=cv2.INTER_CUBIC))


def test_a_mask_that_unpacks_to_more_than_it_says_is_refused():
    bomb = StoredMask(zlib.compress(bytes(50_000_000)), np.eye(2, 3), 1, 128)
    with pytest.raises(HostileFileError, match="16384"):
        bomb.decompress()


@pytest.mark.parametrize("data", [b"", b"junk", zlib.compress(bytes(100)), zlib.compress(bytes(128 * 128))[:-3]])
def test_damaged_mask_data_is_refused(data):
    with pytest.raises(InputError):
        StoredMask(data, np.eye(2, 3), 1, 128).decompress()


def test_a_drawn_mask_lies_over_the_real_stored_one(real_data):
    from fsdeploy.faces.png import read_header

    for path in sorted((real_data / "faces" / "B").glob("*.png"))[::20]:
        record = read_header(path).face
        face = AlignedFace.from_landmarks(record.landmarks)
        drawn = masks.landmark_mask("components", face.aligned_landmarks(128, "face", 1.0), 128) > 127
        kept = masks.stored_mask(record.masks["custom_face"], face.offsets, "face", 1.0, 0.0, 128) > 127
        assert (drawn & kept).sum() / (drawn | kept).sum() > 0.7
