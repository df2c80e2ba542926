"""Running exported files with numpy, OpenCV and onnxruntime alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsdeploy.errors import HostileFileError, InputError, ProviderUnavailableError
from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.runtime import Swapper
from fsdeploy.runtime.metadata import SwapMetadata


def metadata(**changes: object) -> SwapMetadata:
    values = {
        "direction": "a2b", "plugin": "test", "input_size": 16, "output_size": 16, "color_order": "bgr",
        "layout": "NCHW", "value_range": (0.0, 1.0), "centering": "legacy", "coverage": 1.0, "vertical_offset": 0.0,
        "has_mask": False, "iterations": 1, "opset": 17, "ir_version": 8, "producer_version": "0", "weights_sha256": "",
        "mean_face": tuple(map(tuple, MEAN_FACE.tolist())), "provenance": "", "extra": {"format": "onnx"},
    }  # fmt: skip
    return SwapMetadata(**{**values, **changes})


def model(path: Path, kind: str = "identity", batch: int | str = "N", props: bool = True, **meta: object) -> Path:
    """A graph whose answer is known: the face itself, or its negative."""
    borders = [batch, 3, 16, 16]
    nodes = {
        "identity": [helper.make_node("Identity", ["face"], ["swap"])],
        "negative": [helper.make_node("Sub", ["one", "face"], ["swap"])],
    }[kind]
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, borders)],
        [helper.make_tensor_value_info("swap", TensorProto.FLOAT, borders)],
        [numpy_helper.from_array(np.float32(1), "one")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if props:
        helper.set_model_props(proto, metadata(**meta).to_props())
    path.write_bytes(proto.SerializeToString())
    return path


def landmarks(width: float = 100.0, left: float = 110.0, top: float = 70.0) -> np.ndarray:
    """A frontal face: the mean face `width` px wide, with a jaw."""
    angle = np.arange(17) * np.pi / 16
    jaw = np.stack([0.5 - 0.62 * np.cos(angle), 0.2 + np.sin(angle)], axis=1)
    return np.concatenate([jaw, MEAN_FACE]) * width + (left, top)


def frame() -> np.ndarray:
    y, x = np.mgrid[:240, :320]
    return np.stack([x * 0.75, y, 127 + 100 * np.sin(x / 30) * np.cos(y / 25)], axis=-1).astype(np.uint8)


def test_crops_come_back_in_bgr_and_0_to_1_whatever_their_type(tmp_path: Path) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx", "negative"))
    crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    faces, masks = swapper.swap(crops)
    assert faces.dtype == np.float32 and masks is None
    np.testing.assert_allclose(faces, 1 - crops / 255, atol=1e-6)
    np.testing.assert_allclose(swapper.swap(crops.astype(np.float32) / 255)[0], faces, atol=1e-6)


def test_an_rgb_model_is_fed_red_first(tmp_path: Path) -> None:
    borders = ["N", 3, 16, 16]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["face", "gain"], ["swap"])], "test",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, borders)],
        [helper.make_tensor_value_info("swap", TensorProto.FLOAT, borders)],
        [numpy_helper.from_array(np.array([1, 0.5, 0], np.float32).reshape(1, 3, 1, 1), "gain")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, metadata(color_order="rgb").to_props())
    (tmp_path / "rgb.onnx").write_bytes(proto.SerializeToString())
    faces, _ = Swapper(tmp_path / "rgb.onnx").swap(np.full((1, 16, 16, 3), 255, np.uint8))
    np.testing.assert_allclose(faces[0, 0, 0], [0, 0.5, 1])  # blue, green, red


@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_any_number_of_faces_fits_any_batch(tmp_path: Path, batch: int | str) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx", batch=batch), batch=3)
    crops = np.random.default_rng(0).random((7, 16, 16, 3), dtype=np.float32)
    np.testing.assert_allclose(swapper.swap(crops)[0], crops, atol=1e-6)
    assert swapper.swap(crops[:0])[0].shape == (0, 16, 16, 3)


def test_bound_buffers_give_the_same_faces_run_after_run(tmp_path: Path) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx", "negative"), binding=True)
    for seed in range(3):
        crops = np.random.default_rng(seed).random((2, 16, 16, 3), dtype=np.float32)
        np.testing.assert_allclose(swapper.swap(crops)[0], 1 - crops, atol=1e-6)


def test_swapping_in_the_same_face_leaves_a_smooth_frame_as_it_was(tmp_path: Path) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx"))
    before = frame()
    after = swapper(before, landmarks(width=10.0, left=150, top=100))
    assert np.abs(after.astype(float) - before).max() <= 6 and np.abs(after.astype(float) - before).mean() < 0.02


def test_only_the_face_changes(tmp_path: Path) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx", "negative"), match_color=False)
    before = frame()
    after = swapper(before, landmarks())
    changed = np.abs(after.astype(int) - before).max(axis=-1) > 2
    assert changed[130, 160] and not changed[:, :80].any() and not changed[:, 240:].any() and not changed[:40].any()
    assert np.array_equal(before, frame()), "the caller's frame is untouched"


def test_colour_matching_brings_the_face_to_the_mean_of_the_one_it_replaces(tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx", "negative")
    before = np.full((240, 320, 3), (60, 90, 120), np.uint8)
    assert np.abs(Swapper(path)(before, landmarks()).astype(int) - before).max() <= 1
    assert np.abs(Swapper(path, match_color=False)(before, landmarks()).astype(int) - before).max() > 50


@pytest.mark.parametrize("mask", ["hull", "ellipse"])
def test_masks_cover_the_face_and_leave_the_corners(tmp_path: Path, mask: str) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx", "negative"), mask=mask, match_color=False)
    black = np.zeros((240, 320, 3), np.uint8)
    points = landmarks()
    after = swapper(black, points)
    nose = points[30].astype(int)
    assert after[nose[1], nose[0]].min() >= 254  # white where the mask is 1: blended once, not squared
    assert after[75, 85].max() == 0 and after[225, 85].max() == 0


def test_several_faces_of_one_frame_are_swapped_together(tmp_path: Path) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx", "negative"), match_color=False)
    black = np.zeros((240, 320, 3), np.uint8)
    two = np.stack([landmarks(40, 40, 60), landmarks(40, 220, 60)])
    after = swapper(black, two)
    assert after[80, 60].min() == 255 and after[80, 240].min() == 255 and after[80, 160].max() == 0
    assert np.array_equal(swapper(black, two[:0]), black)


def test_a_face_outside_the_frame_changes_nothing(tmp_path: Path) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx", "negative"), match_color=False)
    assert np.array_equal(swapper(frame(), landmarks(left=5000)), frame())


@pytest.mark.parametrize(
    "crops, message",
    [
        (
            np.zeros((1, 3, 16, 16), np.float32),
            r"crops must be \(N, 16, 16, 3\) uint8 or float32, got \(1, 3, 16, 16\)",
        ),
        (np.zeros((16, 16, 3), np.uint8), r"got \(16, 16, 3\) uint8"),
        (np.zeros((1, 16, 16, 3), np.float64), r"got \(1, 16, 16, 3\) float64"),
        ([1, 2], "must be a numpy array"),
    ],
)
def test_wrong_crops_are_refused_with_expected_and_got(tmp_path: Path, crops: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Swapper(model(tmp_path / "m.onnx")).swap(crops)


def test_wrong_frames_and_landmarks_are_refused(tmp_path: Path) -> None:
    swapper = Swapper(model(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match=r"the frame must be \(N, N, 3\) uint8"):
        swapper(np.zeros((8, 8), np.uint8), landmarks())
    with pytest.raises(InputError, match=r"landmarks must be \(68, 2\) .* got \(5, 2\)"):
        swapper(frame(), np.zeros((5, 2)))
    with pytest.raises(InputError, match=r"at least one pixel, got \(0, 10, 3\)"):
        swapper(np.zeros((0, 10, 3), np.uint8), landmarks())
    with pytest.raises(InputError, match="finite"):
        swapper(frame(), np.full((68, 2), np.nan))
    with pytest.raises(InputError, match="one point"):
        swapper(frame(), np.ones((68, 2)))


def test_an_onnx_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no fsdeploy metadata: export it with 'fsdeploy export'"):
        Swapper(model(tmp_path / "m.onnx", props=False))


def test_a_file_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="newer fsdeploy"):
        Swapper(model(tmp_path / "m.onnx", format_version=99))


@pytest.mark.parametrize(
    "changes",
    [
        {"input_size": "16"}, {"input_size": -1}, {"coverage": float("nan")}, {"centering": "nose"}, {"has_mask": 1},
        {"extra": {"crop": {"name": "facefusion", "side": 0, "center": [0, 0]}}}, {"mean_face": []}, {"extra": []},
    ],
)  # fmt: skip
def test_damaged_metadata_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"m\.onnx has damaged fsdeploy metadata"):
        Swapper(model(tmp_path / "m.onnx", **changes))


@pytest.mark.parametrize("changes", [{"output_size": 32}, {"has_mask": True}, {"layout": "NHWC"}])
def test_metadata_that_the_graph_contradicts_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="where its metadata says"):
        Swapper(model(tmp_path / "m.onnx", **changes))


@pytest.mark.parametrize("keep", [0, 1, 10, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep: float) -> None:
    whole = model(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=r"cut\.onnx"):
        Swapper(path)


def test_a_missing_file_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.onnx"):
        Swapper(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("This is not a model at all, it is plain text.")
    with pytest.raises(InputError, match="not a whole ONNX file"):
        Swapper(tmp_path / "text.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "C:\\secret.bin", "a/../../b"])
def test_weights_outside_the_files_folder_are_refused(tmp_path: Path, location: str) -> None:
    path = model(tmp_path / "m.onnx")
    proto = onnx.load(str(path))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(HostileFileError, match="outside its own folder: refused"):
        Swapper(path)
    tensor.external_data[0].value = "beside.bin"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"keeps weights in beside\.bin"):
        Swapper(path)


def test_the_provider_is_the_one_that_the_session_uses(tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx")
    assert Swapper(path, providers="cpu", strict=True).provider == "CPUExecutionProvider"
    with pytest.raises(InputError, match="unknown execution provider 'gpux'"):
        Swapper(path, providers="gpux")
    with pytest.raises(ProviderUnavailableError, match=r"CoreMLExecutionProvider does not run here") as caught:
        Swapper(path, providers="coreml", strict=True)
    assert caught.value.exit_code == 3


def test_cuda_without_a_gpu_runs_on_the_cpu_or_is_refused_when_strict(tmp_path: Path, capfd: object) -> None:
    path = model(tmp_path / "m.onnx")
    swapper = Swapper(path, providers="cuda")
    if swapper.provider == "CUDAExecutionProvider":
        pytest.skip("this machine has a GPU")
    assert swapper.provider == "CPUExecutionProvider"
    with pytest.raises(ProviderUnavailableError, match="CUDAExecutionProvider does not run here"):
        Swapper(path, providers="cuda", strict=True)
    assert capfd.readouterr() == ("", ""), "no output of the runtime's own libraries"


class OtherRuntime:
    """An onnxruntime with a GPU provider that starts; remembers what it was asked for."""

    __version__ = "1.2.3"
    SessionOptions = staticmethod(onnxruntime.SessionOptions)

    def __init__(self) -> None:
        self.providers: list[str] = []
        self.severities: list[int] = []

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def set_default_logger_severity(self, level: int) -> None:
        self.severities.append(level)

    def InferenceSession(self, model: str, options: object, providers: list[str]) -> OtherRuntime:  # noqa: N802
        self.providers = providers
        return self

    def get_providers(self) -> list[str]:
        return self.providers


@pytest.mark.parametrize(
    "asked, tried, levels",
    [
        ("cpu", ["CPU"], []),
        ("cpu,cuda", ["CPU"], []),
        (["cpu", "tensorrt"], ["CPU"], []),
        ("cuda,cpu", ["CUDA", "CPU"], [4, 2]),
        ("cuda,cpu,tensorrt", ["CUDA", "CPU"], [4, 2]),
        ("auto", ["CUDA", "CPU"], [4, 2]),
    ],
)
def test_the_first_provider_asked_for_is_tried_first_and_nothing_after_the_cpu(
    monkeypatch: pytest.MonkeyPatch, asked: str | list[str], tried: list[str], levels: list[int]
) -> None:
    from fsdeploy.runtime import providers

    runtime = OtherRuntime()
    monkeypatch.setattr(providers, "import_onnxruntime", lambda: runtime)
    session = providers.open_session("m.onnx", "m.onnx", asked, strict=True)
    assert session.get_providers() == [f"{name}ExecutionProvider" for name in tried]
    assert runtime.severities == levels, "the log level of the embedding program is left alone for the CPU"


@pytest.mark.parametrize("asked", [[], ()])
def test_an_empty_list_of_providers_is_refused(tmp_path: Path, asked: list[str]) -> None:
    for strict in (False, True):
        with pytest.raises(InputError, match="no execution provider was named: choose from auto"):
            Swapper(model(tmp_path / "m.onnx"), asked, strict=strict)


def test_two_onnxruntime_wheels_are_reported_with_the_repair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fsdeploy.runtime import providers

    monkeypatch.setattr(providers, "installed_wheels", lambda: ("onnxruntime", "onnxruntime-gpu"))
    repair = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    with pytest.warns(RuntimeWarning, match=repair):
        Swapper(model(tmp_path / "m.onnx"))


def test_importing_the_runtime_is_quick_and_brings_no_torch() -> None:
    code = (
        "import time, sys; t = time.process_time(); from fsdeploy.runtime import Swapper; "
        "print(time.process_time() - t); assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    seconds = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
               for _ in range(2)]  # fmt: skip
    assert min(seconds) < 0.5
