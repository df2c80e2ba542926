"""Small folders of drawn faces: a frame with a face's landmarks, cut out as an extractor cuts it."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource, StoredMask

STORED = 128


def drawn_landmarks(random: np.random.Generator) -> np.ndarray:
    """68 points in a 320 px frame: jaw on an ellipse, the core on the mean face, turned and moved a little."""
    angles = np.pi * (1 - np.arange(17) / 16)
    jaw = np.stack([0.5 + 0.58 * np.cos(angles), 0.20 + 0.95 * np.sin(angles)], axis=1)
    points = np.concatenate([jaw, MEAN_FACE]) - 0.5
    points += random.normal(0, 0.01, points.shape)
    th = math.radians(random.uniform(-15, 15))
    rotation = np.array([[math.cos(th), -math.sin(th)], [math.sin(th), math.cos(th)]])
    return (points @ rotation.T * random.uniform(80, 100) + random.uniform(140, 180, 2)).astype(np.float32)


def drawn_frame(landmarks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(320, 320, 3): smooth colours, a skin-coloured face, a white dot on the tip of the nose (landmark 30)."""
    frame = cv2.resize(random.integers(40, 160, (8, 8, 3), dtype=np.uint8), (320, 320), interpolation=cv2.INTER_CUBIC)
    cv2.fillConvexPoly(frame, cv2.convexHull(np.rint(landmarks).astype(np.int32)), (120, 150, 200))
    cv2.circle(frame, tuple(int(v) for v in np.rint(landmarks[30])), 4, (255, 255, 255), -1)
    return frame


def write_drawn_face(
    path: Path, seed: int, masks: tuple[str, ...] = (), points: int = 68, version: float = 2.4
) -> None:
    """Write one face PNG."""
    random = np.random.default_rng(seed)
    landmarks = drawn_landmarks(random)
    aligned = AlignedFace.from_landmarks(landmarks)
    frame = drawn_frame(landmarks, random)
    stored = {}
    for name in masks:
        matrix = aligned.adjusted_matrix(64, "face", 1.0)
        disc = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 20, 255, -1)
        stored[name] = StoredMask.from_pixels(disc, matrix, "face")
    if points == 4:
        landmarks = np.array([(120, 120), (200, 120), (200, 200), (120, 200)], np.float32)
    record = FaceRecord(100, 100, 90, 100, landmarks, masks=stored)
    image = aligned.crop(frame, STORED, "head", 1.0)
    write_face(path, image, FaceHeader(record, FaceSource(version, path.name, 0, "frame.png", False, (320, 320))))


def make_folder(folder: Path, count: int, seed: int, **details) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        write_drawn_face(folder / f"face_{i:03d}.png", seed * 1000 + i, **details)
    return folder


@pytest.fixture(scope="session")
def folder_a(tmp_path_factory) -> Path:
    """30 faces with a stored mask `custom_face`."""
    return make_folder(tmp_path_factory.mktemp("faces") / "a", 30, 1, masks=("custom_face",))


@pytest.fixture(scope="session")
def folder_b(tmp_path_factory) -> Path:
    """26 faces with a stored mask `custom_face`."""
    return make_folder(tmp_path_factory.mktemp("faces") / "b", 26, 2, masks=("custom_face",))


@pytest.fixture
def new_folder(tmp_path):
    """Makes a folder of its own: new_folder("name", count, seed, masks=..., points=..., version=...)."""
    return lambda name, count, seed=5, **details: make_folder(tmp_path / name, count, seed, **details)


@pytest.fixture
def new_face():
    """Writes one face: new_face(path, seed, masks=..., points=..., version=...)."""
    return write_drawn_face
