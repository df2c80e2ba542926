"""Alignment against the specification's reference vectors (faces.md 9, convert.md 22) and OpenCV's solver."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsdeploy.errors import InputError
from fsdeploy.faces import geometry
from fsdeploy.faces.aligned import AlignedFace, align_each, align_many, warp_crop
from fsdeploy.faces.landmarks import HEAD_3D, HEAD_3D_INDICES, INDICES_98_TO_68, MEAN_FACE, to_68
from fsdeploy.faces.pose import CAMERA, CENTRE_3D

VECTORS = {
    "v1": {
        "points": {8: (400, 480), 30: (400, 353.125), 57: (400, 431.8562)},
        "matrix": [[0.005, 0, -1.5], [0, 0.005, -1.25]],
        "head": (0, -0.234956),
        "face": (0, -0.164789),
        "rotation": (-0.024615, 0, 0),
        "translation": (0, 3.640691, -58.717875),
        "angles": (-1.4104, 0, 0),
        "distance": 0,
        "position": 0.482289,
        "aligned": [
            (256, "legacy", 1, 0, 30, (128, 130.5)),
            (256, "face", 1, 0, 30, (128, 151.093)),
            (256, "face", 1, 0, 57, (128, 201.481)),
            (128, "face", 0.875, 0, 30, (64, 77.351)),
            (128, "face", 0.875, 0.1, 30, (64, 84.751)),
        ],
        "adjusted": [[0.96, 0, -128], [0, 0.96, -34.8885]],
        "roi": [(200, 117), (200, 515), (598, 515), (598, 117)],
        "windows": [
            (512, "head", "face", 1, 0, (64, 77, 384)),
            (512, "head", "face", 0.875, 0, (88, 101, 336)),
            (512, "head", "face", 0.875, 0.1, (88, 82, 336)),
            (512, "head", "legacy", 0.625, 0, (160, 205, 192)),
            (512, "head", "head", 0.9, 0, (26, 26, 460)),
            (384, "head", "face", 0.8, 0, (77, 87, 230)),
        ],
    },
    "v2": {
        "points": {8: (433.3578, 523.2404), 30: (462.9117, 412.9437), 57: (444.5723, 481.3874)},
        "matrix": [[0.005339, 0.001518, -2.606907], [-0.001518, 0.005339, -0.986269]],
        "head": (0.041665, -0.234810),
        "face": (0.007610, -0.164901),
        "rotation": (-0.025328, 0.081261, 0.001838),
        "translation": (-0.448736, 3.638999, -58.704865),
        "angles": (-1.4501, 4.6567, 0.0464),
        "distance": 0.004890,
        "position": 0.477501,
        "aligned": [
            (256, "legacy", 1, 0, 30, (126.643, 130.514)),
            (256, "face", 1, 0, 30, (125.940, 151.119)),
            (256, "face", 1, 0, 57, (126.707, 201.457)),
            (128, "face", 0.875, 0, 30, (62.809, 77.366)),
            (128, "face", 0.875, 0.1, 30, (62.809, 84.766)),
        ],
        "adjusted": [[1.025104, 0.29148, -348.5258], [-0.29148, 1.025104, 15.7197]],
        "roi": [(351, 160), (252, 505), (598, 603), (696, 258)],
        "windows": [
            (512, "head", "face", 1, 0, (57, 77, 384)),
            (512, "head", "face", 0.875, 0, (81, 101, 336)),
            (512, "head", "face", 0.875, 0.1, (81, 82, 336)),
            (512, "head", "legacy", 0.625, 0, (152, 205, 192)),
            (512, "head", "head", 0.9, 0, (26, 26, 460)),
            (384, "head", "face", 0.8, 0, (72, 87, 230)),
        ],
    },
}


@pytest.fixture(params=["v1", "v2"])
def vector(request):
    return VECTORS[request.param], AlignedFace.from_landmarks(request.getfixturevalue(request.param))


def test_the_reference_landmarks_are_the_specified_ones(vector):
    expected, face = vector
    for index, point in expected["points"].items():
        assert face.landmarks[index] == pytest.approx(point, abs=1e-3)


def test_matrix_pose_and_offsets_match_the_reference_vectors(vector):
    expected, face = vector
    assert face.matrix == pytest.approx(np.array(expected["matrix"]), abs=1e-6)
    assert face.offsets["head"] == pytest.approx(expected["head"], abs=2e-6)
    assert face.offsets["face"] == pytest.approx(expected["face"], abs=2e-6)
    assert tuple(face.offsets["legacy"]) == (0, 0)
    assert face.pose.rotation == pytest.approx(expected["rotation"], abs=2e-6)
    assert face.pose.translation == pytest.approx(expected["translation"], abs=1e-4)
    assert face.pose.angles() == pytest.approx(expected["angles"], abs=1e-3)
    assert face.average_distance == pytest.approx(expected["distance"], abs=1e-6)
    assert face.relative_position == pytest.approx(expected["position"], abs=1e-6)


def test_aligned_points_and_matrices_match_the_reference_vectors(vector):
    expected, face = vector
    for size, centering, coverage, vertical, index, point in expected["aligned"]:
        points = face.aligned_landmarks(size, centering, coverage, vertical)
        assert points[index] == pytest.approx(point, abs=1e-3), (size, centering, coverage, vertical)
    assert face.adjusted_matrix(512, "head", 1.0) == pytest.approx(np.array(expected["adjusted"]), abs=1e-3)
    assert face.roi(256, "face", 1.0).tolist() == [list(corner) for corner in expected["roi"]]


def test_windows_of_a_stored_face_match_the_reference_vectors(vector):
    expected, face = vector
    for stored, source, centering, coverage, vertical, result in expected["windows"]:
        found = geometry.sub_crop_window(stored, face.offsets, source, centering, coverage, vertical)
        assert found == result, (stored, centering, coverage, vertical)


@pytest.mark.parametrize(
    ("size", "centering", "coverage", "expected"),
    [
        (256, "legacy", 1, 48),
        (256, "face", 1, 64),
        (128, "face", 0.875, 27),
        (512, "head", 1, 160),
        (64, "legacy", 0.6875, 3),
    ],
)
def test_padding_matches_the_reference_vectors(size, centering, coverage, expected):
    assert geometry.padding(size, centering, coverage) == expected


def test_the_convert_vectors_hold(convert_face):
    face = AlignedFace.from_landmarks(convert_face)
    assert face.landmarks[[0, 30, 36, 54]] == pytest.approx(
        np.array([(379.472, 197.441), (479.512, 272.770), (423.561, 208.217), (516.071, 327.051)]), abs=1e-3
    )
    assert face.matrix == pytest.approx(
        np.array([[0.005445, 0.000928, -2.367698], [-0.000928, 0.005445, -0.522097]]), abs=1e-6
    )
    assert face.offsets["face"] == pytest.approx((-0.002645, -0.157675), abs=3e-5)
    assert face.offsets["head"] == pytest.approx((-0.021258, -0.190189), abs=3e-5)
    for size, centering, coverage, expected in [
        (256, "face", 0.875, [[0.794933, 0.135476, -290.2977], [-0.135476, 0.794933, 1.7943]]),
        (64, "legacy", 0.6875, [[0.315795, 0.053819, -134.3265], [-0.053819, 0.315795, -27.2817]]),
        (128, "head", 1.0, [[0.261348, 0.04454, -72.6291], [-0.04454, 0.261348, 24.0684]]),
    ]:
        matrix = face.adjusted_matrix(size, centering, coverage)
        assert matrix == pytest.approx(np.array(expected), abs=4e-3)
        assert geometry.interpolators(matrix) == (cv2.INTER_AREA, cv2.INTER_CUBIC)
    points = face.aligned_landmarks(256, "face", 0.875)
    assert points[[30, 8]] == pytest.approx(np.array([(127.836, 153.666), (127.266, 253.002)]), abs=4e-3)
    assert face.aligned_landmarks(256, "face", 0.875, 0.1)[30] == pytest.approx((127.836, 168.266), abs=4e-3)


@pytest.mark.parametrize(
    ("size", "centering", "coverage", "vertical", "mean"),
    [
        (256, "face", 0.875, 0.0, (128.84, 113.88, 130.39)),
        (256, "face", 0.875, 0.1, (129.65, 105.44, 129.66)),
        (64, "legacy", 0.6875, 0.0, (127.49, 126.72, 127.33)),
        (128, "head", 1.0, 0.0, (125.36, 110.37, 124.91)),
    ],
)
def test_a_crop_of_the_reference_frame_has_the_specified_mean(
    convert_face, convert_frame, size, centering, coverage, vertical, mean
):
    assert int(convert_frame.sum()) == 198221288
    face = AlignedFace.from_landmarks(convert_face)
    crop = face.crop(convert_frame, size, centering, coverage, vertical)
    # Whole-pixel padding in the vectors, none in ours: within the 2 grey levels that the vectors allow.
    assert crop.reshape(-1, 3).mean(axis=0) == pytest.approx(mean, abs=2.0)


def noisy_faces(count, seed=7):
    """Mean faces with strong shear, rotation and noise, normalised 68 points."""
    rng = np.random.default_rng(seed)
    angles = np.pi * (1 - np.arange(17) / 16)
    jaw = np.stack([0.5 + 0.58 * np.cos(angles), 0.20 + 0.95 * np.sin(angles)], axis=1)
    base = np.concatenate([jaw, MEAN_FACE])
    faces = np.repeat(base[None], count, axis=0)
    faces[..., 0] += rng.uniform(-0.5, 0.5, (count, 1)) * (faces[..., 0] - 0.5) ** 2
    faces += rng.normal(0, 0.02, faces.shape)
    return faces * rng.uniform(60, 400, (count, 1, 1)) + rng.uniform(0, 1000, (count, 1, 2))


def opencv_offsets(normalised):
    """The offsets of OpenCV's solver, refined until its steps vanish (its default stops some 2e-5 short)."""
    image = to_68(normalised)[HEAD_3D_INDICES]
    _, rotation, translation = cv2.solvePnP(HEAD_3D, image, CAMERA, None, flags=cv2.SOLVEPNP_ITERATIVE)
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 1000, 1e-14)
    for _ in range(3):
        rotation, translation = cv2.solvePnPRefineLM(HEAD_3D, image, CAMERA, None, rotation, translation, criteria)
    return {
        name: cv2.projectPoints(np.array([point]), rotation, translation, CAMERA, None)[0].ravel() - 0.5
        for name, point in CENTRE_3D.items()
    }


