"""`fsdeploy bench` on files whose batch is free, fixed, or not there at all."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from fsdeploy.cli.bench import bench
from fsdeploy.errors import InputError
from fsdeploy.runtime.bench import bench_file


def whole_frame(path: Path) -> Path:
    """A graph with the borders of `fsdeploy export --graph frame`, which gives the frame back."""
    size = ["height", "width", 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["frame"], ["swapped"])],
        "frame",
        [
            helper.make_tensor_value_info("frame", TensorProto.UINT8, size),
            helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, [68, 2]),
        ],
        [helper.make_tensor_value_info("swapped", TensorProto.UINT8, size)],
    )
    return save(graph, path)


def faces(path: Path, batch: int | str) -> Path:
    """A graph with the borders of a plain export, which gives the face back."""
    borders = [batch, 3, 16, 16]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["face"], ["swap"])],
        "face",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, borders)],
        [helper.make_tensor_value_info("swap", TensorProto.FLOAT, borders)],
    )
    return save(graph, path)


def save(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_whole_frame_graph_is_one_row_of_milliseconds_per_frame(tmp_path: Path) -> None:
    path = whole_frame(tmp_path / "frame.onnx")
    (timing,) = bench_file(path, ["cpu"], runs=2)
    assert (timing.batch, timing.unit) == (1, "frame")
    assert timing.per_face_ms == timing.median_ms
    printed = CliRunner().invoke(bench, [str(path), "-p", "cpu", "-n", "1"], standalone_mode=False).output
    assert "ms/frame" in printed and "ms/face" not in printed
    assert len(printed.splitlines()) == 3, "title, heading, one row"


@pytest.mark.parametrize("batches", [[64], [1, 8]])
def test_a_batch_of_whole_frames_is_refused(tmp_path: Path, batches: list[int]) -> None:
    with pytest.raises(InputError, match="one whole frame per run: leave --batch out"):
        bench_file(whole_frame(tmp_path / "frame.onnx"), ["cpu"], batches, runs=1)


def test_a_batch_of_one_whole_frame_is_what_it_takes(tmp_path: Path) -> None:
    assert len(bench_file(whole_frame(tmp_path / "frame.onnx"), ["cpu"], [1], runs=1)) == 1


@pytest.mark.parametrize("batch, measured", [("N", [1, 8]), (3, [3])])
def test_faces_are_measured_in_the_batches_that_the_file_takes(
    tmp_path: Path, batch: int | str, measured: list[int]
) -> None:
    timings = bench_file(faces(tmp_path / "face.onnx", batch), ["cpu"], runs=2)
    assert [timing.batch for timing in timings] == measured
    for timing in timings:
        assert timing.unit == "face" and timing.median_ms is not None
        assert timing.per_face_ms == pytest.approx(timing.median_ms / timing.batch)
