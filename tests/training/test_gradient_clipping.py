"""Gradient clipping against values computed by hand and by numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fsdeploy.training.gradient_clip import GradClip


def with_gradients(*values: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(row))) for row in values]
    for parameter, row in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(row)
    return parameters


def test_the_global_norm_bounds_all_gradients_together() -> None:
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0])
    GradClip("global_norm", 1.0)(parameters)
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.0], abs=1e-5)
    assert parameters[1].grad.tolist() == pytest.approx([0.0, 0.8], abs=1e-5)


def test_the_norm_bounds_each_tensor() -> None:
    parameters = with_gradients([3.0, 4.0], [0.3, 0.4])
    GradClip("norm", 1.0)(parameters)
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.8])
    assert parameters[1].grad.tolist() == pytest.approx([0.3, 0.4])


def test_the_value_bounds_each_element() -> None:
    parameters = with_gradients([3.0, -4.0, 0.5])
    GradClip("value", 1.0)(parameters)
    assert parameters[0].grad.tolist() == [1.0, -1.0, 0.5]


@pytest.mark.parametrize(("value", "history"), [(1.0, 10000), (5.0, 7), (10.0, 0), (2.5, 0)])
def test_autoclip_bounds_by_a_percentile_of_the_norms_so_far(value: float, history: int) -> None:
    random = np.random.default_rng(4)
    clip, seen = GradClip("autoclip", value, history), []
    for step in range(40):
        row = random.normal(size=5).astype(np.float32) * (1 + step % 4)
        parameters = with_gradients(row.tolist())
        if step == 11:
            parameters[0].grad[2] = torch.inf
            clip(parameters)  # neither clipped nor remembered
            continue
        norm = float(np.linalg.norm(row))
        seen = [*seen, norm][-history:] if history else [*seen, norm]
        bound = float(np.percentile(seen, int(value * 10)))
        clip(parameters)
        assert parameters[0].grad.norm().item() == pytest.approx(min(norm, bound), rel=1e-4)
