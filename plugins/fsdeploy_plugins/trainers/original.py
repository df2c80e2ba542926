"""The trainer for one device. Copy this file to write a trainer of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from fsdeploy.training.loss import BatchLoss
from fsdeploy.training.trainer_base import TrainerBase, side_losses

if TYPE_CHECKING:
    from fsdeploy.training.data.collate import BatchMeta
    from fsdeploy.training.optimizer import Optimizer


class Trainer(TrainerBase):
    """Trains both sides in one pass on one device."""

    def get_sampler(self) -> type[RandomSampler]:
        """Faces in random order."""
        return RandomSampler

    def train_batch(
        self, inputs: list[Tensor], targets: list[Tensor], optimizer: Optimizer, meta: BatchMeta
    ) -> list[BatchLoss]:
        """Forward, loss, backward, update: see the base class for the shapes."""
        with self.model.settings.autocast(inputs[0].device):
            losses = side_losses(self.network, self.loss_func, inputs, targets, meta)
        optimizer.backward(torch.stack([loss.total for loss in losses]).sum())
        optimizer.step()
        return losses
