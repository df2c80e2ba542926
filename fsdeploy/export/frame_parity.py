"""Is the whole-frame graph the twin of the numpy code? Seeded frames with faces of several sizes and turns."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
TELLING = 5000
"""Values that the swap must move by more than `LEVELS` for the comparison to say anything about the paste."""


@dataclass(frozen=True)
class FrameComparison:
    """How far a frame graph is from the numpy code, and whether its frames could show a difference."""

    parity: Parity
    moved: int
    """Values that the swap itself moved by more than `LEVELS`, over all frames."""

    @property
    def is_telling(self) -> bool:
        """False where the model's mask hid the swap, or the swap is the face itself: a wrong paste would look right."""
        return self.moved >= TELLING


def compare_frames(path: Path, face: Path, mask: str) -> FrameComparison:
    """Compare a frame graph with the face graph and numpy.

    Raises:
        CheckFailedError: more than isolated pixels differ by more than `LEVELS`.
    """
    assert mask in get_args(MaskKind)
    twin = Swapper(face, "cpu", mask=mask)  # type: ignore[arg-type]
    whole = Swapper(path, "cpu")
    differences, changed, moved, outliers = [], 0, 0, 0
    for frame, landmarks in seeded_frames(twin.face_size):
        expected = twin(frame, landmarks)
        difference = np.abs(whole(frame, landmarks).astype(np.int16) - expected)
        differences.append(difference.ravel())
        changed += int((expected != frame).sum())
        moved += int((np.abs(expected.astype(np.int16) - frame) > LEVELS).sum())
        outliers += int((difference > LEVELS).sum())
    if outliers > ISOLATED * max(changed, 1):
        raise CheckFailedError(
            f"the frame graph differs from the numpy paste by more than {LEVELS} grey levels in {outliers} of "
            f"{changed} values: no file was written"
        )
    every = np.concatenate(differences) / 255
    parity = Parity("swapped", "frames", len(differences), float(every.max()), float(every.mean()), psnr(every))
    return FrameComparison(parity, moved)


def seeded_frames(size: int) -> list[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Soft pictures (H, W, 3) with landmarks: a small face, a turned one, a large one half outside, two tiny ones.

    Args:
        size: edge of the model's output; the last two faces are narrow enough that every centering has it shrunk.
    """
    frames = []
    tiny, narrow = size / 6, size / 4
    for seed, (shape, width, left, top, degrees) in enumerate(
        (
            ((180, 240), 48.0, 90.0, 60.0, -8.0),
            ((270, 360), 110.0, 120.0, 80.0, 17.0),
            ((240, 320), 260.0, 150.0, 10.0, 4.0),
            ((180, 240), narrow, 120.3 - narrow / 2, 85.8 - narrow / 2, 11.0),
            ((180, 240), tiny, 101.6 - tiny / 2, 90.1 - tiny / 2, -19.0),
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
