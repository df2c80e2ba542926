"""Exporting one direction of a model folder."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.export import ExportSettings, export_model
from fsdeploy.export.graph import Port, trace
from fsdeploy.model.folder import load_model
from fsdeploy.runtime.metadata import SwapMetadata


def run(path: Path, face: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: face})


@pytest.mark.parametrize("swap_sides", [False, True])
def test_the_file_gives_what_the_model_gives_on_that_side(tiny: Path, tmp_path: Path, swap_sides: bool) -> None:
    report = export_model(tiny, tmp_path / "m.onnx", swap_sides)
    face = np.random.default_rng(3).random((3, 3, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        expected = load_model(tiny).model.swap(torch.from_numpy(face), side=0 if swap_sides else 1)[-1]
    np.testing.assert_allclose(run(report.path, face)[0], expected.numpy(), atol=1e-5)
    assert report.metadata.direction == ("b2a" if swap_sides else "a2b")


def test_the_two_directions_differ(tiny: Path, tmp_path: Path) -> None:
    face = np.full((1, 3, 32, 32), 0.5, np.float32)
    one, other = (run(export_model(tiny, tmp_path / f"{s}.onnx", s).path, face)[0] for s in (False, True))
    assert np.abs(one - other).max() > 0.01


def test_the_plain_format_is_opset_17_ir_8_with_numeric_sizes_and_a_free_batch(
    tiny_masked: Path, tmp_path: Path
) -> None:
    path = export_model(tiny_masked, tmp_path / "m.onnx").path
    model = onnx.load(str(path))
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    shapes = {
        entry.name: [edge.dim_param or edge.dim_value for edge in entry.type.tensor_type.shape.dim]
        for entry in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"face": ["N", 3, 32, 32], "swap": ["N", 3, 32, 32], "mask": ["N", 1, 32, 32]}
    assert [entry.name for entry in model.graph.input] == ["face"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [entry.shape for entry in session.get_outputs()] == [["N", 3, 32, 32], ["N", 1, 32, 32]]


def test_only_the_parts_of_the_exported_side_are_in_the_file(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(str(export_model(tiny, tmp_path / "m.onnx").path))
    names = {entry.name for entry in model.graph.initializer}
    assert {"encoder.conv.weight", "decoder_b.face_out.bias"} <= names
    assert not any("decoder_a" in name for name in names)


def test_asymmetric_padding_becomes_part_of_the_convolution(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(str(export_model(tiny, tmp_path / "m.onnx").path))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[0] == "Conv" and "Pad" not in kinds
    assert next(entry for entry in model.graph.node[0].attribute if entry.name == "pads").ints[:] == [1, 1, 2, 2]


@pytest.mark.parametrize("opset, ir_version", [(12, 8), (17, 8), (18, 8), (20, 9)])
def test_other_opsets_are_written_as_asked(tiny: Path, tmp_path: Path, opset: int, ir_version: int) -> None:
    report = export_model(tiny, tmp_path / "m.onnx", opset=opset)
    model = onnx.load(str(report.path))
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version) == (report.opset, report.ir_version)


def test_an_opset_that_cannot_be_written_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="opset 21 cannot be written: choose from 11 to 20"):
        export_model(tiny, tmp_path / "m.onnx", opset=21)
    assert not list(tmp_path.iterdir())


def test_the_same_weights_give_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    first = export_model(tiny, tmp_path / "a.onnx")
    second = export_model(tmp_path / "copy", tmp_path / "b.onnx")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest() == second.sha256


def test_the_bytes_are_those_that_protobuf_writes(tiny: Path, tmp_path: Path) -> None:
    data = export_model(tiny, tmp_path / "m.onnx").path.read_bytes()
    assert onnx.load_model_from_string(data).SerializeToString(deterministic=True) == data


def test_a_fixed_batch_is_declared_as_a_number(tiny: Path, tmp_path: Path) -> None:
    path = export_model(tiny, tmp_path / "m.onnx", settings=ExportSettings(batch=1)).path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 32, 32]


def test_uint8_borders_take_and_give_a_frames_own_pixels(tiny_rgb: Path, tmp_path: Path) -> None:
    pixels = export_model(tiny_rgb, tmp_path / "u.onnx", settings=ExportSettings(io="uint8")).path
    plain = export_model(tiny_rgb, tmp_path / "f.onnx").path
    crops = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    swap, mask = run(pixels, crops)
    planes = crops[..., ::-1].astype(np.float32).transpose(0, 3, 1, 2) / 255  # this model wants red first
    face, own = run(plain, planes)
    assert swap.dtype == mask.dtype == np.uint8
    assert np.abs(swap[..., ::-1].astype(float) - 255 * face.transpose(0, 2, 3, 1)).max() <= 0.51
    assert np.abs(mask[..., 0].astype(float) - 255 * own[:, 0]).max() <= 0.51


def test_metadata_tells_what_an_embedder_needs(tiny_masked: Path, tmp_path: Path) -> None:
    path = export_model(tiny_masked, tmp_path / "m.onnx").path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    meta = SwapMetadata.from_props(session.get_modelmeta().custom_metadata_map, "m.onnx")
    assert (meta.plugin, meta.direction, meta.input_size, meta.output_size) == ("tiny32", "a2b", 32, 32)
    assert (meta.centering, meta.coverage, meta.has_mask, meta.color_order) == ("legacy", 1.0, True, "bgr")
    assert meta.weights_sha256 == hashlib.sha256((tiny_masked / "tiny32.safetensors").read_bytes()).hexdigest()
    assert len(meta.mean_face) == 51 and "compositeWithTrainedAlgorithmicMedia" in meta.provenance


def test_a_file_outside_the_tolerance_is_not_left_behind(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"differs from the model by .* no file was written"):
        export_model(tiny, tmp_path / "m.onnx", atol=1e-12)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_by_force(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_text("mine")
    with pytest.raises(InputError, match="--force"):
        export_model(tiny, target)
    assert target.read_text() == "mine"
    export_model(tiny, target, force=True)
    onnx.checker.check_model(str(target), full_check=True)


@pytest.mark.parametrize(
    "settings, message",
    [
        (ExportSettings(size=224), "--size is not for --format onnx: only for dfm"),
        (ExportSettings(format="dfm", io="uint8"), "--io is not for --format dfm"),
        (ExportSettings(format="triton", mask="ones"), "--mask is not for --format triton"),
        (ExportSettings(precision="int8"), "--precision int8 needs --faces"),
        (ExportSettings(mask="ellipse"), "--mask is for --graph frame and --format dfm"),
        (ExportSettings(graph="frame", opset=13), "needs --opset 16"),
        (ExportSettings(format="dfm", size=225), "multiple of 16"),
        (ExportSettings(batch=0), "--batch must be"),
        (ExportSettings(precision="int8", opset=12), "int8 needs --opset 13"),
    ],
)
def test_a_wish_that_a_format_does_not_take_is_refused_by_name(settings: ExportSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings.check()


def test_an_operator_newer_than_the_opset_is_named(tmp_path: Path) -> None:
    class Sampling(nn.Module):
        def forward(self, face: torch.Tensor) -> tuple[torch.Tensor]:
            return (F.grid_sample(face, face[:, :2].permute(0, 2, 3, 1), align_corners=False),)

    borders = (Port("face", ("N", 3, 8, 8)),), (Port("swap", ("N", 3, 8, 8)),)
    with pytest.raises(InputError, match=r"cannot be exported at opset 15: .*grid"):
        trace(Sampling(), [torch.zeros(2, 3, 8, 8)], *borders, opset=15)
    trace(Sampling(), [torch.zeros(2, 3, 8, 8)], *borders, opset=16)


def test_a_batch_that_the_model_freezes_is_caught(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that reshapes by a Python number passes at the traced batch only: the comparison must not."""
    network = type(load_model(tiny).model)
    original = network.swap

    def frozen(self: nn.Module, face: torch.Tensor, side: int) -> list[torch.Tensor]:
        return [output.reshape(int(face.shape[0]), 3, 32, 32) for output in original(self, face, side)]

    monkeypatch.setattr(network, "swap", frozen)
    with pytest.raises(CheckFailedError, match="fails on an input of shape"):
        export_model(tiny, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
