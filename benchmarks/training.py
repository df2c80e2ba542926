"""How fast training is, what share of it waits for data, and what our loop costs over a bare torch loop.

The bare loop does what every torch program would: forward, losses, backward, optimizer step, on batches that lie ready.
Ours does a whole `Trainer.train_one_step` on the same batches: protection, clipping norm, figures, history. Both run in
turns in one process, so that a busy machine slows both alike. Then ours runs on its real loader, from face files.

    python benchmarks/training.py --model compact --batch-size 8
    python benchmarks/training.py --model original --batch-size 64 --precision float32,float16,bfloat16 --json out.json
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from fsdeploy.config.training import TrainingOptions
from fsdeploy.demo.dataset import DataSize, write_dataset
from fsdeploy.model.registry import model_class
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.optimizer import build_optimizer
from fsdeploy.training.registry import trainer_class
from fsdeploy.training.train import Trainer, pick_device
from fsdeploy.training.trainer_base import side_losses

_BLOCK = 2
_READY = 4


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    device: str
    precision: str
    model: str
    batch_size: int
    bare_ms: float
    """Median time of an iteration of the bare loop; CPU time on a CPU."""
    ours_ms: float
    """Median time of an iteration of ours on ready batches."""
    overhead_percent: float
    """Median over pairs of neighbouring blocks of ours / bare - 1."""
    iterations_per_s: float
    """With the real loader."""
    samples_per_s: float
    """Faces of both sides."""
    waiting_percent: float
    """Share of the time spent waiting for a batch, with the real loader."""


class _Ready:
    """Hands out the same few batches again and again."""

    def __init__(self, batches: list[Any], real: Any) -> None:
        self._batches, self._real = cycle(batches), real

    def __next__(self) -> Any:
        return next(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _build(model: str, folders: tuple[Path, Path], batch_size: int, device: torch.device, precision: str) -> Trainer:
    options = TrainingOptions.from_flat({"mixed_precision": precision != "float32", "learning_rate": 1e-5})
    torch.manual_seed(0)
    plugin = model_class(model)(None, None, options)
    if precision != "float32":
        dtype = getattr(torch, precision)
        plugin.settings.half_precision = lambda device: dtype  # type: ignore[method-assign]
    plugin.build()
    trainer = trainer_class("original")(plugin, TrainConfig(folders=folders, batch_size=batch_size))
    return Trainer(trainer, preview=False, seed=0, device=device)


def _bare_step(trainer: Trainer, batches: list[Any]) -> Callable[[], None]:
    """One iteration as anyone would write it, with its own optimizer over the same network."""
    network, plugin, device = trainer.model.model, trainer.plugin, trainer.device
    optimizer = build_optimizer(trainer.model.training.optimizer, [{"params": list(network.parameters())}], device)
    settings = trainer.model.settings
    scales = settings.use_mixed_precision and settings.half_precision(device) == torch.float16
    scaler = torch.amp.GradScaler(device.type) if scales else None
    ready = cycle(batches)

    def step() -> None:
        inputs, targets, meta = next(ready)
        with settings.autocast(device):
            losses = side_losses(network, plugin.loss_func, inputs, targets, meta)
        total = losses[0].total + losses[1].total
        optimizer.zero_grad(set_to_none=True)
        if scaler is None:
            total.backward()
            optimizer.step()
        else:
            scaler.scale(total).backward()
            scaler.step(optimizer)
            scaler.update()

    return step


def _time(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Seconds per call; on a CPU those of this process alone, so that other programs do not disturb."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    _wait(device)
    started = clock()
    for _ in range(count):
        step()
    _wait(device)
    return (clock() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    model: str, folders: tuple[Path, Path], batch_size: int, device: torch.device, precision: str, rounds: int
) -> Result:
    """Measure one model on one device in one precision."""
    trainer = _build(model, folders, batch_size, device, precision)
    batches = [trainer._next_batch() for _ in range(_READY)]
    real = trainer.loader
    bare = _bare_step(trainer, batches)
    trainer.loader = _Ready(batches, real)  # type: ignore[assignment]

    def ours() -> None:
        trainer.train_one_step(None)

    for step in (bare, ours):
        _time(step, 3, device)
    pairs = []
    for number in range(rounds):
        order = (bare, ours) if number % 2 else (ours, bare)
        times = {step: _time(step, _BLOCK, device) for step in order}
        pairs.append((times[bare], times[ours]))
    trainer.loader = real
    _time(ours, 3, device)
    waited: list[float] = []
    add = trainer.pace.add
    trainer.pace.add = lambda seconds: (waited.append(seconds), add(seconds))[1]  # type: ignore[method-assign,func-returns-value]
    count = _BLOCK * rounds
    started = time.perf_counter()
    _time(ours, count, device)
    loaded = (time.perf_counter() - started) / count
    trainer.close()
    return Result(
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
        precision=precision,
        model=model,
        batch_size=batch_size,
        bare_ms=1000 * statistics.median(pair[0] for pair in pairs),
        ours_ms=1000 * statistics.median(pair[1] for pair in pairs),
        overhead_percent=100 * statistics.median(b / a - 1 for a, b in pairs),
        iterations_per_s=1 / loaded,
        samples_per_s=2 * batch_size / loaded,
        waiting_percent=100 * sum(waited) / (loaded * count),
    )


def _show(results: list[Result]) -> None:
    table = Table(title="Training", caption="waiting: share of time waiting for data; faces/s counts both sides")
    for column in (
        "device",
        "precision",
        "model",
        "batch",
        "bare ms",
        "ours ms",
        "overhead",
        "it/s",
        "faces/s",
        "waiting",
    ):
        table.add_column(column, justify="right")
    for r in results:
        table.add_row(
            r.device, r.precision, r.model, str(r.batch_size), f"{r.bare_ms:.1f}", f"{r.ours_ms:.1f}",
            f"{r.overhead_percent:+.1f} %", f"{r.iterations_per_s:.2f}", f"{r.samples_per_s:.0f}",
            f"{r.waiting_percent:.1f} %",
        )  # fmt: skip
    Console(width=120).print(table)


@click.command()
@click.option("--model", "models", multiple=True, default=("compact",), show_default=True, help="Model plugin.")
@click.option("-A", "input_a", type=click.Path(path_type=Path), help="Faces of A. [default: drawn faces]")
@click.option("-B", "input_b", type=click.Path(path_type=Path), help="Faces of B. [default: drawn faces]")
@click.option("--batch-size", default=8, show_default=True)
@click.option("--rounds", default=30, show_default=True, help=f"Blocks of {_BLOCK} iterations of each loop.")
@click.option("--precision", default="float32", show_default=True, help="float32, float16, bfloat16; comma separated.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the figures to a file as well.")
def main(
    models: tuple[str, ...], input_a: Path | None, input_b: Path | None, batch_size: int, rounds: int, precision: str,
    device: str, output: Path | None,
) -> None:  # fmt: skip
    """Measure training speed and the overhead of the loop."""
    chosen = pick_device() if device == "auto" else torch.device(device)
    with tempfile.TemporaryDirectory() as scratch:
        if input_a is None or input_b is None:
            a, b = write_dataset(Path(scratch), 0, DataSize(faces=64, clip_frames=1, held_out=0))
            folders = (a.faces, b.faces)
        else:
            folders = (input_a, input_b)
        results = [
            measure(model, folders, batch_size, chosen, kind.strip(), rounds)
            for model in models
            for kind in precision.split(",")
        ]
    _show(results)
    if output is not None:
        machine = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.platform()}
        output.write_text(json.dumps({"machine": machine, "results": [asdict(r) for r in results]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
