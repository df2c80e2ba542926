"""Is the whole-frame graph the twin of the numpy code? Seeded frames with faces of several sizes and turns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import CheckFailedError
from fsdeploy.export.parity import Parity, psnr
from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.runtime.swapper import MaskKind, Swapper

LEVELS = 2
"""Largest difference in grey levels, but for isolated pixels."""
ISOLATED = 5e-3
"""Share of the changed values that may differ by more (an outline that falls on the other side of a pixel)."""


def compare_frames(path: Path, face: Path, mask: str) -> Parity:
    """Compare a frame graph with the face graph and numpy.

    Raises:
        CheckFailedError: more than isolated pixels differ by more than `LEVELS`.
    """
    assert mask in get_args(MaskKind)
    twin = Swapper(face, "cpu", mask=mask)  # type: ignore[arg-type]
    whole = Swapper(path, "cpu")
    differences, changed, outliers = [], 0, 0
    for frame, landmarks in seeded_frames():
        expected = twin(frame, landmarks)
        difference = np.abs(whole(frame, landmarks).astype(np.int16) - expected)
        differences.append(difference.ravel())
        changed += int((expected != frame).sum())
        outliers += int((difference > LEVELS).sum())
    if outliers > ISOLATED * max(changed, 1):
        raise CheckFailedError(
            f"the frame graph differs from the numpy paste by more than {LEVELS} grey levels in {outliers} of "
            f"{changed} values: no file was written"
        )
    every = np.concatenate(differences) / 255
    return Parity("swapped", "frames", 3, float(every.max()), float(every.mean()), psnr(every))


def seeded_frames() -> list[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Soft pictures (H, W, 3) with landmarks: a small face, a turned one, a large one half outside."""
    frames = []
    for seed, (shape, width, left, top, degrees) in enumerate(
        (
            ((180, 240), 48.0, 90.0, 60.0, -8.0),
            ((270, 360), 110.0, 120.0, 80.0, 17.0),
            ((240, 320), 260.0, 150.0, 10.0, 4.0),
        )
    ):
        coarse = np.random.default_rng(seed).integers(0, 256, (shape[0] // 12, shape[1] // 12, 3), np.uint8)
        frame = np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
        frames.append((frame, figure(width, left, top, degrees)))
    return frames


def figure(width: float, left: float, top: float, degrees: float) -> NDArray[np.float64]:
    """(68, 2) landmarks of the mean face with a jaw, turned about its middle."""
    k = np.arange(17) * math.pi / 16
    jaw = np.stack([0.5 - 0.62 * np.cos(k), 0.2 + np.sin(k)], axis=1)
    points = np.concatenate([jaw, MEAN_FACE]) - 0.5
    a = math.radians(degrees)
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    turned: NDArray[np.float64] = points @ turn.T * width + (left + width / 2, top + width / 2)
    return turned
