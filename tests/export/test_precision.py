"""Smaller numbers, measured on real faces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.export import ExportSettings, export_model


@pytest.fixture
def faces(real_data: Path) -> Path:
    return real_data / "faces" / "A"


def run(path: Path, face: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: face})[0]


@pytest.mark.parametrize("precision, share", [("fp16-storage", 0.52), ("fp16", 0.52), ("int8", 0.4)])
def test_each_precision_is_smaller_close_on_real_faces_and_float_at_the_borders(
    tiny: Path, tmp_path: Path, faces: Path, precision: str, share: float
) -> None:
    full = export_model(tiny, tmp_path / "full.onnx")
    small = export_model(tiny, tmp_path / "s.onnx", settings=ExportSettings(precision=precision, faces=faces))
    assert small.megabytes < share * full.megabytes
    assert {entry.inputs for entry in small.parity} == {"noise", "faces"}
    assert small.metadata.extra["precision"] == precision
    model = onnx.load(str(small.path))
    assert {entry.type.tensor_type.elem_type for entry in (*model.graph.input, *model.graph.output)} == {1}
    face = np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)
    difference = run(small.path, face) - run(full.path, face)
    assert 0 < np.abs(difference).max() < (0.2 if precision == "int8" else 0.01)


def test_int8_keeps_its_bytes_from_run_to_run(tiny: Path, tmp_path: Path, faces: Path) -> None:
    settings = ExportSettings(precision="int8", faces=faces)
    one, two = (export_model(tiny, tmp_path / f"{n}.onnx", settings=settings) for n in (1, 2))
    assert one.sha256 == two.sha256


def test_a_precision_below_the_users_floor_is_refused(tiny: Path, tmp_path: Path, faces: Path) -> None:
    settings = ExportSettings(precision="int8", faces=faces, floor=90)
    with pytest.raises(CheckFailedError, match=r"dB against fp32, below the floor of 90\.0 dB"):
        export_model(tiny, tmp_path / "m.onnx", settings=settings)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_faces_cannot_be_measured_on(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no face that can be read"):
        export_model(tiny, tmp_path / "m.onnx", settings=ExportSettings(faces=tmp_path / "empty"))
    with pytest.raises(InputError, match="is not a folder"):
        export_model(tiny, tmp_path / "m.onnx", settings=ExportSettings(faces=tmp_path / "none"))


def test_the_manifest_beside_the_file_says_what_was_proven(tiny: Path, tmp_path: Path, faces: Path) -> None:
    report = export_model(tiny, tmp_path / "m.onnx", settings=ExportSettings(faces=faces))
    manifest = json.loads((tmp_path / "m.onnx.json").read_text())
    assert manifest["sha256"] == report.sha256 and manifest["bytes"] == report.path.stat().st_size
    assert manifest["inputs"] == [{"name": "face", "shape": ["N", 3, 32, 32], "dtype": "float32"}]
    on_faces = next(entry for entry in manifest["parity"] if entry["inputs"] == "faces")
    assert on_faces["samples"] >= 8 and on_faces["max_difference"] <= 1e-4
    assert manifest["metadata"]["direction"] == "a2b"


def test_real_faces_are_cut_as_training_cuts_them(real_data: Path) -> None:
    from fsdeploy.export.pictures import read_pictures
    from fsdeploy.faces.aligned import AlignedFace
    from fsdeploy.faces.geometry import sub_crop
    from fsdeploy.faces.png import read_face
    from fsdeploy.runtime.metadata import SwapMetadata

    values = dict.fromkeys(SwapMetadata.__dataclass_fields__, "")
    meta = SwapMetadata(**{**values, "centering": "face", "coverage": 0.875, "vertical_offset": 0.0, "extra": {}})
    crops = read_pictures(real_data / "faces" / "A", meta, 64)
    image, header = read_face(sorted((real_data / "faces" / "A").glob("*.png"))[0])
    offsets = AlignedFace.from_landmarks(np.asarray(header.face.landmarks)).offsets
    expected = sub_crop(image, offsets, "head", "face", 0.875, 0.0, 64)
    assert np.abs(crops[0].astype(float) - expected).mean() < 3
