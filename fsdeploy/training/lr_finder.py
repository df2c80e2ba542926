"""Finding a learning rate: raise it batch by batch until the loss diverges, and stay well below (Smith, 2015,
arXiv:1506.01186)."""

from __future__ import annotations

import logging
import math
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch.optim.lr_scheduler import ExponentialLR

from fsdeploy.config.option import specs
from fsdeploy.config.training import OptimizerOptions
from fsdeploy.progress import Progress
from fsdeploy.training import random_state
from fsdeploy.training.lr_graph import draw_graph

if TYPE_CHECKING:
    from fsdeploy.training.train import Trainer

logger = logging.getLogger(__name__)

LOWEST_RATE = float(specs(OptimizerOptions)["learning_rate"][2].minimum or 0.0)
"""A lower rate could not be set as an option either."""


class LRStrength(Enum):
    """By how much the rate of the lowest loss is divided."""

    DEFAULT = 10.0
    AGGRESSIVE = 5.0
    EXTREME = 2.5


class LearningRateFinder:
    """Scans learning rates with the trainer's own batches. Weights and random numbers are put back afterwards.

    Args:
        trainer: The training loop.
        scheduler: Raises the rate by a constant factor at each update.
        steps: Most updates of the scan.
        strength: How close to divergence the rate is set.
        mode: Whether the curve is drawn.
        stop_factor: The scan ends when the smoothed loss is so many times its lowest value.
        beta: Smoothing of the loss, 0 (none) to 1.
        batches_per_update: Batches whose gradients are accumulated for an update; their mean loss counts.
    """

    def __init__(
        self,
        trainer: Trainer,
        scheduler: ExponentialLR,
        steps: int,
        strength: Literal["default", "aggressive", "extreme"],
        mode: Literal["set", "graph_and_set", "graph_and_exit"],
        stop_factor: int = 4,
        beta: float = 0.98,
        batches_per_update: int = 1,
    ) -> None:
        self._trainer = trainer
        self._scheduler = scheduler
        self._steps = steps
        self._strength = LRStrength[strength.upper()]
        self._draws = mode != "set"
        self._stop_factor = stop_factor
        self._beta = beta
        self._batches_per_update = batches_per_update
        self._best_lr: float | None = None
        self.problem = ""
        """Why `find` found no rate, and what to do; empty when it found one."""
        self.rates: list[float] = []
        """Learning rate after each update of the scan."""
        self.losses: list[float] = []
        """Smoothed loss of each update of the scan."""

    @property
    def best_lr(self) -> float | None:
        """The rate that was found; None before `find`, or when none was found."""
        return self._best_lr

    def find(self) -> None:
        """Scan, choose, and note the rate and its curve in the model's state."""
        network = self._trainer.model.model
        weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        generators = random_state.capture()
        try:
            self._scan()
        finally:
            network.load_state_dict(weights)
            random_state.restore(generators)
        if not self.losses:
            self.problem = (
                "the loss was no number from the start: check the faces and the loss functions, or set learning_rate "
                "yourself"
            )
            return
        lowest = self.rates[self.losses.index(min(self.losses))]
        best = lowest / self._strength.value
        if best < LOWEST_RATE:
            self.problem = (
                f"the loss was lowest at {lowest:.3g} and only rose from there, and {best:.3g} is below the smallest "
                f"learning rate, {LOWEST_RATE:.3g}: raise lr_finder_iterations, or set learning_rate yourself"
            )
            return
        self._best_lr = best
        state = self._trainer.model.state
        state.add_lr_finder(best)
        state.extra["lr_curve"] = {"rates": self.rates, "losses": self.losses}
        logger.info("learning rate found: %.3g", best)
        folder = self._trainer.model.io.model_dir
        if self._draws and folder and self._trainer.model.io.is_writer:
            marks = {strength.name.lower(): lowest / strength.value for strength in LRStrength}
            path = Path(folder) / time.strftime("learning_rate_finder_%Y-%m-%d_%H.%M.%S.png")
            draw_graph(path, self.rates, self.losses, marks)
            logger.info("curve of the learning rates: %s", path)

    def _scan(self) -> None:
        average, best = 0.0, math.inf
        with Progress("Finding the learning rate", self._steps, "updates", quiet=self._trainer.quiet) as progress:
            for step in range(1, self._steps + 1):
                loss = self._update_loss()
                if not math.isfinite(loss):
                    break
                average = self._beta * average + (1.0 - self._beta) * loss
                smooth = average / (1.0 - self._beta**step)
                self.rates.append(float(self._scheduler.get_last_lr()[0]))
                self.losses.append(smooth)
                progress.advance(note=f"rate {self.rates[-1]:.2e} loss {smooth:.5f}")
                if step > 1 and smooth > self._stop_factor * best:
                    break
                best = min(best, smooth)

    def _update_loss(self) -> float:
        """Train the batches of one update; their mean total loss."""
        batches = (self._trainer.train_one_batch() for _ in range(self._batches_per_update))
        return sum(float(side.total) for batch in batches for side in batch) / self._batches_per_update
