"""Time and memory of converting a 1080p clip with one face, beside the original program's way of doing the same steps.

    python benchmarks/convert.py [--frames 100] [--size 256] [--json FILE] [--long 1000]

The clip is drawn (noise over gradients, a moving face of about 350 px), the model is a small convolutional network of
the given size on onnxruntime's CPU provider. Prints milliseconds per frame by stage, frames per second and peak memory,
for `--frames` and for `--long` frames: memory must not grow with the clip.

In the pipeline the stages share the cores, so their wall times add up to more than a frame takes; `alone` is each step
by itself, best of several, as is the comparison: what the original does to each frame, that is a full-frame float
canvas, a full-frame warp and two full-frame blends.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MS, LIMIT_MB = 25.0, 1200.0


def draw_clip(path: Path, landmarks: Path, count: int) -> None:
    """A 1080p clip and the landmarks of its one face."""
    import av
    import numpy as np

    from fsdeploy.faces.landmarks import MEAN_FACE

    y, x = np.mgrid[:1080, :1920].astype(np.float32)
    base = np.stack([x / 8, y / 5, 90 + 60 * np.sin(x / 40) * np.cos(y / 30)], -1)
    noise = np.random.default_rng(0).normal(0, 6, (1080, 1920, 3)).astype(np.float32)
    k = np.arange(17)
    jaw = np.stack([0.5 - 0.62 * np.cos(np.pi * k / 16), 0.2 + np.sin(np.pi * k / 16)], -1)
    face = (np.concatenate([jaw, MEAN_FACE]) - 0.5) * 350
    frames = {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for n in range(count):
            image = np.clip(base + np.roll(noise, 7 * n, 1), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            frames[str(n)] = [{"landmarks": np.add(face, (760 + 4 * (n % 100), 540)).tolist()}]
        container.mux(stream.encode(None))
    landmarks.write_text(json.dumps(frames))


def write_model(path: Path, size: int) -> None:
    """A convolutional network of about 1 GFLOP at 256 px with fsdeploy's metadata."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from fsdeploy.faces.landmarks import MEAN_FACE
    from fsdeploy.runtime.metadata import SwapMetadata

    rng = np.random.default_rng(1)
    nodes, weights, last, channels = [], [], "face", 3
    for number, (width, stride) in enumerate([(16, 2), (32, 2), (32, 1), (32, 1)]):
        kernel = rng.normal(0, 0.1, (width, channels, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"w{number}"))
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1] * 4, strides=[stride] * 2))
        nodes.append(helper.make_node("LeakyRelu", [f"c{number}"], [f"r{number}"], alpha=0.1))
        last, channels = f"r{number}", width
    kernel = rng.normal(0, 0.01, (48, channels, 3, 3)).astype(np.float32)
    weights.append(onnx.numpy_helper.from_array(kernel, "w9"))
    nodes += [
        helper.make_node("Conv", [last, "w9"], ["c9"], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["c9"], ["d9"], blocksize=4),
        helper.make_node("Add", ["d9", "face"], ["sum"]),
        helper.make_node("Clip", ["sum", "low", "high"], ["swap"]),
    ]
    weights += [onnx.numpy_helper.from_array(np.float32(v), name) for name, v in (("low", 0.0), ("high", 1.0))]
    shape = ["N", 3, size, size]
    graph = helper.make_graph(
        nodes, "bench", [helper.make_tensor_value_info("face", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("swap", TensorProto.FLOAT, shape)], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = SwapMetadata(
        "a2b", "bench", size, size, "bgr", "NCHW", (0.0, 1.0), "face", 0.875, 0.0, False, 0, 17, 8, "0", "0" * 64,
        tuple((float(a), float(b)) for a, b in MEAN_FACE), "synthetic",
    )  # fmt: skip
    for name, value in facts.to_props().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    onnx.save(model, path)


def convert_once(folder: Path, count: int, size: int) -> dict[str, object]:
    """Draw, convert in a process of its own, and return its report with peak memory in MB."""
    clip, landmarks, model = folder / f"clip{count}.mp4", folder / f"faces{count}.json", folder / f"model{size}.onnx"
    draw_clip(clip, landmarks, count)
    if not model.exists():
        write_model(model, size)
    report = folder / f"report{count}.json"
    command = [sys.executable, "-m", "fsdeploy", "convert", "-m", model, "-i", clip, "-o", folder / f"out{count}.mp4",
               "-l", landmarks, "--report", report, "--set", "writer.video.encoder=libx264"]  # fmt: skip
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"convert failed: {process.stderr.read() if process.stderr else ''}")
    unit = 1 << 20 if platform.system() == "Darwin" else 1 << 10
    return {**json.loads(report.read_text()), "peak_mb": round(usage.ru_maxrss / unit, 1)}


def steps_alone(folder: Path, size: int, repeats: int = 15) -> dict[str, float]:
    """Best milliseconds of crop, mask with colour, and paste of one frame, one after another with nothing beside."""
    import numpy as np

    from fsdeploy.convert.landmarks import read_landmarks
    from fsdeploy.convert.settings import default_look
    from fsdeploy.convert.swap import align_records, crop_faces, make_patch
    from fsdeploy.runtime import Swapper
    from fsdeploy.runtime.paste import paste_patch

    frame = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    records = next(iter(read_landmarks(next(folder.glob("faces*.json"))).frames.values()))
    model, look, known = Swapper(folder / f"model{size}.onnx"), default_look(), align_records(records)
    best = {"crop": float("inf"), "mask and colour": float("inf"), "paste": float("inf")}
    for _ in range(repeats):
        marks = [time.perf_counter()]
        faces = crop_faces(frame, records, model, known)
        marks.append(time.perf_counter())
        swapped = faces[0].reference.astype(np.float32) / np.float32(255)
        ready = time.perf_counter()
        patch, _ = make_patch(faces[0], swapped, None, model, look, 1920)
        marks.append(time.perf_counter() - ready + marks[-1])
        pasted = time.perf_counter()
        paste_patch(frame.copy(), patch.pixels[..., :3], patch.pixels[..., 3], patch.matrix)
        marks.append(time.perf_counter() - pasted + marks[-1])
        for name, start, end in zip(best, marks, marks[1:], strict=False):
            best[name] = min(best[name], (end - start) * 1000)
    return {name: round(value, 2) for name, value in best.items()}


def original_steps(size: int, repeats: int = 5) -> dict[str, float]:
    """Milliseconds per frame of the same work as the original does it: everything on the full frame in float."""
    import cv2
    import numpy as np

    frame = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    patch = np.random.default_rng(1).random((size, size, 4)).astype(np.float32)
    matrix = np.array([[size / 700, 0, -300 * size / 700], [0, size / 700, -100 * size / 700]])
    best = {"crop": float("inf"), "composite": float("inf"), "second blend": float("inf")}
    for _ in range(repeats):
        started = time.perf_counter()
        crop = cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_CUBIC).astype(np.float32)
        marks = [time.perf_counter()]
        canvas = np.concatenate([frame.astype(np.float32) / 255.0, np.zeros((1080, 1920, 1), np.float32)], -1)
        warped = cv2.warpAffine(patch, matrix, (1920, 1080), flags=cv2.WARP_INVERSE_MAP | cv2.INTER_CUBIC)
        alpha = warped[..., 3:]
        canvas[..., :3] = canvas[..., :3] * (1 - alpha) + warped[..., :3] * alpha
        canvas[..., 3:] += alpha * (1 - canvas[..., 3:])
        marks.append(time.perf_counter())
        out = canvas[..., :3] * canvas[..., 3:] + frame.astype(np.float32) / 255.0 * (1 - canvas[..., 3:])
        np.rint(np.clip(out, 0, 1) * 255.0).astype(np.uint8)
        marks.append(time.perf_counter())
        assert crop.shape[0] == size
        for name, start, end in zip(best, [started, *marks], marks, strict=False):
            best[name] = min(best[name], (end - start) * 1000)
    return {name: round(value, 1) for name, value in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--long", type=int, default=0, help="also convert this many frames, to see that memory is flat")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    results: dict[str, object] = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        for count in filter(None, (chosen.frames, chosen.long)):
            report = convert_once(Path(name), count, chosen.size)
            stages = report["ms_per_frame"]
            assert isinstance(stages, dict)
            results[f"{count} frames"] = {
                "ms_per_frame": stages, "fps": report["fps"], "peak_mb": report["peak_mb"],
            }  # fmt: skip
            print(f"{count} frames of 1080p, {chosen.size} px: {report['fps']} fps, peak {report['peak_mb']} MB")
            print("  " + ", ".join(f"{stage} {value:.1f} ms" for stage, value in stages.items()))
        alone = steps_alone(Path(name), chosen.size)
    results["alone"] = alone
    print(
        f"alone: {alone}, {sum(alone.values()):.1f} ms a frame (to reach: {LIMIT_MS}); memory to reach: {LIMIT_MB} MB"
    )
    original = original_steps(chosen.size)
    results["original"] = original
    total = sum(original.values())
    print(f"the original's steps on the full frame: {original}, {total:.0f} ms a frame without mask and colour")
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
