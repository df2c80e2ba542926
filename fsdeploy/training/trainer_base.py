"""The base of every trainer plugin. A trainer says how one batch goes through the model: on one device, or on many."""

from __future__ import annotations

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from fsdeploy.training.config import TrainConfig
from fsdeploy.training.loss import BatchLoss, LossCollator

if TYPE_CHECKING:
    from fsdeploy.model.base import ModelBase
    from fsdeploy.training.data.collate import BatchMeta
    from fsdeploy.training.optimizer import Optimizer

__all__ = ["TrainConfig", "TrainerBase", "side_losses"]

logger = logging.getLogger(__name__)


class TrainerBase(ABC):
    """How a batch is trained.

    Args:
        model: The model, built.
        config: Folders, batch size and variations of this run.
    """

    acts_alone = True
    """Whether this process may leave the loop by itself. False where others would wait for it for ever."""
    loss_func: LossCollator
    """The model's loss functions, after `register_loss`."""

    def __init__(self, model: ModelBase, config: TrainConfig) -> None:
        self.model = model
        """The model that is trained."""
        self.config = config
        """Settings of this run."""
        self.batch_size = config.batch_size
        """Faces per side and iteration."""
        self.network: Callable[..., Any] = model.model
        """What a training pass calls: the model's network, or a wrapper of it."""
        self.sampler = self.get_sampler()
        """Kind of sampler that the loader uses."""

    @abstractmethod
    def get_sampler(self) -> type[Sampler[Any]]:
        """The kind of sampler to draw faces with: `RandomSampler`, or `DistributedSampler` for several processes."""

    @abstractmethod
    def train_batch(
        self, inputs: list[Tensor], targets: list[Tensor], optimizer: Optimizer, meta: BatchMeta
    ) -> list[BatchLoss]:
        """Run one forward and backward pass, and the optimizer's step.

        Args:
            inputs: Per side (N, 3, S, S) float32 0..1.
            targets: Per output (N, sides, 3, O, O), then the mask (N, sides, 1, O, O) if one is learned.
            optimizer: Takes the gradients.
            meta: Masks of the batch.

        Returns:
            The loss of each side (A, B).
        """

    def register_loss(self, loss: LossCollator) -> None:
        """Take the loss functions and put them on the model's device. They are no part of what is saved."""
        self.loss_func = loss.to(next(self.model.model.parameters()).device)

    def fresh_seed(self) -> int:
        """A seed for a new model. Override where several processes need a common one."""
        return secrets.randbits(31)

    def agree(self, wish: bool) -> bool:
        """Whether to do what this process wishes, such as to stop. Override where several must act alike."""
        return wish

    def prepare(self) -> None:
        """Called once when model and losses are on their device, before the first batch."""
        set_training_mode(self.model.model)

    def compile(self) -> None:
        """Have torch.compile fuse the network's and the losses' operations."""
        self.network = torch.compile(self.network, dynamic=False)
        for function in self.loss_func.functions.values():
            function.compile(dynamic=False)

    def use_eager(self) -> None:
        """Undo `compile`."""
        self.network = self.model.model
        for function in self.loss_func.functions.values():
            function._compiled_call_impl = None


def side_losses(
    network: Callable[[list[Tensor]], list[list[Tensor]]],
    loss_func: LossCollator,
    inputs: list[Tensor],
    targets: list[Tensor],
    meta: BatchMeta,
) -> list[BatchLoss]:
    """Run the network on both sides and compare with the targets: one loss per side.

    Sides whose outputs have the same sizes are compared in one pass of the loss functions.
    """
    outputs = network(inputs)
    sides = len(outputs)
    predictions = [torch.stack(sized, dim=1).flatten(0, 1) for sized in zip(*outputs, strict=True)]
    joint = loss_func([target.flatten(0, 1) for target in targets], predictions, _flatten(meta))
    split: list[BatchLoss] = joint.split(sides)
    return split


def _flatten(meta: BatchMeta) -> BatchMeta:
    def rows(masks: list[Tensor] | None) -> list[Tensor] | None:
        return None if masks is None else [mask.flatten(0, 1) for mask in masks]

    return type(meta)(rows(meta.mask_face), rows(meta.mask_eye), rows(meta.mask_mouth))


def set_training_mode(network: nn.Module) -> None:
    """Training mode for everything but frozen parts, whose batch norm keeps its stored statistics."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
