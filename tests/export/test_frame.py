"""The whole swap of a frame as one graph."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from fsdeploy.convert.settings import Choice, build_look
from fsdeploy.convert.swap import swap_frame
from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.export import ExportSettings, export_model
from fsdeploy.export import frame as frame_export
from fsdeploy.export.builder import Builder
from fsdeploy.export.frame_geometry import align
from fsdeploy.export.frame_parity import figure
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.alignments import read_alignments
from fsdeploy.faces.records import FaceRecord
from fsdeploy.model.info import ModelInfo
from fsdeploy.runtime import Swapper


def smooth_frame(height: int = 240, width: int = 320) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    planes = [255 * x / (width - 1), 255 * y / (height - 1), 127.5 + 127.5 * np.sin(x / 40) * np.cos(y / 30)]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


def info(centering: str) -> ModelInfo:
    return ModelInfo("tiny", 32, 32, (32,), "bgr", centering, 1.0, 0.0, False, 0, "")


def clip_faces(real_data: Path, every: int, count: int) -> Iterator[tuple[np.ndarray, FaceRecord]]:
    """Frames of a real clip with one face each."""
    known = read_alignments(real_data / "clip_A_alignments.fsa").frames
    with av.open(str(real_data / "clip_A.mp4")) as clip:
        for index, picture in enumerate(clip.decode(video=0)):
            faces = known.get(f"clip_A_{index + 1:06d}.mp4", [])
            if index % every == 0 and faces:
                yield picture.to_ndarray(format="bgr24"), faces[0]
                count -= 1
            if count == 0:
                return


@lru_cache(maxsize=4)
def pose_session(centering: str) -> onnxruntime.InferenceSession:
    builder = Builder(17)
    found = align(builder, builder.input("landmarks"), info(centering))
    graph = helper.make_graph(
        builder.nodes, "pose", [helper.make_tensor_value_info("landmarks", 1, [68, 2])],
        [helper.make_tensor_value_info(found.offset.name, 1, [2])], list(builder.constants.values()),
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run_offset(landmarks: np.ndarray, centering: str) -> np.ndarray:
    return pose_session(centering).run(None, {"landmarks": landmarks.astype(np.float32)})[0]


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole-frame export of the tiny model."""
    target = tmp_path_factory.mktemp("frames") / "w.onnx"
    return export_model(tiny, target, settings=ExportSettings(graph="frame")).path


