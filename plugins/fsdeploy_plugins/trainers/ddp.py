"""One process per GPU, on one machine or many: `torch.nn.parallel.DistributedDataParallel`.

Started by `fsdeploy train --nproc N`, or by torchrun on every machine:

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        -m fsdeploy train -A faces_a -B faces_b -m my_model
"""

from __future__ import annotations

import dataclasses
import secrets
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

from fsdeploy.errors import InputError
from fsdeploy.training.loss import BatchLoss
from fsdeploy.training.trainer_base import TrainConfig, TrainerBase, side_losses

if TYPE_CHECKING:
    from fsdeploy.model.base import ModelBase
    from fsdeploy.training.data.collate import BatchMeta
    from fsdeploy.training.optimizer import Optimizer


class Trainer(TrainerBase):
    """Trains one process's share of every batch; gradients are averaged over all processes.

    The batch size counts all processes together, so that a run does not depend on their number.

    Raises:
        InputError: the batch size is no multiple of the number of processes.
    """

    acts_alone = False

    def __init__(self, model: ModelBase, config: TrainConfig) -> None:
        self._processes = distributed.get_world_size()
        if config.batch_size % self._processes:
            raise InputError(
                f"a batch of {config.batch_size} faces cannot be shared by {self._processes} processes: "
                f"use --batch-size {max(config.batch_size // self._processes, 1) * self._processes}"
            )
        super().__init__(model, dataclasses.replace(config, batch_size=config.batch_size // self._processes))
        self.batch_size = config.batch_size
        # Requests to stop travel between the CPUs, so that no GPU has to be waited for.
        self._control = distributed.new_group(backend="gloo")

    def get_sampler(self) -> type[DistributedSampler[object]]:
        """Every process draws its own part of each batch."""
        return DistributedSampler

    def fresh_seed(self) -> int:
        """One seed for all processes, drawn by the first."""
        seed = torch.tensor([secrets.randbits(31)])
        distributed.broadcast(seed, 0, group=self._control)
        return int(seed)

    def agree(self, wish: bool) -> bool:
        """True on all processes as soon as one wishes it."""
        wishes = torch.tensor([int(wish)])
        distributed.all_reduce(wishes, distributed.ReduceOp.MAX, group=self._control)
        return bool(wishes)

    def prepare(self) -> None:
        super().prepare()
        device = next(self.model.model.parameters()).device
        self._parallel = DistributedDataParallel(
            self.model.model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
        )
        self.network = self._parallel

    def use_eager(self) -> None:
        super().use_eager()
        self.network = self._parallel

    def train_batch(
        self, inputs: list[Tensor], targets: list[Tensor], optimizer: Optimizer, meta: BatchMeta
    ) -> list[BatchLoss]:
        """Forward, loss, backward, update: see the base class for the shapes. The losses are those of all processes."""
        # Gradients of batches that are only accumulated stay local: one exchange per update.
        with nullcontext() if optimizer.completes_update else self._parallel.no_sync():
            with self.model.settings.autocast(inputs[0].device):
                losses = side_losses(self.network, self.loss_func, inputs, targets, meta)
            optimizer.backward(torch.stack([loss.total for loss in losses]).sum())
        averaged = self._averaged(losses)
        # What is not finite in one process ends the updates of all: their weights must stay the same.
        optimizer.note_loss(torch.stack([loss.total for loss in averaged]).sum())
        optimizer.step()
        return averaged

    def _averaged(self, losses: list[BatchLoss]) -> list[BatchLoss]:
        """The same losses averaged over the items of all processes: every value (1,)."""
        parts = [loss.detach() for loss in losses]
        flat = torch.stack([value.mean() for part in parts for value in _values(part)])
        distributed.all_reduce(flat)
        means = iter((flat / self._processes).unsqueeze(1))
        return [
            BatchLoss(
                [{name: next(means) for name in output} for output in part.unweighted],
                [{name: next(means) for name in output} for output in part.weighted],
                None if part.mask is None else next(means),
            )
            for part in parts
        ]


def _values(loss: BatchLoss) -> list[Tensor]:
    outputs = [*loss.unweighted, *loss.weighted]
    return [value for output in outputs for value in output.values()] + ([] if loss.mask is None else [loss.mask])
