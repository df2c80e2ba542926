"""Variations on the CPU against the formulas of data.md 10 and OpenCV."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from fsdeploy.config.training import AugmentationOptions
from fsdeploy.errors import ConfigError
from fsdeploy.training.data import colour, grid
from fsdeploy.training.data.augmentation import ConstantsAugmentation, Draw, FaceVariation, ImageAugmentation, Variation
from fsdeploy.training.data.landmark_warp import landmark_map

STILL = {
    "zoom_amount": 0, "rotation_range": 0, "shift_range": 0, "flip_chance": 0,
    "color_lightness": 0, "color_ab": 0, "color_clahe_chance": 0,
}  # fmt: skip
IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def smooth_image(size, seed=0):
    random = np.random.default_rng(seed)
    small = random.integers(30, 226, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def augmentation(size, rows=4, seed=0, **options):
    options = AugmentationOptions(**{**STILL, **options})
    return ImageAugmentation(rows, size, options, np.random.default_rng(seed))


def test_constants_follow_the_table():
    c = ConstantsAugmentation.from_config(512, 6)
    assert c.color.clahe_base_contrast == 4
    assert (c.color.clahe_chance, c.color.clahe_max_size) == (0.5, 4)
    np.testing.assert_array_equal(c.color.lab_adjust, np.array([0.30, 0.08, 0.08], np.float32))
    assert (c.transform.rotation, c.transform.zoom, c.transform.flip) == (10, 0.05, 0.5)
    assert c.transform.shift == pytest.approx(25.6)
    assert c.warp.maps.shape == (6, 2, 5, 5)
    np.testing.assert_array_equal(c.warp.maps[3, 0, 2], [0, 128, 256, 384, 512])
    np.testing.assert_array_equal(c.warp.maps[3, 1, :, 2], [0, 128, 256, 384, 512])
    assert (c.warp.pad, c.warp.slices) == ((640, 640), slice(64, -64))
    assert (c.warp.scale, c.warp.lm_scale) == (10, 4)
    anchors = [(0, 0), (0, 511), (511, 511), (511, 0), (255, 0), (255, 511), (511, 255), (0, 255)]
    np.testing.assert_array_equal(c.warp.lm_edge_anchors[5], anchors)
    assert (c.warp.lm_grids[0][3, 7], c.warp.lm_grids[1][3, 7]) == (3, 7)


@pytest.mark.parametrize(("size", "grids"), [(64, {2, 3, 4, 5, 6}), (256, {2, 3, 4, 5, 6}), (512, {4, 6, 8, 10, 12})])
def test_contrast_grids_are_those_of_the_defaults(size, grids):
    draw = Draw(ConstantsAugmentation.from_config(size, 1), size)
    _, drawn = draw.color(np.random.default_rng(0), 2000)
    assert set(drawn.tolist()) == grids | {0}
    assert 0.45 < (drawn == 0).mean() < 0.55


@pytest.mark.parametrize(
    ("option", "value"),
    [("zoom_amount", 26), ("flip_chance", 76), ("color_ab", 51), ("color_clahe_max_size", 0), ("rotation_range", -1)],
)
def test_an_option_out_of_range_is_refused_by_name(option, value):
    with pytest.raises(ConfigError, match=option):
        ConstantsAugmentation.from_config(64, 1, dataclasses.replace(AugmentationOptions(), **{option: value}))


def test_the_transform_matrix_is_the_specified_one():
    matrix = grid.transform_matrices(np.array([10.0]), np.array([1.05]), np.array([[3.0, -2.0]]), 128)[0]
    expected = [[1.034048, 0.182331, -10.740045], [-0.182331, 1.034048, 7.415938]]
    np.testing.assert_allclose(matrix, expected, atol=1e-5)  # the example was computed in single precision


def test_a_flip_mirrors_about_the_middle_of_the_pixels():
    matrices = grid.flip_matrices(np.stack([IDENTITY, IDENTITY]), np.array([True, False]), 64)
    points = grid.apply_to_points(matrices, np.array([[[0.0, 5.0]], [[0.0, 5.0]]]))
    np.testing.assert_array_equal(points, [[[63, 5]], [[0, 5]]])


def test_an_inverted_matrix_brings_points_back():
    matrices = grid.transform_matrices(np.array([7.0, -9]), np.array([0.96, 1.04]), np.array([[1.0, 2], [-3, 4]]), 96)
    points = np.random.default_rng(0).uniform(0, 96, (2, 9, 2))
    back = grid.apply_to_points(grid.invert(matrices), grid.apply_to_points(matrices, points))
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_points_follow_the_pixels_through_transform_and_flip():
    size = 96
    image = np.zeros((8, size, size, 3), np.uint8)
    points = np.random.default_rng(3).uniform(25, 70, (8, 2, 1, 2)).astype(np.float32)
    for row, (x, y) in zip(image, points[:, 0, 0], strict=True):
        cv2.circle(row, (round(x * 16), round(y * 16)), 48, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
    variation = augmentation(size, 8, zoom_amount=5, rotation_range=10, shift_range=5, flip_chance=50)
    variation.transform(image, points)
    variation.random_flip(image, points)
    for row, point in zip(image, points[:, 0, 0], strict=True):
        weight = row[..., 0].astype(float)
        y, x = np.mgrid[0:size, 0:size]
        centre = (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()
        np.testing.assert_allclose(centre, point, atol=0.15)


def test_a_flipped_row_is_the_mirror_image():
    batch = np.stack([smooth_image(32, i) for i in range(40)])
    before = batch.copy()
    augmentation(32, 40, flip_chance=50).random_flip(batch)
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(batch, before, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(batch, before, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize("size", [64, 130, 97])
def test_a_warp_without_noise_changes_nothing_at_any_size(size):
    places = grid.enlarge(grid.base_nodes(size), grid.node_weights(size))
    y, x = np.mgrid[0:size, 0:size]
    np.testing.assert_allclose(places, [x, y], atol=1e-4)
    image = smooth_image(size)
    still = Variation(
        np.zeros((1, 3), np.float32), np.zeros(1, np.int64), IDENTITY[None], np.zeros((1, 2, 5, 5), np.float32)
    )
    rows = FaceVariation(still, ConstantsAugmentation.from_config(size, 1), size)
    assert np.abs(rows.feed(0, image, image).astype(int) - image).max() <= 1


def test_warp_noise_is_two_percent_of_the_edge_at_the_nodes():
    for size, deviation in ((64, 1.25), (256, 5.0)):
        noise = Draw(ConstantsAugmentation.from_config(size, 1), size).noise(np.random.default_rng(0), 400)
        assert noise.std() == pytest.approx(deviation, rel=0.02)


def test_what_a_warp_fetches_from_outside_the_face_is_black_and_fades_over_one_pixel():
    size = 32
    noise = np.zeros((2, 2, 5, 5), np.float32)
    noise[0, 0] = 3.5  # every pixel comes from 3.5 px to the right
    noise[1, 1] = -2.25  # every pixel comes from 2.25 px above
    fade = grid.EdgeFade(noise, grid.node_weights(size))
    right, above = np.full((2, size, size, 3), 200, np.uint8)
    fade.apply(0, right)
    fade.apply(1, above)
    np.testing.assert_array_equal(right[5, :, 0], [200] * 28 + [100] + [0] * 3)
    np.testing.assert_array_equal(above[:, 5, 0], [0, 0, 150] + [200] * 29)


@pytest.mark.parametrize(("size", "scale"), [(64, 1.25), (97, 2.0), (48, 14.0)])
def test_edges_fade_as_opencv_fades_a_white_face_into_a_black_border(size, scale):
    noise = np.random.default_rng(size).normal(0, scale, (20, 2, 5, 5)).astype(np.float32)
    weights = grid.node_weights(size)
    fade = grid.EdgeFade(noise, weights)
    white = np.full((size, size, 1), 255, np.float32)
    for row in range(20):
        places = grid.enlarge(grid.base_nodes(size) + noise[row], weights)
        expected = cv2.remap(white, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        image = np.full((size, size, 1), 255, np.uint8)
        fade.apply(row, image)
        # OpenCV 4 places samples on a grid of 1/32 pixel, which is 8 levels
        assert np.abs(image[..., 0] - expected).max() <= 9


def test_one_interpolation_shows_the_same_picture_as_two_steps():
    size, rows = 128, 6
    draw = Draw(ConstantsAugmentation.from_config(size, rows), size)
    variation = draw.batch(np.random.default_rng(1), rows, color=False)
    constants = ConstantsAugmentation.from_config(size, rows)
    once = FaceVariation(variation, constants, size)
    second = dataclasses.replace(variation, matrices=np.broadcast_to(IDENTITY, (rows, 2, 3)))
    twice = FaceVariation(second, constants, size)
    for row in range(rows):
        image = smooth_image(size, row)
        target = once.target(row, image)
        a, b = once.feed(row, image, target).astype(int), twice.feed(row, target, target).astype(int)
        # pixels at the border of the transformed face may be filled or black by a pixel's fraction
        difference = np.abs(a - b)[16:-16, 16:-16]
        assert difference.mean() < 1.0
        assert difference.max() <= 8


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("centre", [(80, 60), (100, 120), (20, 190)])
def test_moving_the_lit_part_of_a_mask_is_moving_the_mask(count, centre):
    size, rows = 200, 12
    masks = np.zeros((count, size, size), np.uint8)
    for i, mask in enumerate(masks):
        cv2.ellipse(mask, centre, (18, 8 + i), 10, 0, 360, 255, -1, cv2.LINE_AA)
    constants = ConstantsAugmentation.from_config(size, rows)
    varied = FaceVariation(Draw(constants, size).batch(np.random.default_rng(2), rows), constants, size)
    for row in range(rows):
        moved = varied.spots(row, masks)
        for i, mask in enumerate(masks):
            expected = varied.target(row, mask[..., None])[..., 0]
            assert np.abs(moved[..., i].astype(int) - expected).max() <= 8  # places on a grid of 1/32 pixel
            assert expected.max() > 200


def test_a_black_mask_stays_black():
    constants = ConstantsAugmentation.from_config(200, 1)
    varied = FaceVariation(Draw(constants, 200).batch(np.random.default_rng(0), 1), constants, 200)
    assert not varied.spots(0, np.zeros((2, 200, 200), np.uint8)).any()


def test_levels_are_moved_towards_white_or_black_by_their_share():
    tables = colour.shift_tables(np.array([[0.25, -0.25, 0.0]], np.float32))[0]
    assert tables.dtype == np.uint8
    assert [tables[v, 0] for v in (0, 100, 255)] == [63, 138, 255]  # v + (255 - v) / 4, truncated
    assert [tables[v, 1] for v in (0, 101, 255)] == [0, 75, 191]  # 3 v / 4, truncated
    np.testing.assert_array_equal(tables[:, 2], np.arange(256))


def test_contrast_equalisation_is_opencvs_on_lightness_alone():
    image = smooth_image(64)
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (3, 3)).apply(lab[..., 0])
    expected = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
    nothing = colour.shift_tables(np.zeros((1, 3), np.float32))[0]
    np.testing.assert_array_equal(colour.adjust_color(image, nothing, 3), expected)


def test_colour_variation_gives_new_bytes_of_the_same_shape():
    batch = np.stack([smooth_image(48, i) for i in range(5)])
    before = batch.copy()
    result = augmentation(48, 5, color_lightness=30, color_ab=8).color_adjust(batch)
    assert (result.shape, result.dtype) == (batch.shape, np.uint8)
    np.testing.assert_array_equal(batch, before)
    assert all(np.abs(a.astype(int) - b).mean() > 0.5 for a, b in zip(result, before, strict=True))


def face_points(size):
    from fsdeploy.faces.landmarks import MEAN_FACE

    angles = np.pi * (1 - np.arange(17) / 16)
    jaw = np.stack([0.5 + 0.58 * np.cos(angles), 0.20 + 0.95 * np.sin(angles)], axis=1)
    return ((np.concatenate([jaw, MEAN_FACE]) - 0.5) * size / 2 + size / 2).astype(np.float32)


def dot_centre(image):
    weight = np.maximum(image[..., 0].astype(float) - 128, 0)
    y, x = np.mgrid[0 : len(image), 0 : len(image)]
    return (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()


@pytest.mark.parametrize("move", [(8, 0), (0, 8), (-6, 5)])
def test_a_warp_to_landmarks_moves_a_landmark_where_it_is_told(move):
    size = 128
    source = face_points(size)
    target = source.copy()
    target[27:36] += move  # the nose
    image = np.zeros((size, size, 3), np.uint8)
    cv2.circle(image, tuple(int(v) for v in np.rint(source[30])), 2, (255, 255, 255), -1)
    anchors = ConstantsAugmentation.from_config(size, 1).warp.lm_edge_anchors[0]
    mesh = landmark_map(source, target, anchors, size)
    places = mesh.to_map(np.mgrid[0:size, 0:size].astype(np.float32), IDENTITY)
    x, y = (int(v) for v in np.rint(target[30]))
    np.testing.assert_allclose(places[:, y, x], source[30] + (np.rint(target[30]) - target[30]), atol=0.8)
    warped = cv2.remap(image, places[0], places[1], cv2.INTER_LINEAR)
    np.testing.assert_allclose(dot_centre(warped), np.rint(source[30]) + move, atol=1.0)


def test_the_warp_step_takes_source_and_target_points():
    size = 128
    source = np.stack([face_points(size)] * 3)
    image = np.zeros((3, size, size, 3), np.uint8)
    for row in image:
        cv2.circle(row, tuple(int(v) for v in np.rint(source[0, 30])), 3, (255, 255, 255), -1)
    warped = augmentation(size, 3).warp(image, True, source, source + np.float32([9, 0]))
    for row in warped:  # the noise of one pixel stays small against nine
        np.testing.assert_allclose(dot_centre(row), source[0, 30] + [9, 0], atol=3.5)
    with pytest.raises(ValueError, match="batch_dst_points"):
        augmentation(size).warp(image, True, source)


def test_equal_landmarks_warp_nothing():
    size = 96
    points = face_points(size)
    anchors = ConstantsAugmentation.from_config(size, 1).warp.lm_edge_anchors[0]
    places = landmark_map(points, points, anchors, size).to_map(np.mgrid[0:size, 0:size].astype(np.float32), IDENTITY)
    y, x = np.mgrid[0:size, 0:size]
    np.testing.assert_allclose(places, [x, y], atol=1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_landmarks_that_are_no_numbers_leave_the_face_as_it_is(broken):
    size = 64
    points = face_points(size)
    spoilt = points.copy()
    spoilt[40] = broken
    anchors = ConstantsAugmentation.from_config(size, 1).warp.lm_edge_anchors[0]
    mesh = landmark_map(points, spoilt, anchors, size)
    assert len(mesh.matrices) == 1
    assert not mesh.index.any()


def test_landmarks_outside_the_face_still_give_a_whole_map():
    size = 64
    random = np.random.default_rng(0)
    anchors = ConstantsAugmentation.from_config(size, 1).warp.lm_edge_anchors[0]
    rows = np.mgrid[0:size, 0:size].astype(np.float32)
    for _ in range(10):
        source = face_points(size) * 1.3 - 10 + random.normal(0, 2, (68, 2))
        mesh = landmark_map(source, source + random.normal(0, 3, (68, 2)), anchors, size)
        assert np.isfinite(mesh.to_map(rows, IDENTITY)).all()
        assert (mesh.index > 0).mean() > 0.99
