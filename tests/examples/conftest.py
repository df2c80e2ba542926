"""One exported model and one picture that every example is given, and what our own runtime makes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from fsdeploy.demo.identities import IDENTITY_A
from fsdeploy.demo.render import draw
from fsdeploy.demo.scene import random_scene
from fsdeploy.export import ExportSettings, export_model
from fsdeploy.faces.alignments import read_alignments
from fsdeploy.model.registry import model_class
from fsdeploy.runtime import Swapper

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Job:
    """Files of one swap, and the answer."""

    model: Path
    picture: Path
    landmarks: Path
    frame: np.ndarray
    expected: np.ndarray
    """By the plain export and numpy, not by the graph that the examples run."""

    def assert_swapped(self, result: np.ndarray) -> None:
        """Within two grey levels of our runtime on the face, except on isolated pixels; untouched elsewhere."""
        assert result.shape == self.frame.shape and result.dtype == np.uint8
        face = (self.expected != self.frame).any(axis=2)
        assert face.sum() > 2000 and np.abs(self.expected.astype(int) - self.frame)[face].mean() > 3.0
        difference = np.abs(result.astype(int) - self.expected)
        assert (difference[face] > 2).mean() < 0.01 and difference[face].mean() < 0.5
        assert difference[~face].max() <= 2


@dataclass(frozen=True)
class Files:
    """One direction of a compact model with seeded weights, exported twice."""

    plain: Path
    whole_frame: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    plugin = model_class("compact")(folder / "model")
    plugin.build()
    plugin.io.save(is_exit=True)
    plugin.close()
    plain = export_model(folder / "model", folder / "a2b.onnx").path
    settings = ExportSettings(graph="frame")
    return Files(plain, export_model(folder / "model", folder / "a2b_frame.onnx", settings=settings).path)


def make_job(files: Files, folder: Path, frame: np.ndarray, points: np.ndarray) -> Job:
    picture, landmarks = folder / "picture.png", folder / "landmarks.json"
    cv2.imwrite(str(picture), frame)
    landmarks.write_text(json.dumps(points.tolist()))
    expected = Swapper(files.plain, providers="cpu")(frame, points)
    return Job(files.whole_frame, picture, landmarks, frame, expected)


@pytest.fixture(scope="session")
def job(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A drawn face."""
    drawing = draw(IDENTITY_A, random_scene(np.random.default_rng(11)), 240, 320)
    return make_job(files, tmp_path_factory.mktemp("drawn"), drawing.frame, drawing.landmarks)


@pytest.fixture(scope="session")
def real_job(files: Files, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A frame of a real person's clip."""
    with av.open(str(real_data / "clip_A.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="bgr24")
    alignments = read_alignments(real_data / "clip_A_alignments.fsa")
    (face,) = alignments.frames["clip_A_000001.mp4"]
    return make_job(files, tmp_path_factory.mktemp("real"), frame, face.landmarks)
