"""A model of one to two million parameters, for quick trials, small devices and the demo.

The original's form at a fraction of its width: about 80 times fewer parameters, trained to a recognisable swap in a
minute or two on two CPU cores, and an ONNX file of a few megabytes. `width` trades sharpness for speed: parameters and
time grow with about its square (16: 0.5 M, 24: 1.0 M, 32: 1.8 M, 64: 7.3 M parameters, both sides together).

Tensors are (N, C, H, W) float32; faces are 0..1. Shapes in comments are those of the default width.
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
class CompactOptions:
    """The network's size."""

    width: int = option(
        24, "Channels of the first layer; more is sharper and slower.", minimum=8, maximum=64, step=8, fixed=True
    )


class Encoder(nn.Module):
    """A face becomes a code, whoever it belongs to: (N, 3, 64, 64) -> (N, 72, 8, 8)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep = 4 * width
        self.down = nn.Sequential(
            Conv2DBlock(3, width),
            Conv2DBlock(width, 2 * width, kernel_size=3),
            Conv2DBlock(2 * width, self.deep, kernel_size=3),
            Conv2DBlock(self.deep, self.deep, kernel_size=3),
        )
        self.dense_1 = Dense(self.deep * 4 * 4, self.deep)
        self.dense_2 = Dense(self.deep, self.deep * 4 * 4)
        self.up = UpscaleBlock(self.deep, 3 * width)

    def forward(self, face: Tensor) -> Tensor:
        x = self.down(face)  # (N, 96, 4, 4)
        x = self.dense_2(self.dense_1(x.flatten(1)))  # (N, 1536): a linear bottleneck of 96 numbers
        code: Tensor = self.up(x.reshape(-1, self.deep, 4, 4))  # (N, 72, 8, 8)
        return code


class Decoder(nn.Module):
    """A code becomes the face of one side: (N, 72, 8, 8) -> [(N, 3, 64, 64), mask (N, 1, 64, 64) if learned]."""

    def __init__(self, width: int, learn_mask: bool) -> None:
        super().__init__()
        widths = (3 * width, 2 * width, width, width // 2)
        self.up = nn.Sequential(*(UpscaleBlock(wide, narrow) for wide, narrow in pairwise(widths)))
        self.face_out = Conv2DOutput(widths[-1], 3)
        self.learn_mask = learn_mask
        if learn_mask:
            # A mask has no texture: it shares the face's features and needs a convolution of its own only.
            self.mask_out = Conv2DOutput(widths[-1], 1)

    def forward(self, code: Tensor) -> list[Tensor]:
        x = self.up(code)  # (N, 12, 64, 64)
        outputs = [self.face_out(x)]  # (N, 3, 64, 64)
        if self.learn_mask:
            outputs.append(self.mask_out(x))  # (N, 1, 64, 64)
        return outputs


class Model(ModelBase):
    """The compact model."""

    Options = CompactOptions
    options: CompactOptions

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 64, 64)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        """The whole network: the encoder is one module that both sides use."""
        return SharedEncoderNetwork(self.encoder(), self.decoder("a"), self.decoder("b"))

    def encoder(self) -> nn.Module:
        """The part that both sides share."""
        return Encoder(self.options.width)

    def decoder(self, side: str) -> nn.Module:
        """The part of one side, "a" or "b"; here both are alike."""
        return Decoder(self.options.width, self.training.mask.learn_mask)
