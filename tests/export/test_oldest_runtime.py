"""Exported files run in the oldest promised onnxruntime as they do in the newest."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fsdeploy.export import ExportSettings, export_model
from fsdeploy.export.frame_parity import seeded_frames

OLDEST = "1.15.1"

RUN = """
import sys, numpy, onnxruntime
assert onnxruntime.__version__ == sys.argv[1]
for path in sys.argv[2:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with numpy.load(path + ".npz") as feeds:
        outputs = session.run(None, dict(feeds))
    numpy.savez(path + ".out.npz", *outputs)
"""


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the oldest promised onnxruntime and nothing else."""
    folder = tmp_path_factory.mktemp("oldest")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = [f"onnxruntime=={OLDEST}", "numpy<2"]
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:", *wanted]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"onnxruntime {OLDEST} cannot be installed here: {result.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.slow
def test_the_oldest_and_the_newest_runtime_give_equal_outputs(
    tiny: Path, tiny_masked: Path, real_data: Path, tmp_path: Path, old_python: Path
) -> None:
    faces = real_data / "faces" / "A"
    frame, landmarks = seeded_frames(32)[1]
    whole = {"frame": frame, "landmarks": landmarks.astype(np.float32)}
    rng = np.random.default_rng(0)
    crops = {"face": rng.random((3, 3, 32, 32), np.float32)}
    wishes = {
        "plain.onnx": (tiny, ExportSettings(), crops),
        "masked.onnx": (tiny_masked, ExportSettings(opset=18), crops),
        "pixels.onnx": (tiny, ExportSettings(io="uint8"), {"face": rng.integers(0, 256, (3, 32, 32, 3), np.uint8)}),
        "app.dfm": (tiny_masked, ExportSettings(format="dfm"), {"in_face:0": rng.random((2, 224, 224, 3), np.float32)}),
        "stored.onnx": (tiny, ExportSettings(precision="fp16-storage"), crops),
        "int8.onnx": (tiny, ExportSettings(precision="int8", faces=faces), crops),
        "frame.onnx": (tiny, ExportSettings(graph="frame"), whole),
    }
    paths = []
    for name, (model, settings, feeds) in wishes.items():
        paths.append(export_model(model, tmp_path / name, settings=settings).path)
        np.savez(f"{paths[-1]}.npz", **feeds)
    subprocess.run([old_python, "-c", RUN, OLDEST, *paths], check=True, capture_output=True, text=True)
    for path in paths:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        newest = session.run(None, wishes[path.name][2])
        with np.load(f"{path}.out.npz") as oldest:
            for position, expected in enumerate(newest):
                got = oldest[f"arr_{position}"]
                levels = 1 if expected.dtype == np.uint8 else 0.02 if path.name == "int8.onnx" else 1e-5
                assert np.abs(got.astype(float) - expected).max() <= levels, path.name
