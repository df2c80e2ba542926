"""Options that change every block of a built network, so that no plugin has to pass them down."""

from __future__ import annotations

from torch import nn

from fsdeploy.nn.blocks import UpscaleBlock
from fsdeploy.nn.conv import SameConv2d
from fsdeploy.nn.initializers import convolution_aware_, icnr_


def reflect_padding(network: nn.Module) -> None:
    """Make the convolutions of the blocks pad by reflection. Outputs and plain convolutions keep zeros."""
    for module in network.modules():
        if isinstance(module, SameConv2d) and module.reflectable:
            module.reflect = True


def restart_weights(network: nn.Module, *, icnr: bool, conv_aware: bool) -> None:
    """Draw the convolutions of a new network again: convolution-aware all of them, ICNR those before a shuffle."""
    if conv_aware:
        for module in network.modules():
            if isinstance(module, SameConv2d) and module.groups == 1:
                convolution_aware_(module.weight)
    if icnr:
        for module in network.modules():
            if isinstance(module, UpscaleBlock):
                start = convolution_aware_ if conv_aware else module.conv.initializer
                icnr_(module.conv.weight.data, start, module.scale)
