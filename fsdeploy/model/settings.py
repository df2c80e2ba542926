"""Precision of a run. Weights are float32 always; half precision is a matter of how a pass computes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fsdeploy.config.training import TrainingOptions
from fsdeploy.model.network import SwapNetwork
from fsdeploy.model.state import State

logger = logging.getLogger(__name__)

Shapes = list[tuple[int, ...]]


class Settings:
    """Precision settings of one run.

    Args:
        arguments: The options of the run; None for the defaults.
        mixed_precision: Compute in half precision where it is safe; None asks `arguments`.
        is_predict: True for inference, which always runs in float32.
    """

    def __init__(
        self, arguments: TrainingOptions | None = None, mixed_precision: bool | None = None, is_predict: bool = False
    ) -> None:
        if mixed_precision is None:
            mixed_precision = (arguments or TrainingOptions()).network.mixed_precision
        self._mixed_precision = mixed_precision and not is_predict
        if not is_predict and torch.cuda.is_available():
            # TF32 where the GPU has it: 10 bits of mantissa are plenty for training, and several times the speed.
            torch.set_float32_matmul_precision("high")

    @property
    def use_mixed_precision(self) -> bool:
        """True when training computes in half precision."""
        return self._mixed_precision

    @staticmethod
    def half_precision(device: torch.device) -> torch.dtype:
        """bfloat16 where the device computes it, which needs no loss scaling, else float16."""
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.float16
        return torch.float16 if device.type == "mps" else torch.bfloat16

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context that a forward pass runs in."""
        if not self._mixed_precision:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.half_precision(device))

    def get_mixed_precision_layers(
        self, build_func: Callable[[Shapes], SwapNetwork], inputs: Shapes
    ) -> tuple[SwapNetwork, list[str]]:
        """Build a network and list the layers that compute in half precision under autocast.

        Returns:
            The network, weights in float32, and the module names of its convolutions and dense layers.
        """
        network = build_func(inputs)
        return network, half_precision_layers(network)

    def check_model_precision(self, model: SwapNetwork, state: State) -> SwapNetwork:
        """Note a switch of precision on an existing model in its state.

        Nothing has to be rebuilt, since weights are float32 in either mode: the same network is returned.
        """
        if state.model_needs_rebuild:
            logger.info("training goes on in %s precision", "mixed" if self._mixed_precision else "full")
        state.add_mixed_precision_layers(half_precision_layers(model))
        state.model_needs_rebuild = False
        return model

    @classmethod
    def loss_scale_optimizer(cls, optimizer: torch.optim.Optimizer) -> LossScaleOptimizer:
        """Wrap an optimizer so that float16 gradients do not vanish: see `LossScaleOptimizer`."""
        return LossScaleOptimizer(optimizer)


def half_precision_layers(network: nn.Module) -> list[str]:
    """Module names of the convolutions and dense layers, in the order they were built."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


class LossScaleOptimizer:
    """An optimizer with dynamic loss scaling (Micikevicius et al. 2018, arXiv:1710.03740) by torch's GradScaler.

    Example:
        >>> optimizer = Settings.loss_scale_optimizer(torch.optim.Adam(model.parameters()))
        >>> optimizer.zero_grad()
        >>> optimizer.backward(loss)
        >>> optimizer.step()  # skipped, and the scale halved, when a gradient is not finite
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        device = optimizer.param_groups[0]["params"][0].device
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(device.type)

    def backward(self, loss: Tensor) -> None:
        """Back-propagate the scaled loss."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Update the weights with unscaled gradients, unless one is not finite; adapt the scale."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """{"optimizer": ..., "scaler": ...}."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the values of `state_dict`; the empty scaler of a run without one is skipped."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
