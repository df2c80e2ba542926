"""The chain on real faces: two folders of faces in, a swapped clip out, through the commands that a user types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from fsdeploy.faces.png import read_header

COMPACT = ("-t", "compact", "-b", "4", "--seed", "3", "--set", "num_processes=0", "--set", "learning_rate=2e-3")

# Plain onnxruntime: whoever embeds the file has neither fsdeploy nor torch.
EMBEDDER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"fsdeploy", "fsdeploy_plugins", "torch"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import json, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
face = numpy.load(sys.argv[2])
name = session.get_inputs()[0].name
outputs = {o.name: v for o, v in zip(session.get_outputs(), session.run(None, {name: face}))}
numpy.save(sys.argv[3], outputs["swap"])
props = session.get_modelmeta().custom_metadata_map
print(json.dumps({"shape": outputs["swap"].shape, "direction": json.loads(props["fsdeploy.direction"])}))
"""


def fsdeploy(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsdeploy", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def chain(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model trained for a moment on real faces, its two ONNX files and a converted clip."""
    work = tmp_path_factory.mktemp("chain")
    faces = real_data / "faces"
    train = ("train", "-A", faces / "A", "-B", faces / "B", "-m", work / "model", *COMPACT)
    fsdeploy(*train, "-i", 15)
    fsdeploy(*train, "-i", 15)
    fsdeploy("export", work / "model", "-o", work / "a2b.onnx")
    fsdeploy("export", work / "model", "--swap-sides", "-o", work / "b2a.onnx")
    return work


def losses(model: Path) -> np.ndarray:
    """Total loss per iteration, from the TensorBoard logs."""
    from tensorboard.compat.proto.event_pb2 import Event

    from fsdeploy.training.tensorboard import RecordIterator

    values = []
    for file in sorted(model.glob("*_logs/session_*/**/events.*")):
        for record in RecordIterator(str(file)):
            event = Event.FromString(record)
            values += [(event.step, v) for v in event.summary.value if v.tag == "batch_total"]
    return np.array([v.simple_value or v.tensor.float_val[0] for _, v in sorted(values, key=lambda pair: pair[0])])


def test_training_continues_where_it_stopped_and_the_loss_falls(chain: Path) -> None:
    state = json.loads((chain / "model" / "compact_state.json").read_text("utf-8"))
    assert state["iterations"] == 30
    assert [session["iterations"] for session in state["sessions"].values()] == [15, 15]
    series = losses(chain / "model")
    assert len(series) == 30
    assert series[-10:].mean() < 0.9 * series[:10].mean()


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_an_exported_file_passes_the_onnx_checker_and_runs_in_plain_onnxruntime(
    chain: Path, tmp_path: Path, direction: str
) -> None:
    import torch

    from fsdeploy.model.folder import load_model

    model = chain / f"{direction}.onnx"
    onnx.checker.check_model(onnx.load(model), full_check=True)
    plugin = load_model(chain / "model")
    face = np.random.default_rng(1).random((3, *plugin.input_shape), np.float32)
    np.save(tmp_path / "face.npy", face)
    command = [sys.executable, "-c", EMBEDDER, str(model), str(tmp_path / "face.npy"), str(tmp_path / "swap.npy")]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert answer["direction"] == direction
    with torch.no_grad():
        expected = plugin.model.swap(torch.from_numpy(face), side=1 if direction == "a2b" else 0)[0].numpy()
    assert np.abs(np.load(tmp_path / "swap.npy") - expected).max() < 1e-4


def test_a_clip_is_converted_frame_by_frame_and_changes_only_around_the_face(chain: Path, real_data: Path) -> None:
    out = chain / "swapped.mp4"
    fsdeploy("convert", "-m", chain / "a2b.onnx", "-i", real_data / "clip_A.mp4", "-o", out,
             "--faces", real_data / "faces" / "A", "--range", "1-30")  # fmt: skip
    source, result = cv2.VideoCapture(str(real_data / "clip_A.mp4")), cv2.VideoCapture(str(out))
    changes = []
    while (written := result.read())[0]:
        changes.append(np.abs(source.read()[1].astype(np.float32) - written[1]).mean(axis=2))
    assert len(changes) == 30
    hull = cv2.convexHull(read_header(real_data / "faces" / "A" / "clip_A_000004_0.png").face.landmarks)
    face = np.zeros(changes[3].shape, np.uint8)
    cv2.fillConvexPoly(face, np.rint(hull).astype(np.int32), 1)
    around = cv2.dilate(face, np.ones((41, 41), np.uint8))
    inside, outside = changes[3][face == 1].mean(), changes[3][around == 0].mean()
    assert inside > 4 * outside, "the face is not replaced"
    assert outside < 3.0, "the change goes beyond the face"


def test_a_missing_face_folder_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = fsdeploy("train", "-A", tmp_path / "none", "-B", tmp_path, "-m", tmp_path / "model", code=2)
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "none") in result.stderr
    assert not (tmp_path / "model").exists()