def assert_offsets_as_opencv(landmarks):
    for face in align_many(landmarks):
        for name, expected in opencv_offsets(face.normalised).items():
            assert face.offsets[name] == pytest.approx(expected, abs=1e-5)


def test_the_batched_pose_agrees_with_opencv_on_sheared_noisy_faces():
    assert_offsets_as_opencv(list(noisy_faces(200)))


def test_the_batched_pose_agrees_with_opencv_on_real_faces(real_data):
    from fsdeploy.faces.alignments import read_alignments

    for clip in ("clip_A", "clip_B"):
        alignments = read_alignments(real_data / f"{clip}_alignments.fsa")
        assert_offsets_as_opencv([face.landmarks for faces in alignments.frames.values() for face in faces][::4])


@pytest.mark.parametrize("largest", [30, 60])
def test_the_batched_pose_agrees_with_opencv_on_heads_turned_far(largest):
    rng = np.random.default_rng(largest)
    faces = np.zeros((60, 68, 2))
    for face in faces:
        pitch, yaw, roll = np.radians(rng.uniform(-largest, largest, 3) * (0.6, 1.0, 0.6))
        turn = [
            cv2.Rodrigues(axis)[0] for axis in (np.array([pitch, 0, 0]), np.array([0, yaw, 0]), np.array([0, 0, roll]))
        ]
        seen = HEAD_3D @ (turn[0] @ turn[1] @ turn[2]).T + (0, 3.64, -58.7) + rng.normal(0, 1, 3)
        face[HEAD_3D_INDICES] = 4 * seen[:, :2] / seen[:, 2:] + 0.5
    faces += rng.normal(0, 0.02, faces.shape)
    offsets = geometry.centering_offsets(geometry.solve_pose(faces))
    for index, face in enumerate(faces):
        for name, expected in opencv_offsets(face).items():
            assert offsets[name][index] == pytest.approx(expected, abs=1e-5)


