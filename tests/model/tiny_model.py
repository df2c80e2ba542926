"""A swap model of a few hundred weights, for tests of everything around a network, and how they train it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsdeploy.config.option import option
from fsdeploy.config.training import OptimizerOptions, TrainingOptions
from fsdeploy.model.base import ModelBase
from fsdeploy.model.folder import load_model
from fsdeploy.model.network import SharedEncoderNetwork, SwapNetwork
from fsdeploy.model.registry import register
from fsdeploy.nn import Conv2DBlock, Conv2DOutput, UpscaleBlock


@dataclass(frozen=True)
class TinyOptions:
    width: int = option(4, "Channels of the code.", minimum=1, maximum=64, fixed=True)
    pace: float = option(1.0, "Something that may change.", minimum=0.0, maximum=2.0)


class Decoder(nn.Module):
    def __init__(self, width: int, learn_mask: bool) -> None:
        super().__init__()
        self.up = UpscaleBlock(width, 2)
        self.face_out = Conv2DOutput(2, 3)
        self.mask_out = Conv2DOutput(2, 1) if learn_mask else None

    def forward(self, code: Tensor) -> list[Tensor]:
        x = self.up(code)
        return [self.face_out(x)] + ([] if self.mask_out is None else [self.mask_out(x)])


@register
class TinyModel(ModelBase):
    name = "tiny"
    Options = TinyOptions

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 8, 8)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        width, mask = self.options.width, self.training.mask.learn_mask
        return SharedEncoderNetwork(Conv2DBlock(3, width), Decoder(width, mask), Decoder(width, mask))


class CountingOptimizer:
    """An optimizer whose saved state is one tensor that holds a number."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def state_tensors(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return {"encoder.conv.weight/exp_avg": torch.full((16,), self.value)}, {"value": self.value}


ALWAYS = TrainingOptions(optimizer=OptimizerOptions(save_optimizer="always"))


def train(
    model: TinyModel, loss: float = 0.5, optimizer: CountingOptimizer | None = None, exit: bool = True, losses: int = 50
) -> None:
    """One iteration that fills every weight with the iteration's number, then a save, with that many losses before."""
    model.state.increment_iterations()
    with torch.no_grad():
        for tensor in model.model.parameters():
            tensor.fill_(float(model.iterations))
    for _ in range(losses):
        model.add_history([loss / 2, loss / 2])
    model.io.save(optimizer, is_exit=exit)
    model.io.wait()


def value_of(folder: Path) -> tuple[float, int]:
    """(the one value of all weights, iterations) of a loaded folder."""
    model = load_model(folder)
    (value,) = {float(v) for tensor in model.model.parameters() for v in tensor.unique()}
    return value, model.iterations
