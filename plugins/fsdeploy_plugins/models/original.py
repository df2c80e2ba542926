"""The original model: one shared encoder, one decoder per side. Copy this file to write a model of your own.

A model plugin is one file with four things:

1. Its options: what a user may choose, with default, help and range. They are stored with the model.
2. The network parts as ordinary torch modules, built from the blocks of `fsdeploy.nn`.
3. `Model`: says how large the input is and puts the parts together.
4. Its registration: an entry point in pyproject.toml, under the name of this file:

       [project.entry-points."fsdeploy.models"]
       original = "fsdeploy_plugins.models.original:Model"

Tensors are (N, C, H, W) float32; faces are 0..1. Shapes in comments are those of the default options.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from fsdeploy.config.option import option
from fsdeploy.model.base import ModelBase
from fsdeploy.model.network import SharedEncoderNetwork, SwapNetwork
from fsdeploy.nn import Conv2DBlock, Conv2DOutput, Dense, UpscaleBlock


@dataclass(frozen=True)
class OriginalOptions:
    """`fixed=True`: the option shapes the network, so it cannot change once a model exists."""

    lowmem: bool = option(False, "A smaller encoder for little GPU memory; the swap is a bit less sharp.", fixed=True)


class Encoder(nn.Module):
    """A face becomes a code, whoever it belongs to: (N, 3, 64, 64) -> (N, 512, 8, 8)."""

    def __init__(self, size: int, filters: tuple[int, ...], dense: int) -> None:
        super().__init__()
        edge = size // 2 ** len(filters)
        self.down = nn.Sequential(*(Conv2DBlock(narrow, wide) for narrow, wide in pairwise((3, *filters))))
        self.dense_1 = Dense(filters[-1] * edge**2, dense)
        self.dense_2 = Dense(dense, 1024 * 4 * 4)
        self.up = UpscaleBlock(1024, 512)

    def forward(self, face: Tensor) -> Tensor:
        x = self.down(face)  # (N, 1024, 4, 4)
        x = self.dense_2(self.dense_1(x.flatten(1)))  # (N, 16384): a linear bottleneck, nothing between the two
        code: Tensor = self.up(x.reshape(-1, 1024, 4, 4))  # (N, 512, 8, 8)
        return code


class Decoder(nn.Module):
    """A code becomes the face of one side: (N, 512, 8, 8) -> [(N, 3, 64, 64), mask (N, 1, 64, 64) if learned]."""

    def __init__(self, filters: tuple[int, ...], learn_mask: bool) -> None:
        super().__init__()
        self.up = nn.Sequential(*(UpscaleBlock(wide, narrow) for wide, narrow in pairwise(filters)))
        self.face_out = Conv2DOutput(filters[-1], 3)
        self.learn_mask = learn_mask
        if learn_mask:
            self.mask_up = nn.Sequential(*(UpscaleBlock(wide, narrow) for wide, narrow in pairwise(filters)))
            self.mask_out = Conv2DOutput(filters[-1], 1)

    def forward(self, code: Tensor) -> list[Tensor]:
        outputs = [self.face_out(self.up(code))]  # (N, 3, 64, 64)
        if self.learn_mask:
            outputs.append(self.mask_out(self.mask_up(code)))  # (N, 1, 64, 64)
        return outputs


class Model(ModelBase):
    """The original face-swap model, and the template of a plugin."""

    Options = OriginalOptions
    options: OriginalOptions

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # reads the options of an existing model
        self.input_shape = (3, 64, 64)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        """The whole network: the encoder is one module that both sides use."""
        return SharedEncoderNetwork(self.encoder(), self.decoder("a"), self.decoder("b"))

    def encoder(self) -> nn.Module:
        """The part that both sides share."""
        if self.options.lowmem:
            return Encoder(self.input_shape[1], (128, 256, 512), dense=512)
        return Encoder(self.input_shape[1], (128, 256, 512, 1024), dense=1024)

    def decoder(self, side: str) -> nn.Module:
        """The part of one side, "a" or "b"; here both are alike."""
        return Decoder((512, 256, 128, 64), self.training.mask.learn_mask)