def test_one_face_and_a_batch_give_the_same_result():
    faces = list(noisy_faces(5))
    for single, row in zip((AlignedFace.from_landmarks(face) for face in faces), align_many(faces), strict=True):
        assert row.matrix == pytest.approx(single.matrix, abs=1e-12)
        assert row.offsets["head"] == pytest.approx(single.offsets["head"], abs=1e-9)


def test_the_similarity_is_umeyamas(v2):
    # The SVD form of the paper, as an independent oracle of the closed form.
    source, target = v2[17:].astype(np.float64), MEAN_FACE
    ps, pt = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(pt.T @ ps / 51)
    sign = np.array([1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (s * sign).sum() / ps.var(axis=0).sum()
    shift = target.mean(0) - scale * rotation @ source.mean(0)
    assert geometry.similarity(v2) == pytest.approx(np.column_stack([scale * rotation, shift]), abs=1e-12)


def test_98_points_align_as_their_68(v2):
    points = np.zeros((98, 2), np.float32)
    points[INDICES_98_TO_68] = v2
    wide, full = AlignedFace.from_landmarks(points), AlignedFace.from_landmarks(v2)
    assert np.array_equal(wide.matrix, full.matrix)
    assert np.array_equal(wide.offsets["face"], full.offsets["face"])
    assert wide.average_distance == full.average_distance > 0
    assert wide.relative_position == full.relative_position < 1
    assert wide.aligned_landmarks(256, "face", 1.0).shape == (98, 2)


def test_51_points_align_without_a_pose(v2):
    face = AlignedFace.from_landmarks(v2[17:])
    assert face.matrix == pytest.approx(geometry.similarity(v2), abs=1e-12)
    assert all(tuple(offset) == (0, 0) for offset in face.offsets.values())
    assert (face.average_distance, face.relative_position) == (0.0, 1.0)


def test_4_points_align_their_box_to_the_unit_square():
    face = AlignedFace.from_landmarks(np.array([(100, 50), (300, 50), (300, 250), (100, 250)], np.float32))
    assert face.matrix == pytest.approx(np.array([[0.005, 0, -0.5], [0, 0.005, -0.25]]), abs=1e-9)
    assert all(tuple(offset) == (0, 0) for offset in face.offsets.values())
    assert not face.pose.rotation.any()
    assert not face.pose.translation.any()


@pytest.mark.parametrize(
    ("landmarks", "reason"),
    [
        (np.full((68, 2), 3.0), "one point"),
        (np.full((68, 2), np.nan), "not numbers"),
        (np.zeros((67, 2)), "no known type"),
        (np.zeros((68, 3)), "no known type"),
        (np.full((68, 2), 1e9), "pixels out"),
        (np.concatenate([np.zeros((17, 2)), MEAN_FACE * 0.01]), "no face"),
    ],
)
def test_landmarks_of_no_face_are_refused_with_the_reason(landmarks, reason):
    with pytest.raises(InputError, match=reason):
        AlignedFace.from_landmarks(landmarks)


def test_a_bad_face_costs_only_itself(v1, v2):
    results = align_each([v1, np.zeros((68, 2)), v2, v2[17:]])
    assert [isinstance(result, InputError) for result in results] == [False, True, False, False]
    assert results[2].matrix == pytest.approx(geometry.similarity(v2))
    with pytest.raises(InputError, match="face 1"):
        align_many([v1, np.zeros((68, 2))])


def test_what_lies_outside_a_stored_face_is_black(v1):
    face = AlignedFace.from_landmarks(v1)
    image = np.full((512, 512, 3), 255, np.uint8)
    left, top, edge = geometry.sub_crop_window(512, face.offsets, "head", "head", 1.0, -0.25)
    crop = geometry.sub_crop(image, face.offsets, "head", "head", 1.0, -0.25, 512)
    assert (left, edge) == (0, 512)
    assert top == 48  # 0.25 of the 192 px core, downwards
    assert crop[: 512 - top].min() == 255
    assert crop[512 - top :].max() == 0


def test_a_legacy_face_is_cropped_as_legacy_and_refused_for_other_centerings(v1):
    face = AlignedFace.from_landmarks(v1)
    image = np.arange(256, dtype=np.uint8)[:, None, None] * np.ones((1, 256, 3), np.uint8)
    assert np.array_equal(geometry.sub_crop(image, face.offsets, "legacy", "legacy", 1.0, 0.0, 256), image)
    with pytest.raises(InputError, match="legacy"):
        geometry.sub_crop(image, face.offsets, "legacy", "face", 1.0, 0.0, 256)


@pytest.mark.parametrize("centering", ["legacy", "face", "head"])
@pytest.mark.parametrize(("coverage", "vertical", "size"), [(1.0, 0.0, 128), (0.875, 0.1, 64), (0.625, -0.2, 256)])
def test_the_real_valued_crop_is_the_training_crop(v2, centering, coverage, vertical, size):
    # A smooth frame, its stored 512 px face, and the sub-crop of that: both roads end at the same picture.
    x, y = np.meshgrid(np.arange(900), np.arange(800))
    frame = np.stack([x * 255 / 900, y * 255 / 800, 128 + 100 * np.sin(x / 60)], axis=-1).astype(np.uint8)
    face = AlignedFace.from_landmarks(v2)
    stored = warp_crop(frame, face.adjusted_matrix(512, "head", 1.0), 512)
    trained = geometry.sub_crop(stored, face.offsets, "head", centering, coverage, vertical, size)
    direct = face.crop(frame, size, centering, coverage, vertical)
    inside = (trained.min(axis=2) > 0) & (direct.min(axis=2) > 0)
    difference = np.abs(trained.astype(int) - direct.astype(int))[inside]
    assert difference.mean() < 1.0


def test_the_real_valued_map_follows_its_formula(v1):
    face = AlignedFace.from_landmarks(v1)
    # centering face, coverage .875: window of 336 px, core 192; V1: N = .005 p + t - offset
    matrix = face.crop_matrix(64, "face", 0.875, 0.1)
    k = 64 / 336
    ty = -1.25 + 0.164789 + 0.1
    expected = [
        [0.005 * 192 * k, 0, (-1.5 * 192 + 72) * k + (k - 1) / 2],
        [0, 0.005 * 192 * k, (ty * 192 + 72) * k + (k - 1) / 2],
    ]
    assert matrix == pytest.approx(np.array(expected), abs=1e-4)


def test_a_strongly_shrunk_crop_does_not_alias():
    # A one-pixel checkerboard averages to grey; a plain bilinear warp would show moire.
    y, x = np.mgrid[0:2048, 0:2048]
    frame = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    points = MEAN_FACE * 900 + 500
    crop = AlignedFace.from_landmarks(points).crop(frame, 64, "legacy", 1.0)
    assert crop.std() < 12


def test_the_maps_of_a_batch_are_the_maps_of_its_faces():
    faces = align_many(list(noisy_faces(4)))
    matrices = np.stack([face.matrix for face in faces])
    offsets = np.stack([face.offsets["face"] for face in faces])
    adjusted = geometry.adjusted_matrix(matrices, offsets, 256, "face", 0.875)
    exact = geometry.crop_matrix(matrices, offsets, 256, "face", 0.875, 0.1)
    for row, face in enumerate(faces):
        assert adjusted[row] == pytest.approx(face.adjusted_matrix(256, "face", 0.875), abs=1e-12)
        assert exact[row] == pytest.approx(face.crop_matrix(256, "face", 0.875, 0.1), abs=1e-12)
