"""Optimizers against values computed elsewhere, their state against an unbroken run."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from optimizer_steps import small_network, through_a_file, train
from torch import Tensor, nn

from fsdeploy.config.option import specs
from fsdeploy.config.training import OPTIMIZER_NAMES, OptimizerOptions
from fsdeploy.training.lion_adabelief import AdaBelief, Lion
from fsdeploy.training.lr_warmup import WarmupScheduler
from fsdeploy.training.optimizer import Optimizer, get_parameter_group_ids


def gradient(t: int) -> Tensor:
    return torch.tensor([np.sin(t), np.cos(2 * t), 0.5, 0.001 * t], dtype=torch.float32)


def run(optimizer: torch.optim.Optimizer, theta: nn.Parameter, steps: int) -> Tensor:
    for t in range(1, steps + 1):
        theta.grad = gradient(t)
        optimizer.step()
    return theta.detach()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, (0.49158528, -0.24583854, 0.09500000, -0.00001000)),
        (6, (0.47546846, -0.23792338, 0.07463826, -0.00044242)),
        (40, (0.47479510, -0.23753728, -0.00156200, -0.09244560)),
    ],
)
def test_adabelief_has_its_known_values(steps: int, expected: tuple[float, ...]) -> None:
    theta = nn.Parameter(torch.tensor([0.5, -0.25, 0.1, 0.0]))
    optimizer = AdaBelief([theta], lr=0.01, betas=(0.9, 0.999), eps=1e-16)
    assert run(optimizer, theta, steps).tolist() == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, (0.48995000, -0.23997499, 0.08999000, -0.01000000)),
        (10, (0.47951514, -0.24976508, -0.00005496, -0.09995499)),
    ],
)
def test_lion_has_its_known_values(steps: int, expected: tuple[float, ...]) -> None:
    theta = nn.Parameter(torch.tensor([0.5, -0.25, 0.1, 0.0]))
    optimizer = Lion([theta], lr=0.01, betas=(0.9, 0.999), weight_decay=0.01)
    assert run(optimizer, theta, steps).tolist() == pytest.approx(expected, abs=2e-7)


def test_adam_follows_its_formula() -> None:
    theta, m, v = np.array([0.5, -0.25, 0.1, 0.0]), np.zeros(4), np.zeros(4)
    network = nn.ParameterDict({"theta": nn.Parameter(torch.tensor(theta, dtype=torch.float32))})
    optimizer = Optimizer(network, OptimizerOptions(learning_rate=0.01))
    for t in range(1, 8):
        g = gradient(t).double().numpy()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - 0.01 / (1 - 0.9**t) * m / (np.sqrt(v) / np.sqrt(1 - 0.999**t) + 1e-7)
        network["theta"].grad = gradient(t)
        optimizer.step()
    assert network["theta"].tolist() == pytest.approx(theta.tolist(), abs=1e-6)


def test_vectors_and_biases_take_no_weight_decay() -> None:
    named = [("a.weight", torch.zeros(2, 2)), ("a.bias", torch.zeros(2)), ("scale", torch.zeros(2)),
             ("table.bias", torch.zeros(2, 2))]  # fmt: skip
    assert get_parameter_group_ids(named) == {0: "decay", 1: "no_decay", 2: "no_decay", 3: "no_decay"}
    network = small_network()
    made = Optimizer(network, OptimizerOptions(optimizer="adamw", weight_decay=0.1)).optimizer
    assert [group["weight_decay"] for group in made.param_groups] == [0.1, 0.0]
    assert all(p.ndim > 1 for p in made.param_groups[0]["params"])


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
@pytest.mark.parametrize("clipping", ["none", "autoclip"])
def test_n_steps_and_m_more_after_a_resume_equal_n_plus_m(name: str, clipping: str) -> None:
    config = OptimizerOptions(
        optimizer=name, learning_rate=1e-3, gradient_accumulation=2, gradient_clipping=clipping, weight_decay=0.01,
        autoclip_history=4, ada_amsgrad=True,
    )  # fmt: skip
    unbroken = small_network()
    train(unbroken, Optimizer(unbroken, config, warmup_steps=6), range(17))

    first = small_network()
    optimizer = Optimizer(first, config, warmup_steps=6)
    train(first, optimizer, range(9))  # stops with half an update accumulated
    saved = through_a_file(optimizer.state_dict())

    second = small_network()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = Optimizer(second, config, warmup_steps=6)
    resumed.load_state_dict(saved)
    train(second, resumed, range(9, 17))
    for one, two in zip(unbroken.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_resume_takes_its_hyper_parameters_from_the_configuration() -> None:
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions(learning_rate=1e-3))
    train(network, optimizer, range(2))
    resumed = Optimizer(network, OptimizerOptions(learning_rate=2e-4, weight_decay=0.5, epsilon_exponent=-5))
    resumed.load_state_dict(optimizer.state_dict())
    group = resumed.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["eps"]) == (2e-4, 0.5, 1e-5)
    assert resumed.state_dict()["tensors"]["0.weight/step"].item() == 2


@pytest.mark.parametrize("frozen_first", [True, False])
def test_freezing_between_runs_keeps_the_state_of_what_is_still_trained(
    frozen_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    network = small_network()
    network[0].requires_grad_(not frozen_first)
    optimizer = Optimizer(network, OptimizerOptions())
    train(network, optimizer, range(3))
    network[0].requires_grad_(frozen_first)
    resumed = Optimizer(network, OptimizerOptions())
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict(optimizer.state_dict())
    tensors = resumed.state_dict()["tensors"]
    assert torch.equal(tensors["3.weight/exp_avg"], optimizer.state_dict()["tensors"]["3.weight/exp_avg"])
    assert "0.weight/exp_avg" not in tensors
    assert ("2 parameters" in caplog.text) == frozen_first
    train(network, resumed, range(1))


def test_another_optimizer_starts_fresh(caplog: pytest.LogCaptureFixture) -> None:
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions())
    train(network, optimizer, range(1))
    other = Optimizer(network, OptimizerOptions(optimizer="lion"))
    other.load_state_dict(optimizer.state_dict())
    assert "optimizer 'adam': starting fresh" in caplog.text
    assert not other.state_dict()["tensors"]


def test_accumulating_two_batches_equals_one_batch_of_both() -> None:
    one, two = small_network(), small_network()
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    joint = Optimizer(one, OptimizerOptions())
    joint.backward(one(x).square().mean())
    joint.step()
    parts = Optimizer(two, OptimizerOptions(gradient_accumulation=2))
    for half in x.chunk(2):
        parts.backward(two(half).square().mean())
        parts.step()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_warm_up_rises_in_equal_steps_and_stays() -> None:
    made = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    scheduler = WarmupScheduler(made, 4)
    rates = []
    for _ in range(6):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        scheduler.step()
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_a_rate_set_during_warm_up_is_what_the_warm_up_leads_to() -> None:
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions(learning_rate=1e-3), warmup_steps=4)
    train(network, optimizer, range(1))
    optimizer.set_lr(4e-2)
    rates = []
    for index in range(4):
        rates.append(optimizer.learning_rate)
        train(network, optimizer, range(index, index + 1))
    assert rates == pytest.approx([2e-2, 3e-2, 4e-2, 4e-2])


def test_warm_up_of_another_length_starts_anew_and_of_the_same_length_goes_on() -> None:
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions(learning_rate=1e-3), warmup_steps=10)
    train(network, optimizer, range(4))
    same = Optimizer(network, OptimizerOptions(learning_rate=1e-3), warmup_steps=10)
    same.load_state_dict(optimizer.state_dict())
    assert same.learning_rate == pytest.approx(5e-4)
    other = Optimizer(network, OptimizerOptions(learning_rate=1e-3), warmup_steps=20)
    other.load_state_dict(optimizer.state_dict())
    assert other.learning_rate == pytest.approx(5e-5)


def test_accumulation_changed_on_resume_is_respected() -> None:
    network = small_network()
    config = OptimizerOptions(gradient_accumulation=4)
    optimizer = Optimizer(network, config)
    train(network, optimizer, range(3))
    resumed = Optimizer(network, replace(config, gradient_accumulation=1))
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.completes_update


def test_moving_keeps_the_state_and_counters_on_the_cpu_that_the_host_reads() -> None:
    network = small_network()
    optimizer = Optimizer(network, OptimizerOptions(optimizer="adabelief"))
    train(network, optimizer, range(2))
    before = {name: tensor.clone() for name, tensor in optimizer.state_tensors()[0].items()}
    optimizer.to(torch.device("meta"))
    moved = optimizer.state_tensors()[0]
    assert moved.keys() == before.keys()
    assert moved["0.weight/exp_avg"].device.type == "meta"
    assert moved["0.weight/step"].device.type == "cpu"


def test_a_stop_before_the_first_update_is_complete_loses_no_gradient(caplog: pytest.LogCaptureFixture) -> None:
    config = OptimizerOptions(learning_rate=1e-3, gradient_accumulation=3)
    unbroken = small_network()
    train(unbroken, Optimizer(unbroken, config), range(3))

    first = small_network()
    optimizer = Optimizer(first, config)
    train(first, optimizer, range(2))
    second = small_network()
    resumed = Optimizer(second, config)
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert not caplog.records
    train(second, resumed, range(2, 3))
    for one, two in zip(unbroken.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["adam", "adamw", "adabelief"])
def test_amsgrad_goes_on_from_a_state_without_maxima(name: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = OptimizerOptions(optimizer=name, learning_rate=1e-3)
    network = small_network()
    optimizer = Optimizer(network, plain)
    train(network, optimizer, range(3))
    saved = through_a_file(optimizer.state_dict())
    other = copy.deepcopy(network)
    resumed = Optimizer(other, replace(plain, ada_amsgrad=True))
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict(saved)
    assert not caplog.records
    # One step later the running maximum is the second moment itself, so both variants have moved alike.
    train(network, optimizer, range(3, 4))
    train(other, resumed, range(3, 4))
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-7)
    assert any("max_" in key for key in resumed.state_dict()["tensors"])


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_a_parameter_whose_saved_state_lacks_a_part_or_has_another_shape_starts_fresh(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = OptimizerOptions(optimizer=name)
    network = small_network()
    optimizer = Optimizer(network, config)
    train(network, optimizer, range(2))
    kept = [key for key in optimizer.state_tensors()[0] if key.startswith("3.bias/")]
    for key in kept:
        for change in ("missing", "scalar"):
            saved = through_a_file(optimizer.state_dict())
            if change == "missing":
                del saved["tensors"][key]
            else:
                saved["tensors"][key] = torch.zeros(()) if saved["tensors"][key].ndim else torch.zeros(3)
            resumed = Optimizer(small_network(), config)
            caplog.clear()
            resumed.load_state_dict(saved)
            if len(kept) > 1 or change == "scalar":
                assert "1 parameters, 3.bias first" in caplog.text
            tensors = resumed.state_dict()["tensors"]
            assert not [key for key in tensors if key.startswith("3.bias/")]
            assert torch.equal(
                tensors[kept[0].replace("bias", "weight")], saved["tensors"][kept[0].replace("bias", "weight")]
            )
    network = small_network()
    resumed = Optimizer(network, config)
    resumed.load_state_dict(saved)
    train(network, resumed, range(2))


def test_a_state_older_than_the_weights_keeps_its_moments_but_no_half_update_and_no_old_warm_up() -> None:
    config = OptimizerOptions(learning_rate=1e-3, gradient_accumulation=2)
    network = small_network()
    optimizer = Optimizer(network, config, warmup_steps=10)
    train(network, optimizer, range(3))  # one update, and half of another
    saved = through_a_file(optimizer.state_dict())
    network = small_network()
    resumed = Optimizer(network, config, warmup_steps=10)
    resumed.load_state_dict({**saved, "behind": 9})
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not resumed.completes_update, "the first batch is the first of an update"
    tensors = resumed.state_dict()["tensors"]
    assert torch.equal(tensors["3.weight/exp_avg"], saved["tensors"]["3.weight/exp_avg"])
    # 12 iterations were trained in all: 6 updates, so the next has 7/10 of the rate.
    assert resumed.learning_rate == pytest.approx(7e-4)


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
@pytest.mark.parametrize("bound", ["minimum", "maximum"])
def test_the_outermost_decays_that_the_options_allow_can_be_trained_with(name: str, bound: str) -> None:
    allowed = specs(OptimizerOptions)
    betas = {key: getattr(allowed[key][2], bound) for key in ("ada_beta_1", "ada_beta_2")}
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    train(network, Optimizer(network, OptimizerOptions(optimizer=name, **betas)), range(3))
    after = network.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(value, before[key]) for key, value in after.items())
