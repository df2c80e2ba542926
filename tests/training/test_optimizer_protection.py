"""Losses and gradients that are not finite, with and without the loss scaling of float16."""

from __future__ import annotations

import copy

import pytest
import torch
from optimizer_steps import small_network, through_a_file, train

from fsdeploy.config.training import OPTIMIZER_NAMES, OptimizerOptions
from fsdeploy.training.optimizer import Optimizer


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_a_loss_that_is_not_finite_never_reaches_the_weights(name: str) -> None:
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions(optimizer=name))
    train(network, optimizer, range(2))
    before = copy.deepcopy(network.state_dict())
    optimizer.backward(network(torch.full((1, 3, 6, 6), torch.nan)).mean())
    optimizer.step()
    train(network, optimizer, range(2))
    assert bool(optimizer.spoilt)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_fused_kernel_skips_the_update_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Optimizer, "_skips_on_device", True)
    network, unbroken = small_network(), small_network()
    optimizer = Optimizer(network, OptimizerOptions(optimizer=name))
    train(network, optimizer, range(2))
    train(unbroken, Optimizer(unbroken, OptimizerOptions(optimizer=name)), range(2))
    optimizer.backward(network(torch.full((1, 3, 6, 6), torch.nan)).mean())
    optimizer.step()
    for one, two in zip(network.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("skips_on_device", [False, True])
def test_with_loss_scaling_too_no_update_follows_a_loss_that_is_not_finite(
    skips_on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scaler looks at gradients alone, and those of this loss are finite."""
    monkeypatch.setattr(Optimizer, "_skips_on_device", skips_on_device)
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions(), mixed_precision=True)
    train(network, optimizer, range(2))
    before = copy.deepcopy(network.state_dict())
    moments = {name: tensor.clone() for name, tensor in optimizer.state_tensors()[0].items()}
    optimizer.backward(network(torch.ones(1, 3, 6, 6)).sum() + torch.inf)
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    optimizer.step()
    train(network, optimizer, range(2))
    assert bool(optimizer.spoilt)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    after = optimizer.state_tensors()[0]
    assert all(torch.equal(tensor, after[name]) for name, tensor in moments.items())


@pytest.mark.parametrize("protected", [True, False])
def test_loss_scaling_in_the_kernel_equals_the_scalers_own_step(
    protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Optimizer, "_skips_on_device", True)
    network, expected = small_network(), small_network()
    optimizer = Optimizer(network, OptimizerOptions(), mixed_precision=True)
    optimizer.nan_protection = protected
    scaler, adam = torch.amp.GradScaler("cpu"), torch.optim.Adam(expected.parameters(), 5e-5, eps=1e-7, fused=True)
    for index in range(5):
        x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(index))
        optimizer.backward(network(x).square().mean())
        scaler.scale(expected(x).square().mean()).backward()
        if index == 2:
            network[0].weight.grad[0] = expected[0].weight.grad[0] = torch.inf
        optimizer.step()
        scaler.step(adam)
        scaler.update()
        adam.zero_grad()
    assert not bool(optimizer.spoilt)
    assert optimizer.scaler is not None
    assert optimizer.scaler.state_dict() == scaler.state_dict()
    for one, two in zip(network.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-8)


def test_loss_scaling_halves_on_overflow_and_skips_the_update() -> None:
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions(), mixed_precision=True)
    before = copy.deepcopy(network.state_dict())
    optimizer.backward(network(torch.ones(1, 3, 6, 6)).mean())
    network[0].weight.grad[0] = torch.inf
    optimizer.step()
    assert not bool(optimizer.spoilt)
    assert optimizer.scaler.get_scale() == 32768
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    resumed = Optimizer(network, OptimizerOptions(), mixed_precision=True)
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert resumed.scaler.get_scale() == 32768
    plain = Optimizer(network, OptimizerOptions()).state_dict()
    resumed.load_state_dict(plain)  # a run without a scaler has nothing to load
