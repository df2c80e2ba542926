"""Raising the learning rate step by step at the start of a run."""

from __future__ import annotations

import logging

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

logger = logging.getLogger(__name__)


class WarmupScheduler(LRScheduler):
    """Multiplies the base learning rate by `(k + 1) / steps` at update k (from 0), and by 1 from update `steps - 1` on.

    So no update is lost at rate 0. `base_lrs` may be changed while the warm-up runs.

    Args:
        optimizer: Whose groups' learning rates are set.
        steps: Updates until the full rate.
        last_epoch: Updates done so far, less one (torch's name); -1 starts anew.
    """

    def __init__(self, optimizer: Optimizer, steps: int, last_epoch: int = -1) -> None:
        self.steps = steps
        """Total number of updates of the warm-up."""
        if last_epoch >= 0:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        super().__init__(optimizer, last_epoch)

    @property
    def factor(self) -> float:
        """What the base learning rate is multiplied with for the next update."""
        return min((self.last_epoch + 1) / self.steps, 1.0) if self.steps > 0 else 1.0

    def get_lr(self) -> list[float | Tensor]:
        """Learning rate of each parameter group for the next update."""
        return [base * self.factor for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next update's rate; nothing once the warm-up is over. `epoch` is unused."""
        if self.last_epoch >= self.steps:
            return
        super().step()
        done = self.last_epoch
        if done == 1 or done in {self.steps * tenth // 10 for tenth in range(1, 11)}:
            logger.info("warm-up %d/%d: learning rate %.3g", done, self.steps, self.get_lr()[0])

    def resume(self, done: int) -> None:
        """Go on after `done` updates."""
        self.last_epoch = done
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
