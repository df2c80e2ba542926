"""The `.dfm` format: what the apps feed it and what they take from it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.export import ExportSettings, export_model
from fsdeploy.export.dfm import Window, cutting, dfm_target, placing, training_window
from fsdeploy.model.folder import load_model
from fsdeploy.model.info import ModelInfo
from fsdeploy.runtime import Swapper


def info(**changes: object) -> ModelInfo:
    values = {"name": "tiny", "input_size": 32, "output_size": 32, "output_sizes": (32,), "color_order": "bgr",
              "centering": "face", "coverage": 1.0, "vertical_offset": 0.0, "has_mask": False, "iterations": 0,
              "weights_sha256": ""}  # fmt: skip
    return ModelInfo(**{**values, **changes})


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def picture(size: int, seed: int = 0, batch: int = 1) -> np.ndarray:
    """Soft colours in NHWC."""
    coarse = np.random.default_rng(seed).random((batch, 8, 8, 3), dtype=np.float32)
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR) for image in coarse])


@pytest.mark.parametrize(
    "coverage, crop, expected",
    [
        (1.0, "facefusion", Window(-3, -9, 227)),
        (1.0, "dfl-whole-face", Window(6, -1, 210)),
        (0.875, "facefusion", Window(11, 5, 198)),
    ],
)
def test_the_training_window_lies_where_the_published_table_says(coverage: float, crop: str, expected: Window) -> None:
    assert training_window(info(coverage=coverage), crop, 224) == expected


def test_cutting_equals_replicate_padding_slicing_and_bilinear_resizing() -> None:
    image = torch.rand(1, 3, 96, 96)
    x0, y0, edge, target = -3, 9, 97, 128
    pad = 10
    padded = F.pad(image, (pad,) * 4, mode="replicate")[:, :, y0 + pad : y0 + pad + edge, x0 + pad : x0 + pad + edge]
    expected = F.interpolate(padded, size=(target, target), mode="bilinear", align_corners=False)
    rows, columns = (torch.from_numpy(cutting(start, edge, 96, target)).float() for start in (y0, x0))
    torch.testing.assert_close(rows @ image @ columns.T, expected, atol=2e-6, rtol=0)


def test_cutting_averages_over_areas_when_it_shrinks() -> None:
    image = np.random.default_rng(0).random((224, 224), np.float32)
    expected = cv2.resize(image[5:203, 11:209], (64, 64), interpolation=cv2.INTER_AREA)
    rows, columns = cutting(5, 198, 224, 64), cutting(11, 198, 224, 64)
    np.testing.assert_allclose(rows @ image @ columns.T, expected, atol=1e-5)


def test_placing_equals_bilinear_resizing_into_a_frame_of_zeros() -> None:
    image = torch.rand(1, 1, 32, 32)
    expected = torch.zeros(1, 1, 96, 96)
    expected[..., 5:85, 10:90] = F.interpolate(image, size=(80, 80), mode="bilinear", align_corners=False)
    rows, columns = (torch.from_numpy(placing(start, 80, 96, 32)).float() for start in (5, 10))
    torch.testing.assert_close(rows @ image @ columns.T, expected, atol=2e-6, rtol=0)


def test_the_borders_are_those_of_the_contract(tiny_masked: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format="dfm")
    path = export_model(tiny_masked, tmp_path / "me.dfm", settings=settings).path
    run = session(path)
    assert [(entry.name, entry.shape, entry.type) for entry in run.get_inputs()] == [
        ("in_face:0", ["N", 224, 224, 3], "tensor(float)")
    ]
    assert [(entry.name, entry.shape, entry.type) for entry in run.get_outputs()] == [
        ("out_face_mask:0", ["N", 224, 224, 1], "tensor(float)"),
        ("out_celeb_face:0", ["N", 224, 224, 3], "tensor(float)"),
        ("out_celeb_face_mask:0", ["N", 224, 224, 1], "tensor(float)"),
    ]
    model = onnx.load(str(path))
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Resize", "Pad", "Slice"})


def test_masks_come_from_both_decoders_and_the_encoder_runs_once(tiny_masked: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format="dfm", crop="none", size=64)
    path = export_model(tiny_masked, tmp_path / "me.dfm", settings=settings).path
    face = picture(64, batch=2)
    old, swap, new = session(path).run(None, {"in_face:0": face})
    rows = torch.from_numpy(cutting(0, 64, 64, 32)).float()
    small = rows @ torch.from_numpy(face.transpose(0, 3, 1, 2)) @ rows.T
    network = load_model(tiny_masked).model
    with torch.inference_mode():
        swap_b, mask_b = network.swap(small, 1)
        _, mask_a = network.swap(small, 0)
    for got, expected in ((old, mask_a), (swap, swap_b), (new, mask_b)):
        large = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=False)
        np.testing.assert_allclose(got, large.permute(0, 2, 3, 1).numpy(), atol=1e-5)
    names = [entry.name for entry in onnx.load(str(path)).graph.initializer]
    assert sum("encoder.conv.weight" in name for name in names) == 1
    assert sum(node.op_type == "Gemm" for node in onnx.load(str(path)).graph.node) == 3  # encoder, two decoders


def test_outside_the_window_the_picture_is_the_apps_own(tiny: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format="dfm", crop="dfl-whole-face")
    path = export_model(tiny, tmp_path / "me.dfm", settings=settings).path
    face = picture(224)
    old, swap, new = session(path).run(None, {"in_face:0": face})
    np.testing.assert_array_equal(swap[0, :, :6], face[0, :, :6])  # the window starts at x = 6
    assert np.abs(swap[0, 100:120, 100:120] - face[0, 100:120, 100:120]).max() > 0.02
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("crop", ["facefusion", "deepfacelive", "dfl-whole-face", "none"])
def test_a_model_without_a_mask_gets_an_ellipse_that_is_zero_at_the_border(
    tiny: Path, tmp_path: Path, crop: str
) -> None:
    path = export_model(tiny, tmp_path / "me.dfm", settings=ExportSettings(format="dfm", crop=crop)).path
    mask = session(path).run(None, {"in_face:0": picture(224, batch=3)})[0]
    assert mask.shape == (3, 224, 224, 1)
    edge = np.concatenate([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], axis=1)
    assert edge.max() == 0 and 0.2 < (mask > 0.5).mean() < 0.6


def test_the_ellipse_lies_where_the_published_fractions_put_it(tiny: Path, tmp_path: Path) -> None:
    path = export_model(tiny, tmp_path / "me.dfm", settings=ExportSettings(format="dfm")).path
    mask = session(path).run(None, {"in_face:0": picture(224)})[0][0, :, :, 0] > 0.5
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    np.testing.assert_allclose([columns.mean() / 224, rows.mean() / 224], [0.491, 0.494], atol=0.005)
    np.testing.assert_allclose([np.ptp(columns) / 448, np.ptp(rows) / 448], [0.304, 0.395], atol=0.006)


def test_an_rgb_model_takes_and_gives_bgr(tiny_rgb: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format="dfm", crop="none", size=64)
    path = export_model(tiny_rgb, tmp_path / "me.dfm", settings=settings).path
    face = picture(64)
    rows = torch.from_numpy(cutting(0, 64, 64, 32)).float()
    small = rows @ torch.from_numpy(np.ascontiguousarray(face[..., ::-1].transpose(0, 3, 1, 2))) @ rows.T
    with torch.inference_mode():
        expected = load_model(tiny_rgb).model.swap(small, 1)[0]
    large = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=False).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(session(path).run(None, {"in_face:0": face})[1], large[..., ::-1], atol=1e-5)


def test_a_swapper_runs_a_dfm_with_the_apps_crop(tiny_masked: Path, tmp_path: Path) -> None:
    path = export_model(tiny_masked, tmp_path / "me.dfm", settings=ExportSettings(format="dfm")).path
    swapper = Swapper(path)
    faces, masks = swapper.swap((picture(224, batch=2) * 255).astype(np.uint8))
    assert faces.shape == (2, 224, 224, 3) and masks.shape == (2, 224, 224)


def test_points_land_where_the_app_pastes_them() -> None:
    """An identity model behind the adapter must give the app's own crop back, in place, up to the resizing's blur."""

    class Identity(nn.Module):
        def forward(self, face: torch.Tensor) -> tuple[torch.Tensor]:
            return (face,)

    target = dfm_target(Identity(), Identity(), info(input_size=256, output_size=256), 224, "facefusion", None, None)
    face = picture(224)
    _, swap, _ = target.expect(face)
    assert np.abs(swap - face)[:, 4:-4, 4:-4].max() < 0.02


def test_a_learned_mask_cannot_be_had_from_a_model_without_one(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="learned no mask"):
        export_model(tiny, tmp_path / "me.dfm", settings=ExportSettings(format="dfm", mask="learned"))
    assert not list(tmp_path.iterdir())


def test_an_ellipse_inside_a_file_is_not_taken_for_a_learned_mask(
    tiny: Path, tiny_masked: Path, tmp_path: Path
) -> None:
    settings = ExportSettings(format="dfm")
    drawn = export_model(tiny, tmp_path / "drawn.dfm", settings=settings).path
    learned = export_model(tiny_masked, tmp_path / "learned.dfm", settings=settings).path
    assert Swapper(learned, mask="learned").metadata.has_mask
    with pytest.raises(InputError, match="has no mask of its own"):
        Swapper(drawn, mask="learned")


def test_ones_are_legal(tiny: Path, tmp_path: Path) -> None:
    settings = ExportSettings(format="dfm", mask="ones", crop="none")
    path = export_model(tiny, tmp_path / "me.dfm", settings=settings).path
    assert session(path).run(None, {"in_face:0": picture(224)})[0].min() == 1


def test_the_gate_holds_for_dfm_too(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError):
        export_model(tiny, tmp_path / "me.dfm", settings=ExportSettings(format="dfm", atol=1e-12))
    assert not list(tmp_path.iterdir())
