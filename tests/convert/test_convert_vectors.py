"""The test vectors that the original program was measured with: geometry, masks, paste, colour.

Tolerances: 1e-3 on matrices, 2 grey levels on pixels, 0.1 % on sums.
"""

import numpy as np
import pytest
from drawn import spec_frame, spec_landmarks

from fsdeploy.convert import plugin
from fsdeploy.convert.plugin import MaskEdge, MaskInput, MaskSource
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.records import FaceRecord
from fsdeploy.runtime.paste import crop_patch, paste_patch

FRAME = spec_frame()
LANDMARKS = spec_landmarks()
FACE = AlignedFace.from_landmarks(LANDMARKS)
SIZE, COVERAGE = 256, 0.875
ADJUSTED = FACE.adjusted_matrix(SIZE, "face", COVERAGE)


def masks(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(raw, final) mask of the original's defaults."""
    points = FACE.aligned_landmarks(SIZE, "face", COVERAGE)
    record = FaceRecord(0, 0, 0, 0, LANDMARKS, {}, {}, None, {})
    source = plugin.build("mask", name, MaskSource)
    mask = source(MaskInput(SIZE, points, record, FACE, None, "face", COVERAGE, 0.0))
    assert mask is not None
    return plugin.build("mask", "blend", MaskEdge, {"window": "original"})(mask, True)


def test_the_frame_and_its_landmarks_are_those_of_the_vectors() -> None:
    assert FRAME.astype(np.int64).sum() == 198221288
    np.testing.assert_allclose(LANDMARKS[[0, 30, 36, 54]], [
        (379.472, 197.441), (479.512, 272.770), (423.561, 208.217), (516.071, 327.051),
    ], atol=1e-3)  # fmt: skip


@pytest.mark.parametrize(
    ("size", "coverage", "centering", "offset", "mean"),
    [
        (256, 0.875, "face", 0.0, (128.84, 113.88, 130.39)),
        (256, 0.875, "face", 0.1, (129.65, 105.44, 129.66)),
        (64, 0.6875, "legacy", 0.0, (127.49, 126.72, 127.33)),
        (128, 1.0, "head", 0.0, (125.36, 110.37, 124.91)),
    ],
)
def test_the_crops_of_the_original_are_reproduced(size, coverage, centering, offset, mean) -> None:
    matrix = FACE.adjusted_matrix(size, centering, coverage)
    core = np.hypot(*matrix[:, 0]) / np.hypot(*FACE.matrix[:, 0])
    matrix[1, 2] += offset * core
    crop = crop_patch(FRAME, matrix, size)
    np.testing.assert_allclose(crop.reshape(-1, 3).mean(0), mean, atol=0.5)


@pytest.mark.parametrize(
    ("name", "raw", "final"), [("components", 24769.57, 24514.38), ("extended", 27010.48, 26755.28)]
)
def test_landmark_masks_have_the_area_of_the_vectors(name: str, raw: float, final: float) -> None:
    drawn, pasted = masks(name)
    assert drawn.sum() == pytest.approx(raw, rel=1e-3)
    assert pasted.sum() == pytest.approx(final, rel=1e-3)


def test_the_original_window_has_the_area_of_the_vectors() -> None:
    _, window = plugin.build("mask", "blend", MaskEdge, {"window": "original"})(np.ones((SIZE, SIZE), np.float32), True)
    assert window.sum() == pytest.approx(56676.44, rel=1e-3)


@pytest.mark.parametrize(
    ("color", "changed", "centre", "below"),
    [("none", 43600, (128, 151, 127), (136, 199, 128)), ("avg-color", 43582, (128, 128, 118), (136, 176, 118))],
)
def test_the_paste_of_the_original_is_reproduced_in_compatibility_mode(
    color: str, changed: int, centre: tuple[int, ...], below: tuple[int, ...]
) -> None:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / 255
    patch = np.stack([x, y, np.full_like(x, 0.5)], -1)
    raw, final = masks("extended")
    if color != "none":
        reference = crop_patch(FRAME, ADJUSTED, SIZE).astype(np.float32) / 255
        patch = np.clip(plugin.build("color", color, plugin.ColorPlugin)(reference, patch, raw), 0, 1)
    out = FRAME.copy()
    paste_patch(out, patch, final * final, ADJUSTED)  # the original's weight
    assert (out != FRAME).any(-1).sum() == pytest.approx(changed, rel=5e-3)
    np.testing.assert_allclose(out[270, 480], centre, atol=2)
    np.testing.assert_allclose(out[330, 480], below, atol=2)
