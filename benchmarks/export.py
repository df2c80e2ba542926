"""Export and inference: onnxruntime against torch eager and torch.compile on the CPU, in one run.

    python benchmarks/export.py [--threads 2] [--rounds 15] [--no-compile] [--json]

Two models: `original` at 64 px, and one of the same blocks at 256 px. Engines take turns within each round, so that
load on the machine meets all of them alike; figures are medians. Export is timed in a process of its own, with the
growth of its memory over what it held after importing torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fsdeploy.export import export_model
from fsdeploy.model.base import ModelBase
from fsdeploy.model.folder import load_model
from fsdeploy.model.inference import Inference
from fsdeploy.model.network import SharedEncoderNetwork, SwapNetwork
from fsdeploy.model.registry import model_class, register
from fsdeploy.nn import Conv2DBlock, Conv2DOutput, Dense, UpscaleBlock
from fsdeploy.runtime.bench import memory_mb
from fsdeploy.runtime.session import BoundSession

BATCHES = (1, 8)


class Encoder256(nn.Module):
    """(N, 3, 256, 256) -> (N, 256, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 256, 512, 512)
        self.down = nn.Sequential(*(Conv2DBlock(narrow, wide) for narrow, wide in pairwise(widths)))
        self.dense_1 = Dense(512 * 4 * 4, 512)
        self.dense_2 = Dense(512, 512 * 4 * 4)
        self.up = UpscaleBlock(512, 256)

    def forward(self, face: Tensor) -> Tensor:
        x = self.dense_2(self.dense_1(self.down(face).flatten(1)))
        return self.up(x.reshape(-1, 512, 4, 4))


class Decoder256(nn.Module):
    """(N, 256, 8, 8) -> [(N, 3, 256, 256)]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (256, 256, 128, 64, 32, 16)
        self.up = nn.Sequential(*(UpscaleBlock(wide, narrow) for wide, narrow in pairwise(widths)))
        self.face_out = Conv2DOutput(widths[-1], 3)

    def forward(self, code: Tensor) -> list[Tensor]:
        return [self.face_out(self.up(code))]


@register
class Model256(ModelBase):
    """A 256 px model of the same blocks."""

    name = "bench_256"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 256, 256)

    def build_model(self, inputs: object = None) -> SwapNetwork:
        return SharedEncoderNetwork(Encoder256(), Decoder256(), Decoder256())


@dataclass(frozen=True)
class Speed:
    """Median milliseconds per run of one engine."""

    model: str
    batch: int
    engine: str
    median_ms: float
    fastest_ms: float


def write_model(folder: Path, name: str) -> float:
    """A fresh model on disk; its weights in units of 10^6 bytes."""
    plugin = model_class(name)(folder)
    plugin.build()
    plugin.io.save(is_exit=True)
    plugin.io.close()
    return (folder / f"{name}.safetensors").stat().st_size / 1e6


def engines(folder: Path, file: Path, threads: int, compiled: bool) -> dict[str, Callable[[Tensor], object]]:
    """Engine name -> what runs one batch."""
    torch.set_num_threads(threads)
    module = Inference(load_model(folder), switch_sides=False)
    session = BoundSession(file, "cpu", threads=threads)
    found: dict[str, Callable[[Tensor], object]] = {
        "onnxruntime": lambda face: session.run([face.numpy()]),
        "torch eager": module,
    }
    if compiled:
        found["torch.compile"] = torch.compile(module, dynamic=False)
    return found


def race(model: str, runners: dict[str, Callable[[Tensor], object]], edge: int, rounds: int) -> list[Speed]:
    """Time all engines in turns."""
    speeds = []
    for batch in BATCHES:
        face = torch.from_numpy(np.random.default_rng(0).random((batch, 3, edge, edge), dtype=np.float32))
        times: dict[str, list[float]] = {name: [] for name in runners}
        with torch.inference_mode():
            for run in runners.values():
                run(face), run(face)
            for _ in range(rounds):
                for name, run in runners.items():
                    started = time.perf_counter()
                    run(face)
                    times[name].append((time.perf_counter() - started) * 1e3)
        speeds += [Speed(model, batch, name, statistics.median(took), min(took)) for name, took in times.items()]
    return speeds


def export_cost(folder: Path, file: Path) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, and peak growth of memory (10^6 bytes) of one export, measured in this process."""
    import threading

    import torch._dynamo  # noqa: F401  the model's shape inference imports it; not the export's memory

    before, peak, stop = memory_mb() or 0.0, [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], memory_mb() or 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, used = time.perf_counter(), time.process_time()
    export_model(folder, file)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    stop.set()
    watcher.join()
    return seconds, used, peak[0] - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out (it needs a C++ compiler)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--export-only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export_only:
        print(json.dumps(export_cost(*map(Path, arguments.export_only))))
        return
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, edge in (("original", 64), ("bench_256", 256)):
            folder, file = Path(scratch) / name, Path(scratch) / f"{name}.onnx"
            megabytes = write_model(folder, name)
            command = [sys.executable, __file__, "--export-only", str(folder), str(file)]
            seconds, used, grown = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout
            )
            speeds = race(
                name, engines(folder, file, arguments.threads, not arguments.no_compile), edge, arguments.rounds
            )
            results[name] = {
                "edge": edge,
                "model_mb": megabytes,
                "export_s": seconds,
                "export_cpu_s": used,
                "export_memory_mb": grown,
                "export_memory_over_model": grown / megabytes,
                "speeds": [vars(entry) for entry in speeds],
            }
            if not arguments.json:
                report(name, edge, megabytes, seconds, used, grown, speeds)
    if arguments.json:
        print(json.dumps(results, indent=2))


def report(
    name: str, edge: int, megabytes: float, seconds: float, used: float, grown: float, speeds: list[Speed]
) -> None:
    print(f"{name}, {edge} px, {megabytes:.0f} MB")
    print(f"  export {seconds:.1f} s ({used:.1f} s of CPU), memory {grown:.0f} MB = {grown / megabytes:.2f} models")
    eager = {entry.batch: entry.median_ms for entry in speeds if entry.engine == "torch eager"}
    for entry in speeds:
        print(
            f"  batch {entry.batch}  {entry.engine:13}  median {entry.median_ms:8.1f} ms  fastest "
            f"{entry.fastest_ms:8.1f} ms  {eager[entry.batch] / entry.median_ms:5.2f} times torch eager"
        )


if __name__ == "__main__":
    main()
