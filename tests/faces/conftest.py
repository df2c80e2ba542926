"""The two reference faces of the specification's vectors, computed from its formulas and not by the code under test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fsdeploy.faces.landmarks import MEAN_FACE


def reference_landmarks(w, degrees, scale, shift):
    """Jaw on an ellipse, core points on the mean face, sheared by w, rotated, scaled, moved; float32."""
    angles = np.pi * (1 - np.arange(17) / 16)
    jaw = np.stack([0.5 + 0.58 * np.cos(angles), 0.20 + 0.95 * np.sin(angles)], axis=1)
    points = np.concatenate([jaw, MEAN_FACE])
    points[:, 0] += w * (points[:, 0] - 0.5) ** 2
    th = math.radians(degrees)
    x, y = points.T
    turned = np.stack([x * math.cos(th) - y * math.sin(th), x * math.sin(th) + y * math.cos(th)], axis=1)
    return (turned * scale + shift).astype(np.float32)


@pytest.fixture(scope="session")
def v1():
    return reference_landmarks(0.0, 0.0, 200.0, (300.0, 250.0))


@pytest.fixture(scope="session")
def v2():
    return reference_landmarks(0.2, 15.0, 180.0, (400.0, 300.0))


@pytest.fixture(scope="session")
def convert_face():
    """Landmarks of the convert vectors: raised right brow, mouth moved sideways, 10 degrees."""
    k = np.arange(17)
    jaw = np.stack([0.5 - 0.62 * np.cos(np.pi * k / 16), 0.2 + np.sin(np.pi * k / 16)], axis=1)
    points = np.concatenate([jaw, MEAN_FACE]) - 0.5
    th = math.radians(10)
    rotation = np.array([[math.cos(th), -math.sin(th)], [math.sin(th), math.cos(th)]])
    points = points @ rotation.T * 180 + (480, 270)
    points[17:22, 1] -= 4
    points[48:60, 0] += 3  # sideways: the vectors' own L54 and matrix say so
    return points.astype(np.float32)


@pytest.fixture(scope="session")
def convert_frame():
    """The 960x540 frame of the convert vectors, BGR uint8."""
    x, y = np.arange(960)[None], np.arange(540)[:, None]
    frame = np.zeros((540, 960, 3), np.uint8)
    frame[..., 0] = np.round(255 * x / 959)
    frame[..., 1] = np.round(255 * y / 539)
    frame[..., 2] = np.round(127.5 + 127.5 * np.sin(x / 40) * np.cos(y / 30))
    return frame
