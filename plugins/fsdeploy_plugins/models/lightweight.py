"""A model for small GPUs: half of the original's encoder, wider decoders."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from fsdeploy.model.base import ModelBase
from fsdeploy.model.network import SharedEncoderNetwork, SwapNetwork
from fsdeploy.nn import Conv2DBlock, Conv2DOutput, Dense, UpscaleBlock


class Encoder(nn.Module):
    """A face becomes a code: (N, 3, 64, 64) -> (N, 256, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(Conv2DBlock(3, 128), Conv2DBlock(128, 256), Conv2DBlock(256, 512))
        self.dense_1 = Dense(512 * 8 * 8, 512)
        self.dense_2 = Dense(512, 512 * 4 * 4)
        self.up = UpscaleBlock(512, 256)

    def forward(self, face: Tensor) -> Tensor:
        x = self.down(face)  # (N, 512, 8, 8)
        x = self.dense_2(self.dense_1(x.flatten(1)))  # (N, 8192)
        code: Tensor = self.up(x.reshape(-1, 512, 4, 4))  # (N, 256, 8, 8)
        return code


class Decoder(nn.Module):
    """A code becomes the face of one side: (N, 256, 8, 8) -> [(N, 3, 64, 64), mask (N, 1, 64, 64) if learned]."""

    def __init__(self, learn_mask: bool) -> None:
        super().__init__()
        widths = (256, 512, 256, 128)
        self.up = nn.Sequential(*(UpscaleBlock(narrow, wide) for narrow, wide in pairwise(widths)))
        self.face_out = Conv2DOutput(widths[-1], 3)
        self.learn_mask = learn_mask
        if learn_mask:
            self.mask_up = nn.Sequential(*(UpscaleBlock(narrow, wide) for narrow, wide in pairwise(widths)))
            self.mask_out = Conv2DOutput(widths[-1], 1)

    def forward(self, code: Tensor) -> list[Tensor]:
        outputs = [self.face_out(self.up(code))]  # (N, 3, 64, 64)
        if self.learn_mask:
            outputs.append(self.mask_out(self.mask_up(code)))  # (N, 1, 64, 64)
        return outputs


class Model(ModelBase):
    """The lightweight model. It has no options of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 64, 64)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        """The whole network: the encoder is one module that both sides use."""
        return SharedEncoderNetwork(self.encoder(), self.decoder("a"), self.decoder("b"))

    def encoder(self) -> nn.Module:
        """The part that both sides share."""
        return Encoder()

    def decoder(self, side: str) -> nn.Module:
        """The part of one side, "a" or "b"; here both are alike."""
        return Decoder(self.training.mask.learn_mask)
