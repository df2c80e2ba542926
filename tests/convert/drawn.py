"""A small model, drawn frames and clips: everything that convert needs, made in milliseconds."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
from onnx import TensorProto, helper

from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.runtime.metadata import SwapMetadata


def colour_model(
    path: Path, *, size: int = 64, output: int = 64, gain: tuple[float, float, float] = (1.0, 1.0, 1.0),
    mask: bool = False, coverage: float = 0.875, vertical_offset: float = 0.0, centering: str = "face",
    invert: bool = False,
) -> Path:  # fmt: skip
    """An ONNX that multiplies each channel (or inverts), resized by an exact factor; with fsdeploy's metadata."""
    weights = [onnx.numpy_helper.from_array(np.array(gain, np.float32).reshape(1, 3, 1, 1), "gain")]
    nodes, last = [], "face"
    if output != size:
        nodes.append(
            helper.make_node("Resize", [last, "", "scales"], ["resized"], mode="linear",
                             coordinate_transformation_mode="half_pixel")
        )  # fmt: skip
        weights.append(
            onnx.numpy_helper.from_array(np.array([1, 1, output / size, output / size], np.float32), "scales")
        )
        last = "resized"
    if invert:
        weights.append(onnx.numpy_helper.from_array(np.float32(1.0), "one"))
        nodes.append(helper.make_node("Sub", ["one", last], ["inverted"]))
        last = "inverted"
    nodes.append(helper.make_node("Mul", [last, "gain"], ["swap"]))
    outputs = [helper.make_tensor_value_info("swap", TensorProto.FLOAT, ["N", 3, output, output])]
    if mask:
        nodes.append(helper.make_node("ReduceMax", ["swap"], ["mask"], axes=[1], keepdims=1))
        outputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1, output, output]))
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["N", 3, size, size])],
        outputs,
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = SwapMetadata(
        "a2b", "test", size, output, "bgr", "NCHW", (0.0, 1.0), centering, coverage, vertical_offset, mask, 1, 17, 8,
        "0", "0" * 64, tuple((float(x), float(y)) for x, y in MEAN_FACE), "synthetic",
    )  # fmt: skip
    for name, value in facts.to_props().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def spec_frame(width: int = 960, height: int = 540) -> np.ndarray:
    """The frame of the test vectors: (H, W, 3) uint8 BGR."""
    y, x = np.mgrid[:height, :width]
    blue = np.round(255 * x / (width - 1))
    green = np.round(255 * y / (height - 1))
    red = np.round(127.5 + 127.5 * np.sin(x / 40) * np.cos(y / 30))
    return np.stack([blue, green, red], -1).astype(np.uint8)


def spec_landmarks(centre: tuple[float, float] = (480, 270), width: float = 180, degrees: float = 10) -> np.ndarray:
    """The 68 landmarks of the test vectors, (68, 2) float32; other places and sizes on demand."""
    k = np.arange(17)
    jaw = np.stack([0.5 - 0.62 * np.cos(np.pi * k / 16), 0.2 + np.sin(np.pi * k / 16)], -1)
    points = np.concatenate([jaw, MEAN_FACE]) - 0.5
    a = np.deg2rad(degrees)
    points = points @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]).T * width + np.array(centre)
    points[17:22, 1] -= 4 * width / 180
    points[48:60, 0] += 3 * width / 180
    return points.astype(np.float32)


def write_clip(
    path: Path, frames: list[np.ndarray], *, rate: int = 25, pts: list[int] | None = None,
    time_base: Fraction | None = None, tags: tuple[int, int, int, int] | None = None, sound_seconds: float = 0.0,
    codec: str = "libx264", options: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write a clip, with its own timestamps, colour tags (primaries, transfer, matrix, range) and a sine if asked."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {"crf": "8", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = time_base or Fraction(1, rate)
        matrix = 5
        if tags:
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
            matrix = tags[2]
        audio: Any = container.add_stream("aac", rate=48000, layout="mono") if sound_seconds else None
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=matrix, interpolation=4 | 0x40000)
            picture.pts = pts[number] if pts else number
            picture.time_base = time_base or Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if audio is not None:
            wave = 0.2 * np.sin(np.arange(int(48000 * sound_seconds)) * 0.05).astype(np.float32)
            for start in range(0, len(wave), 1024):
                part = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                part.sample_rate, part.pts = 48000, start
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))
    return path


def write_landmarks(path: Path, frames: dict[str, list[np.ndarray]]) -> Path:
    """Landmarks as documented JSON."""
    faces = {key: [{"landmarks": points.tolist()} for points in entry] for key, entry in frames.items()}
    path.write_text(json.dumps({"format": "fsdeploy-landmarks", "version": 1, "frames": faces}))
    return path
