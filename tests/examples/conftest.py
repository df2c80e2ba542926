"""One exported model and one picture that every example is given, and what our own runtime makes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fsdeploy.demo.identities import IDENTITY_A
from fsdeploy.demo.render import draw
from fsdeploy.demo.scene import random_scene
from fsdeploy.export import ExportSettings, export_model
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
        """Within two grey levels of our runtime, except on isolated pixels; and not just the picture again."""
        assert result.shape == self.frame.shape and result.dtype == np.uint8
        difference = np.abs(result.astype(int) - self.expected)
        assert (difference > 2).mean() < 0.002
        assert difference.mean() < 0.2
        assert (np.abs(result.astype(int) - self.frame) > 8).mean() > 0.05


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A compact model with seeded weights, and a drawn face."""
    folder = tmp_path_factory.mktemp("examples")
    torch.manual_seed(3)
    plugin = model_class("compact")(folder / "model")
    plugin.build()
    plugin.io.save(is_exit=True)
    plugin.close()
    plain = export_model(folder / "model", folder / "a2b.onnx").path
    settings = ExportSettings(graph="frame")
    model = export_model(folder / "model", folder / "a2b_frame.onnx", settings=settings).path
    drawing = draw(IDENTITY_A, random_scene(np.random.default_rng(11)), 240, 320)
    picture, landmarks = folder / "picture.png", folder / "landmarks.json"
    cv2.imwrite(str(picture), drawing.frame)
    landmarks.write_text(json.dumps(drawing.landmarks.tolist()))
    expected = Swapper(plain, providers="cpu")(drawing.frame, drawing.landmarks)
    return Job(model, picture, landmarks, drawing.frame, expected)
