"""docs/embedding.md, worked through by hand with OpenCV's pose solver, gives the crops that our runtime cuts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsdeploy.demo.identities import IDENTITY_A
from fsdeploy.demo.render import draw
from fsdeploy.demo.scene import random_scene
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.landmarks import HEAD_3D, HEAD_3D_INDICES, MEAN_FACE

HEAD_POINT = {"face": (0.0, -1.5, 4.2), "head": (0.0, 0.0, -2.3)}
PADDING = {"legacy": 0.375, "face": 0.5, "head": 0.625}


@pytest.mark.parametrize("centering", ["legacy", "face", "head"])
@pytest.mark.parametrize(("size", "coverage", "offset"), [(64, 0.8, 0.0), (128, 1.0, 0.1), (256, 0.875, -0.05)])
def test_the_page_s_steps_put_landmarks_where_our_crop_does(centering, size, coverage, offset):
    landmarks = draw(IDENTITY_A, random_scene(np.random.default_rng(2))).landmarks.astype(float)

    p, q = landmarks[17:], MEAN_FACE
    (x, y), (u, v) = (p - p.mean(axis=0)).T, (q - q.mean(axis=0)).T
    spread = (x * x + y * y).sum()
    a, b = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    turn = np.array([[a, -b], [b, a]])
    n = landmarks @ turn.T + q.mean(axis=0) - turn @ p.mean(axis=0)

    o = np.zeros(2)
    if centering != "legacy":
        camera = np.array([[4.0, 0.0, 0.5], [0.0, 4.0, 0.5], [0.0, 0.0, 1.0]])
        _, rotation, shift = cv2.solvePnP(HEAD_3D, n[HEAD_3D_INDICES], camera, None)
        point = cv2.Rodrigues(rotation)[0] @ np.array(HEAD_POINT[centering]) + shift[:, 0]
        o = 4.0 * point[:2] / point[2]

    r = PADDING[centering]
    edge = 2 * round(512 * 0.375 / (1 - r) * coverage / 2)
    core = edge * (1 - r) / coverage
    window = core * (n - o + (0.0, offset)) + (edge - core) / 2
    crop = (window + 0.5) * size / edge - 0.5

    matrix = AlignedFace.from_landmarks(landmarks).crop_matrix(size, centering, coverage, offset)
    assert np.abs(crop - (landmarks @ matrix[:, :2].T + matrix[:, 2])).max() < 0.01
