"""Runs of a small model inside the test's own process, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from two_sizes_model import TwoSizesModel

from fsdeploy.config.training import TrainingOptions
from fsdeploy.training import session
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.registry import trainer_class
from fsdeploy.training.requests import Requests
from fsdeploy.training.train import Trainer

Folders = tuple[Path, Path]
PLAIN: dict[str, Any] = {"num_processes": 1, "loss_function": "mae", "loss_function_2": "none", "learning_rate": 1e-3}


def start(
    folder: Path | None, faces: Folders, options: dict[str, Any] | None = None, *, seed: int | None = 5,
    model_options: dict[str, Any] | None = None, **changes: Any,
) -> Trainer:  # fmt: skip
    training = None if options is None else TrainingOptions.from_flat(options)
    config = {name: changes.pop(name) for name in list(changes) if name in TrainConfig.__dataclass_fields__}
    if seed is not None:
        torch.manual_seed(seed)
    model = TwoSizesModel(folder, None, training, **(model_options or {}))
    model.build()
    plugin = trainer_class("original")(model, TrainConfig(folders=faces, **{"batch_size": 3, **config}))
    return Trainer(plugin, changes.pop("preview", False), seed=seed, device=torch.device("cpu"), **changes)


def run(trainer: Trainer, iterations: int, requests: Requests | None = None, **changes: Any) -> Trainer:
    try:
        session.run(trainer, requests or Requests(), iterations, quiet=True, **changes)
    finally:
        trainer.close()
    return trainer


class FakeLoader:
    """The trainer's loader with its batches changed on the way."""

    def __init__(self, trainer: Trainer, draw: Callable[..., Any]) -> None:
        self._loader, self._draw = trainer.loader, draw

    def __next__(self) -> Any:
        return self._draw()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def poisoned(trainer: Trainer, at: int) -> Callable[..., Any]:
    """The trainer's batches, with one that is not a number."""
    real = trainer.loader.__next__
    count = 0

    def draw() -> Any:
        nonlocal count
        count += 1
        inputs, targets, meta = real()
        if count == at:
            targets[0].fill_(torch.nan)
        return inputs, targets, meta

    return draw
