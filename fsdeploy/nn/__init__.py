"""Blocks, initialisers and normalisations that architectures are built from."""

from fsdeploy.nn.blocks import (
    Conv2DBlock,
    Conv2DOutput,
    ResidualBlock,
    SeparableConv2DBlock,
    Upscale2xBlock,
    UpscaleBlock,
)
from fsdeploy.nn.conv import Dense, SameConv2d
from fsdeploy.nn.normalization import InstanceNormalization

__all__ = [
    "Conv2DBlock",
    "Conv2DOutput",
    "Dense",
    "InstanceNormalization",
    "ResidualBlock",
    "SameConv2d",
    "SeparableConv2DBlock",
    "Upscale2xBlock",
    "UpscaleBlock",
]
