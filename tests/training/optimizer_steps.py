"""A small network, steps of an optimizer on it, and the optimizer's state through a file."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from fsdeploy.training.optimizer import Optimizer


def small_network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)).to(
        memory_format=torch.channels_last
    )


def train(network: nn.Module, optimizer: Optimizer, batches: range) -> None:
    for index in batches:
        x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(index))
        optimizer.backward(network(x).square().mean() * (1 + index % 3))
        optimizer.step()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    tensors = {name: tensor.contiguous() for name, tensor in state["tensors"].items()}
    return {"tensors": load(save(tensors)), "metadata": json.loads(json.dumps(state["metadata"]))}
