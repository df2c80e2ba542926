"""The drawn faces: same seed same picture, landmarks on the drawn features, mask on the face."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from fsdeploy.demo import shape
from fsdeploy.demo.identities import IDENTITIES, IDENTITY_A, IDENTITY_B
from fsdeploy.demo.render import draw
from fsdeploy.demo.scene import clip_scenes, random_scene
from fsdeploy.faces.aligned import AlignedFace

NEUTRAL = dataclasses.replace(
    random_scene(np.random.default_rng(0)),
    yaw=0.0, pitch=0.0, roll=0.0, scale=0.235, shift=(0.0, 0.0), mouth_open=0.0, smile=0.0, brow_raise=0.0, blink=0.0,
    light_azimuth=0.0, light_elevation=0.0, ambient=1.0, tint=(1.0, 1.0, 1.0), blur=0.0, noise=0.0,
)  # fmt: skip
SCENES = [
    NEUTRAL,
    dataclasses.replace(NEUTRAL, yaw=0.35, pitch=-0.1, roll=0.1, smile=0.8, mouth_open=0.1, brow_raise=0.7),
    dataclasses.replace(NEUTRAL, yaw=-0.3, pitch=0.15, roll=-0.15, shift=(0.03, -0.02), brow_raise=-0.6),
]


def polygon(points: np.ndarray, size: int = 256) -> np.ndarray:
    area = np.zeros((size, size), np.uint8)
    cv2.fillPoly(area, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    return area > 0


def nearest(frame: np.ndarray, colors: list[tuple[int, int, int]]) -> np.ndarray:
    """Index of the nearest of `colors` for every pixel: a segmentation that knows nothing of geometry."""
    distance = [np.linalg.norm(frame.astype(float) - color, axis=2) for color in colors]
    return np.argmin(distance, axis=0)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_the_same_scene_gives_the_same_bytes():
    one, other = (draw(IDENTITY_A, random_scene(np.random.default_rng(3))) for _ in range(2))
    assert np.array_equal(one.frame, other.frame)
    assert np.array_equal(one.landmarks, other.landmarks)
    assert np.array_equal(one.mask, other.mask)


def test_another_seed_gives_another_scene():
    assert random_scene(np.random.default_rng(1)) != random_scene(np.random.default_rng(2))


@pytest.mark.parametrize("scene", SCENES, ids=["front", "turned right", "turned left"])
def test_mouth_landmarks_outline_the_pixels_that_are_coloured_as_lips(scene):
    drawing = draw(IDENTITY_A, scene)
    labels = nearest(drawing.frame, [IDENTITY_A.skin, IDENTITY_A.lips, (82, 78, 148), (38, 28, 52)])
    around = polygon(cv2.convexHull(drawing.landmarks[48:68])[:, 0] * 1.0)
    around = cv2.dilate(around.astype(np.uint8), np.ones((11, 11))) > 0
    assert overlap(around & (labels > 0), polygon(drawing.landmarks[48:60])) > 0.8


@pytest.mark.parametrize("scene", SCENES, ids=["front", "turned right", "turned left"])
@pytest.mark.parametrize("eye", [slice(36, 42), slice(42, 48)], ids=["right eye", "left eye"])
def test_eye_landmarks_enclose_the_iris(scene, eye):
    drawing = draw(IDENTITY_A, scene)
    inside = polygon(drawing.landmarks[eye])
    blue = (drawing.frame[..., 0].astype(int) - drawing.frame[..., 2]) > 40
    window = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9))) > 0
    assert (blue & inside).sum() > 15
    assert (blue & window & ~inside).sum() <= 0.2 * (blue & inside).sum()


@pytest.mark.parametrize("identity", IDENTITIES, ids=["A", "B"])
@pytest.mark.parametrize("scene", SCENES, ids=["front", "turned right", "turned left"])
def test_brow_landmarks_lie_on_dark_hairs_of_the_brow(identity, scene):
    drawing = draw(identity, scene)
    labels = nearest(drawing.frame, [identity.skin, identity.brows])
    inner_points = np.round(drawing.landmarks[[18, 19, 20, 23, 24, 25]]).astype(int)
    near_brow = cv2.dilate((labels == 1).astype(np.uint8), np.ones((3, 3)))
    assert all(near_brow[y, x] for x, y in inner_points)


def test_an_opened_mouth_moves_the_lower_lip_and_chin_but_not_the_nose():
    closed, opened = (draw(IDENTITY_B, dataclasses.replace(NEUTRAL, mouth_open=amount)).landmarks for amount in (0, 1))
    moved = np.linalg.norm(opened - closed, axis=1)
    assert moved[57] > 10 and moved[8] > 8
    assert moved[27:36].max() == 0.0


def test_a_blink_brings_the_lids_together():
    landmarks = draw(IDENTITY_A, dataclasses.replace(NEUTRAL, blink=1.0)).landmarks
    opened = draw(IDENTITY_A, NEUTRAL).landmarks
    assert abs(landmarks[41, 1] - landmarks[37, 1]) < 0.15 * abs(opened[41, 1] - opened[37, 1])


def test_a_head_turned_by_yaw_is_solved_as_turned_by_its_landmarks():
    left, right = (
        AlignedFace.from_landmarks(draw(IDENTITY_A, dataclasses.replace(NEUTRAL, yaw=yaw)).landmarks)
        for yaw in (-0.35, 0.35)
    )
    assert left.offsets["head"][0] == pytest.approx(-right.offsets["head"][0], abs=1e-3)
    assert abs(right.offsets["head"][0]) > 0.03


@pytest.mark.parametrize("identity", IDENTITIES, ids=["A", "B"])
def test_landmarks_are_those_of_a_plausible_face(identity):
    rng = np.random.default_rng(5)
    for _ in range(10):
        face = AlignedFace.from_landmarks(draw(identity, random_scene(rng)).landmarks)
        assert face.average_distance < 0.15
        assert face.relative_position > 0.0


@pytest.mark.parametrize("identity", IDENTITIES, ids=["A", "B"])
def test_the_mask_covers_the_features_and_neither_hair_nor_room(identity):
    drawing = draw(identity, NEUTRAL)
    features = np.round(drawing.landmarks[17:]).astype(int)
    assert all(drawing.mask[y, x] == 255 for x, y in features)
    left, right = drawing.landmarks[[0, 16], 0]
    assert drawing.mask[:, : int(left) - 2].max() == 0 and drawing.mask[:, int(right) + 3 :].max() == 0
    assert drawing.mask[int(drawing.landmarks[8, 1]) + 3 :].max() == 0
    top = np.nonzero(drawing.mask.any(axis=1))[0][0]
    hair_above = drawing.frame[top - 8 : top - 4, 120:136].astype(float).mean(axis=(0, 1))
    assert np.linalg.norm(hair_above - identity.hair) < 40.0
    assert set(np.unique(drawing.mask)) == {0, 255}


def test_identities_differ_in_shape_and_colour_but_share_the_room():
    a, b = draw(IDENTITY_A, NEUTRAL), draw(IDENTITY_B, NEUTRAL)
    assert np.array_equal(a.frame[:40, :40], b.frame[:40, :40])
    assert np.abs(a.landmarks - b.landmarks).max() > 5.0
    cheek = tuple(np.round(a.landmarks[[2, 31]].mean(axis=0)).astype(int)[::-1])
    assert np.abs(a.frame[cheek].astype(int) - b.frame[cheek]).max() > 30


def test_light_from_the_right_brightens_the_right_of_the_face():
    lit = draw(IDENTITY_A, dataclasses.replace(NEUTRAL, light_azimuth=0.8, ambient=0.4))
    cheeks = np.round(lit.landmarks[[[2, 31], [14, 35]]].mean(axis=1)).astype(int)
    left, right = (lit.frame[y - 3 : y + 4, x - 3 : x + 4].mean() for x, y in cheeks)
    assert right > left + 10.0


def test_a_clip_moves_smoothly_and_blinks():
    scenes = clip_scenes(np.random.default_rng(0), 75, 25.0)
    yaw = np.array([scene.yaw for scene in scenes])
    assert np.abs(np.diff(yaw)).max() < 0.12
    assert max(scene.blink for scene in scenes) > 0.8
    assert len({scene.background for scene in scenes}) == 1


def test_the_triangles_use_every_vertex_and_are_counted_once():
    triangles = shape.triangles()
    assert set(triangles.ravel()) == set(range(len(shape.NEUTRAL)))
    assert len({frozenset(t) for t in triangles.tolist()}) == len(triangles)


def test_a_rotation_is_orthonormal_and_keeps_orientation():
    turn = shape.rotation(0.4, -0.2, 0.1)
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1.0)
