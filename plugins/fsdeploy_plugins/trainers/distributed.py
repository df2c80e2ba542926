"""One process, all GPUs of the machine: `torch.nn.DataParallel`. `ddp` is faster; this needs no launcher."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from fsdeploy.training.data.collate import BatchMeta
from fsdeploy.training.loss import BatchLoss, LossCollator
from fsdeploy.training.trainer_base import TrainConfig, TrainerBase, side_losses

if TYPE_CHECKING:
    from fsdeploy.model.base import ModelBase
    from fsdeploy.training.optimizer import Optimizer

logger = logging.getLogger(__name__)


class WrappedModel(nn.Module):
    """Network and losses as one module, so that every GPU computes its own losses and only those are gathered.

    Args:
        model: The network; takes a list of one tensor per side.
        loss_func: The loss functions.
        autocast: Makes the context of a forward pass. A thread per GPU runs it, and contexts are per thread.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_func: LossCollator,
        autocast: Callable[[torch.device], AbstractContextManager[Any]] = lambda device: nullcontext(),
    ) -> None:
        super().__init__()
        self.model = model
        self.loss_func = loss_func
        self._autocast = autocast

    def forward(
        self, inputs: list[Tensor], targets: list[Tensor], meta_dict: dict[str, list[Tensor]]
    ) -> list[dict[str, Any]]:
        """The losses of one GPU's share of the batch.

        Args:
            inputs: Per side (N, 3, S, S) float32 0..1.
            targets: Per output (N, sides, C, O, O).
            meta_dict: The fields of `BatchMeta` that are not None.

        Returns:
            Per side the fields of `BatchLoss` that are not None, every value (N,): gathering joins the GPUs' items.
        """
        with self._autocast(inputs[0].device):
            losses = side_losses(self.model, self.loss_func, inputs, targets, BatchMeta(**meta_dict))
        return [
            {
                "unweighted": loss.unweighted,
                "weighted": loss.weighted,
                **({} if loss.mask is None else {"mask": loss.mask}),
            }
            for loss in losses
        ]


class Trainer(TrainerBase):
    """Splits each batch over all GPUs. With fewer than two it trains as the trainer `original` does, with a warning."""

    def __init__(self, model: ModelBase, config: TrainConfig) -> None:
        gpus = torch.cuda.device_count()
        if gpus < 2:
            logger.warning("distributed training needs two GPUs or more, %d found: one device is used", gpus)
        elif config.batch_size < gpus:
            logger.warning("batch size %d is raised to %d: one face per GPU", config.batch_size, gpus)
            config = dataclasses.replace(config, batch_size=gpus)
        elif config.batch_size % gpus:
            logger.warning("batch size %d is no multiple of %d GPUs: some will wait", config.batch_size, gpus)
        super().__init__(model, config)

    def get_sampler(self) -> type[RandomSampler]:
        """Faces in random order."""
        return RandomSampler

    def prepare(self) -> None:
        super().prepare()
        wrapped = WrappedModel(self.model.model, self.loss_func, self.model.settings.autocast)
        self.network = nn.DataParallel(wrapped) if torch.cuda.device_count() > 1 else wrapped

    def use_eager(self) -> None:
        super().use_eager()
        self.prepare()

    def train_batch(
        self, inputs: list[Tensor], targets: list[Tensor], optimizer: Optimizer, meta: BatchMeta
    ) -> list[BatchLoss]:
        """Forward and losses on all GPUs, backward, update: see the base class for the shapes."""
        fields = ((field.name, getattr(meta, field.name)) for field in dataclasses.fields(meta))
        gathered = self.network(inputs, targets, {name: masks for name, masks in fields if masks is not None})
        losses = [BatchLoss(**side) for side in gathered]
        optimizer.backward(torch.stack([loss.total for loss in losses]).sum())
        optimizer.step()
        return losses
