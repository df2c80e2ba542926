"""How long a save of the `original` model holds up a training loop.

    python benchmarks/saving.py [--optimizer]

The loop does small matrix products, so that a stall of some milliseconds shows. Prints the time that `io.save` takes
before training goes on, the time until the files are on disk, and the slowest iterations with and without a save.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsdeploy.config.training import OptimizerOptions, TrainingOptions
from fsdeploy.model.registry import model_class


class Moments:
    """Two tensors per weight, as Adam has."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._tensors = {f"{name}/{key}": torch.zeros_like(v) for name, v in weights.items() for key in ("m", "v")}

    def state_tensors(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self._tensors, {}


def iterations(until: Callable[[], bool]) -> list[float]:
    """Seconds of each iteration of a loop that ends when `until` says so."""
    x = torch.rand(256, 256)
    times = []
    while not until():
        started = time.perf_counter()
        for _ in range(4):
            x = torch.tanh(x @ x)
        times.append(time.perf_counter() - started)
    return times


def shown(times: list[float]) -> str:
    """Median and slowest of some iterations in milliseconds."""
    ordered = sorted(times)
    return f"median {ordered[len(ordered) // 2] * 1e3:.2f} ms, slowest {ordered[-1] * 1e3:.1f} ms"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", action="store_true", help="Save the optimizer each time, too.")
    chosen = parser.parse_args()
    when = "always" if chosen.optimizer else "never"
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(optimizer=OptimizerOptions(save_optimizer=when))
        model = model_class("original")(Path(folder) / "m", training=options)
        model.build()
        optimizer = Moments(model.model.state_dict())
        end = time.perf_counter() + 3
        print(f"without a save: {shown(iterations(lambda: time.perf_counter() > end))}")
        for attempt in ("first save, with backup", "second save", "third save"):
            model.state.increment_iterations()
            started = time.perf_counter()
            model.io.save(optimizer)
            returned = time.perf_counter() - started
            times = iterations(lambda: not any(thread.name == "save" for thread in threading.enumerate()))
            written = time.perf_counter() - started
            print(f"{attempt}: loop held for {returned * 1e3:.0f} ms, on disk after {written:.1f} s, ", end="")
            print(f"iterations meanwhile {shown(times)}")
        model.close()


if __name__ == "__main__":
    main()
