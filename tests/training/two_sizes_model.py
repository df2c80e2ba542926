"""A swap model of a few thousand weights with two output sizes, a learned mask if asked for, dropout and batch norm."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fsdeploy.model.base import ModelBase
from fsdeploy.model.network import SharedEncoderNetwork, SwapNetwork
from fsdeploy.model.registry import register
from fsdeploy.nn import Conv2DBlock, Conv2DOutput, UpscaleBlock


class Decoder(nn.Module):
    def __init__(self, learn_mask: bool) -> None:
        super().__init__()
        self.up_1 = UpscaleBlock(6, 6)
        self.up_2 = UpscaleBlock(6, 4)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.1)
        self.small_out = Conv2DOutput(6, 3)
        self.face_out = Conv2DOutput(4, 3)
        self.mask_out = Conv2DOutput(4, 1) if learn_mask else None

    def forward(self, code: Tensor) -> list[Tensor]:
        x = self.dropout(self.norm(self.up_1(code)))  # (N, 6, 32, 32)
        y = self.up_2(x)  # (N, 4, 64, 64)
        outputs = [self.small_out(x), self.face_out(y)]
        return outputs if self.mask_out is None else [*outputs, self.mask_out(y)]


@register
class TwoSizesModel(ModelBase):
    name = "two_sizes"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 32, 32)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        mask = self.training.mask.learn_mask
        return SharedEncoderNetwork(Conv2DBlock(3, 6), Decoder(mask), Decoder(mask))