@pytest.mark.parametrize("centering", ["face", "head"])
def test_the_head_pose_is_solved_inside_the_graph_as_outside(centering: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(12):
        points = figure(rng.uniform(30, 900), 700, 300, rng.uniform(-60, 60))
        points += rng.normal(0, 0.03 * np.ptp(points[:, 0]), points.shape)
        expected = AlignedFace.from_landmarks(points).offsets[centering]
        np.testing.assert_allclose(run_offset(points, centering), expected, atol=1e-3)


def test_the_head_pose_of_real_faces_is_found(real_data: Path) -> None:
    known = read_alignments(real_data / "clip_B_alignments.fsa").frames
    for name in sorted(known)[::40]:
        points = np.asarray(known[name][0].landmarks, np.float64)
        expected = AlignedFace.from_landmarks(points).offsets["face"]
        np.testing.assert_allclose(run_offset(points, "face"), expected, atol=5e-4)


@pytest.mark.parametrize(
    "model, mask",
    [("tiny", "hull"), ("tiny_masked", "predicted"), ("tiny_rgb", "predicted")],
)
def test_real_frames_come_out_as_from_the_convert_step(
    real_data: Path, tmp_path: Path, request: pytest.FixtureRequest, model: str, mask: str
) -> None:
    folder = request.getfixturevalue(model)
    graph = Swapper(export_model(folder, tmp_path / "w.onnx", settings=ExportSettings(graph="frame")).path, "cpu")
    face = Swapper(export_model(folder, tmp_path / "f.onnx").path, "cpu")
    look = build_look(Choice(mask=mask, edge="feather", color="avg-color"))
    for frame, record in clip_faces(real_data, every=90, count=3):
        expected = swap_frame(frame, [record], face, look).astype(int)
        difference = np.abs(graph(frame, np.asarray(record.landmarks)) - expected)
        changed = (expected != frame).sum()
        assert changed > 5000
        assert (difference > 2).sum() <= 0.005 * changed and difference.mean() < 0.02


@pytest.mark.parametrize("shape", [(97, 131), (480, 640)])
def test_frames_of_any_size_go_through_one_file(whole: Path, shape: tuple[int, int]) -> None:
    frame = smooth_frame(*shape)
    points = figure(60, shape[1] / 2 - 30, shape[0] / 2 - 30, 5)
    session = onnxruntime.InferenceSession(str(whole), providers=["CPUExecutionProvider"])
    assert [(entry.name, entry.shape) for entry in session.get_inputs()] == [
        ("frame", ["H", "W", 3]), ("landmarks", [68, 2])]  # fmt: skip
    out = session.run(None, {"frame": frame, "landmarks": points.astype(np.float32)})[0]
    assert out.shape == frame.shape and out.dtype == np.uint8
    assert (out != frame).any() and np.array_equal(out[:5], frame[:5])


@pytest.mark.parametrize("left", [-400.0, 5000.0])
def test_a_face_outside_the_frame_leaves_it_as_it_is(whole: Path, left: float) -> None:
    frame = smooth_frame()
    assert np.array_equal(Swapper(whole, "cpu")(frame, figure(80, left, 60, 0)), frame)


def test_a_matrix_can_take_the_place_of_the_landmarks(tiny: Path, tmp_path: Path) -> None:
    settings = ExportSettings(graph="frame-matrix")
    path = export_model(tiny, tmp_path / "w.onnx", settings=settings).path
    frame, points = smooth_frame(), figure(90, 100, 70, 8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    matrix = AlignedFace.from_landmarks(points).crop_matrix(32, "face", 1.0).astype(np.float32)
    out = session.run(None, {"frame": frame, "matrix": matrix})[0]
    expected = Swapper(export_model(tiny, tmp_path / "f.onnx").path, "cpu", mask="ellipse")(frame, points)
    assert np.abs(out.astype(int) - expected).max() <= 2
    assert np.array_equal(Swapper(path, "cpu")(frame, points), out)


def test_a_frame_graph_uses_standard_operators_only(whole: Path) -> None:
    model = onnx.load(str(whole))
    onnx.checker.check_model(str(whole), full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)


def test_a_hull_needs_landmarks_and_crops_need_a_face_graph(tiny: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs landmarks"):
        export_model(tiny, tmp_path / "w.onnx", settings=ExportSettings(graph="frame-matrix", mask="hull"))
    with pytest.raises(InputError, match="takes whole frames"):
        Swapper(whole).swap(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_model_that_hides_its_swap_is_judged_by_a_known_one(
    hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ExportSettings(graph="frame")
    path = export_model(hidden, tmp_path / "w.onnx", settings=settings).path
    picture = smooth_frame()
    assert np.array_equal(Swapper(path, "cpu")(picture, figure(90, 100, 70, 8)), picture), "the mask hides it all"
    monkeypatch.setattr(frame_export, "_match_mean", lambda builder, swap, reference, mask: swap * 0.5)
    with pytest.raises(CheckFailedError, match="differs from the numpy paste"):
        export_model(hidden, tmp_path / "broken.onnx", settings=settings)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["w.onnx", "w.onnx.json"]


def test_faces_smaller_than_the_model_come_out_as_from_numpy(large: Path, tmp_path: Path) -> None:
    graph = Swapper(export_model(large, tmp_path / "w.onnx", settings=ExportSettings(graph="frame")).path, "cpu")
    face = Swapper(export_model(large, tmp_path / "f.onnx").path, "cpu")
    picture = smooth_frame()
    for width, degrees in ((14.3, 0), (22, -9), (31, 21), (47, 4)):
        points = figure(width, 140.3, 96.8, degrees)
        expected = face(picture, points).astype(int)
        difference = np.abs(graph(picture, points) - expected)
        changed = (expected != picture).sum()
        assert changed > 400
        assert (difference > 2).sum() <= 0.005 * changed and difference.max() <= 12


@pytest.mark.parametrize("mask", [None, "ellipse"])
def test_a_frame_graph_says_what_it_does_and_refuses_to_be_asked_for_more(
    tiny_masked: Path, tmp_path: Path, mask: str | None
) -> None:
    settings = ExportSettings(graph="frame", mask=mask)
    path = export_model(tiny_masked, tmp_path / "w.onnx", settings=settings).path
    inside, other = (mask or "learned"), ("ellipse" if mask is None else "learned")
    meta = Swapper(path, "cpu", mask=inside).metadata
    assert meta.extra["mask"] == inside and not meta.has_mask, "it gives a frame and no mask"
    with pytest.raises(InputError, match=f"by its {inside} mask: export it again with --mask {other}"):
        Swapper(path, "cpu", mask=other)
    with pytest.raises(InputError, match="matches the colour itself"):
        Swapper(path, "cpu", match_color=False)
