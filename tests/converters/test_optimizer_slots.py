"""Optimizer state of every kind of file, written from the format descriptions, against the weights beside it.

Slots lie in a file as their variable does. So a slot that holds a multiple of its variable must come out as the same
multiple of the migrated weight, whatever axes are moved on the way.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from small_models import model_config, rewritten, small_keras, weights, write_keras2
from torch import nn

from fsdeploy.config.training import OptimizerOptions
from fsdeploy.model.folder import load_model
from fsdeploy.model.migrate import open_migration, write_migration
from fsdeploy.training.optimizer import Optimizer

STEPS = 37
# What a slot holds, as a multiple of its variable or of its variable's magnitude.
MULTIPLES = {
    "exp_avg": 2.0, "exp_avg_sq": 4.0, "exp_avg_var": 4.0, "exp_inf": 4.0, "square_avg": 4.0, "max_exp_avg_sq": 8.0,
    "max_exp_avg_var": 8.0,
}  # fmt: skip
SLOTS = {
    "adam": ["exp_avg", "exp_avg_sq"], "adamw": ["exp_avg", "exp_avg_sq"], "nadam": ["exp_avg", "exp_avg_sq"],
    "adamax": ["exp_avg", "exp_inf"], "adabelief": ["exp_avg", "exp_avg_var"], "lion": ["exp_avg"],
    "rms-prop": ["square_avg"],
}  # fmt: skip
MAXIMA = {"adam": "max_exp_avg_sq", "adamw": "max_exp_avg_sq", "adabelief": "max_exp_avg_var"}
CLASSES = {
    "adam": "Adam", "adamw": "AdamW", "nadam": "Nadam", "adamax": "Adamax", "adabelief": "AdaBelief", "lion": "Lion",
    "rms-prop": "RMSprop",
}  # fmt: skip


def slot(key: str, variable: np.ndarray) -> np.ndarray:
    """Content of a slot of `variable`; powers of two keep it exact."""
    return MULTIPLES[key] * (variable if key == "exp_avg" else np.abs(variable))


def variables() -> dict[str, np.ndarray]:
    """ "net/layer/kind" -> values, in the order of the graph."""
    return {f"{net}/{name}": array for net, entries in weights().items() for name, array in entries.items()}


def keras3_blocks(name: str, amsgrad: bool, ema: bool, accumulation: int) -> list[np.ndarray]:
    """The datasets of an optimizer that Keras 3 saved, in their order."""
    values = list(variables().values())
    blocks: list[Any] = [np.int32(STEPS * max(accumulation, 1)), np.float32(1e-3)]
    blocks += [array * 16 for array in values] if ema else []
    blocks += [array * 32 for array in values] if accumulation >= 2 else []
    beside = [MAXIMA[name]] if amsgrad and name == "adabelief" else []
    blocks += [slot(key, array) for array in values for key in (*SLOTS[name], *beside)]
    blocks += [slot(MAXIMA[name], array) for array in values] if amsgrad and name != "adabelief" else []
    blocks += [np.float32(0.125)] if name == "nadam" else []
    return [np.asarray(block) for block in blocks]


def keras3_file(folder: Path, name: str, blocks: list[np.ndarray], scale: float | None = None, **config: Any) -> Path:
    """A `.keras` file with an optimizer inside its HDF5 member; `scale` wraps it into one that scales losses."""
    path = small_keras(folder)
    with zipfile.ZipFile(path) as archive:
        description, data = json.loads(archive.read("config.json")), archive.read("model.weights.h5")
    optimizer = {"class_name": CLASSES[name], "config": {"beta_1": 0.5, "beta_2": 0.75, "epsilon": 1e-7, **config}}
    group = "optimizer/vars"
    held = folder / "weights.h5"
    held.write_bytes(data)
    with h5py.File(held, "a") as file:
        if scale is not None:
            outer = [np.int32(0), np.float32(0), np.int32(3), np.float32(scale), *blocks]
            for number, block in enumerate(outer):
                file.create_dataset(f"{group}/{number}", data=block)
            group = "optimizer/inner_optimizer/vars"
            inner = {"inner_optimizer": optimizer, "dynamic_growth_steps": 2000}
            optimizer = {"class_name": "LossScaleOptimizer", "config": inner}
        for number, block in enumerate(blocks):
            file.create_dataset(f"{group}/{number}", data=block)
    description["compile_config"] = {"optimizer": optimizer, "loss": None}
    members = {"config.json": json.dumps(description).encode(), "model.weights.h5": held.read_bytes()}
    held.unlink()
    return rewritten(path, members)


def check(path: Path, name: str, keys: list[str]) -> list[str]:
    """The migrated slots are the multiples that the file holds; returns the warnings."""
    with open_migration(path) as migration:
        model = migration.model
        assert model.optimizer is not None, model.warnings
        assert (model.optimizer.name, model.optimizer.steps) == (name, STEPS)
        assert set(model.optimizer.slots) == set(migration.tensors)
        for parameter, entries in model.optimizer.slots.items():
            scalars = {"step", "mu_product"} if name == "nadam" else {"step"}
            assert set(entries) == {*keys, *scalars}
            for key in keys:
                expected = slot(key, migration.tensors[parameter].numpy())
                np.testing.assert_array_equal(entries[key].read(), expected, f"{parameter}/{key}")
            assert entries["step"].read() == STEPS
        return list(model.warnings)


@pytest.mark.parametrize("accumulation", [0, 4])
@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize(("name", "amsgrad"), [*((name, False) for name in SLOTS), *((name, True) for name in MAXIMA)])
def test_slots_of_keras_3_come_along(name, amsgrad, ema, accumulation, tmp_path):
    blocks = keras3_blocks(name, amsgrad, ema, accumulation)
    config = {"amsgrad": amsgrad, "use_ema": ema, "gradient_accumulation_steps": accumulation or None}
    path = keras3_file(tmp_path, name, blocks, **config)
    warnings = check(path, name, SLOTS[name] + ([MAXIMA[name]] if amsgrad else []))
    assert any("moving averages" in warning for warning in warnings) == ema
    assert any("accumulated" in warning for warning in warnings) == bool(accumulation)
    changed = name in ("adamax", "nadam", "rms-prop")
    assert any("updates follow torch" in warning for warning in warnings) == changed
    with open_migration(path) as migration:
        optimizer = migration.model.optimizer
        assert optimizer.config["ada_beta_1"] == 0.5 and optimizer.config["ada_amsgrad"] is amsgrad
        for entries in optimizer.slots.values() if name == "nadam" else ():
            assert entries["mu_product"].read() == 0.125


@pytest.mark.parametrize("damage", ["one more", "one less", "another shape"])
def test_slots_of_keras_3_that_do_not_add_up_cost_only_the_optimizer(damage, tmp_path):
    blocks = keras3_blocks("adam", True, False, 0)
    if damage == "another shape":
        blocks[2] = blocks[2].reshape(-1)
    else:
        blocks = [*blocks, np.float32(0)] if damage == "one more" else blocks[:-1]
    with open_migration(keras3_file(tmp_path, "adam", blocks, amsgrad=True)) as migration:
        assert migration.model.optimizer is None
        assert any("the optimizer starts new" in warning for warning in migration.model.warnings)


def test_a_loss_scale_comes_along(tmp_path):
    path = keras3_file(tmp_path, "adam", keras3_blocks("adam", False, False, 0), scale=4096.0)
    check(path, "adam", SLOTS["adam"])
    with open_migration(path) as migration:
        assert migration.model.optimizer.values["scaler"] == {
            "scale": 4096.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3,
        }  # fmt: skip


@pytest.mark.parametrize("scale", [np.inf, np.nan, 0.0, -1.0])
def test_an_impossible_loss_scale_costs_only_the_optimizer(scale, tmp_path):
    path = keras3_file(tmp_path, "adam", keras3_blocks("adam", False, False, 0), scale=scale)
    with open_migration(path) as migration:
        assert migration.model.optimizer is None
        assert any("loss scale is impossible" in warning for warning in migration.model.warnings)
        write_migration(migration, tmp_path / "out")
    assert load_model(tmp_path / "out").name == "imported"


def test_a_counter_without_end_costs_only_the_optimizer(tmp_path):
    blocks = keras3_blocks("adam", False, False, 0)
    blocks[0] = np.float32(np.inf)
    with open_migration(keras3_file(tmp_path, "adam", blocks)) as migration:
        assert migration.model.optimizer is None


def torch_parameters() -> list[nn.Parameter]:
    """Variables in the order of parameter groups: kernels decay, biases do not."""
    values = variables()
    kernels = [array for key, array in values.items() if not key.endswith("bias")]
    biases = [array for key, array in values.items() if key.endswith("bias")]
    return [nn.Parameter(torch.from_numpy(array)) for array in (*kernels, *biases)]


def torch_member(kind: type[torch.optim.Optimizer], keys: list[str], scaler: Any = None, **options: Any) -> dict:
    """What `optimizer.pt` holds: torch's own state dict after an update, slots then set to known values."""
    parameters = torch_parameters()
    count = sum(parameter.ndim > 1 for parameter in parameters)
    optimizer = kind([{"params": parameters[:count]}, {"params": parameters[count:]}], **options)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    before = [parameter.detach().numpy().copy() for parameter in parameters]
    optimizer.step()
    state = optimizer.state_dict()
    for number, array in enumerate(before):
        entries = state["state"][number]
        assert set(entries) - {"step", "mu_product"} == set(keys)
        entries |= {key: torch.from_numpy(slot(key, array)) for key in keys}
        entries["step"] = torch.tensor(float(STEPS))
    return {"version": 1.0, "optimizer": state, "scaler": scaler}


def torch_keras(folder: Path, content: dict) -> Path:
    packed = io.BytesIO()
    torch.save(content, packed)
    return rewritten(small_keras(folder), {"optimizer.pt": packed.getvalue()})


TORCH = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "nadam": torch.optim.NAdam, "adamax": torch.optim.Adamax,
    "rms-prop": torch.optim.RMSprop,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "amsgrad"), [*((name, False) for name in TORCH), *((name, True) for name in MAXIMA if name in TORCH)]
)
def test_slots_of_torch_come_along_and_train_on(name, amsgrad, tmp_path):
    keys = SLOTS[name] + ([MAXIMA[name]] if amsgrad else [])
    path = torch_keras(tmp_path, torch_member(TORCH[name], keys, **({"amsgrad": True} if amsgrad else {})))
    warnings = check(path, name, keys)
    assert not any("updates follow torch" in warning for warning in warnings), "they always did"
    model = trained_once(path, tmp_path / "out")
    assert model.training.optimizer.optimizer == name and model.training.optimizer.ada_amsgrad is amsgrad


def trained_once(path: Path, output: Path):
    """Migrate, load as training does, make one update."""
    with open_migration(path) as migration:
        write_migration(migration, output)
    model = load_model(output, predict=False)
    optimizer = Optimizer(model.model, model.training.optimizer)
    if (state := model.io.load_optimizer()) is not None:
        optimizer.load_state_dict(state)
    for parameter in model.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.optimizer.step()
    model.close()
    return model


def test_a_state_before_the_first_update_costs_only_the_optimizer(tmp_path):
    content = torch_member(torch.optim.Adam, SLOTS["adam"])
    content["optimizer"]["state"].clear()
    path = torch_keras(tmp_path, content)
    with open_migration(path) as migration:
        assert migration.model.optimizer is None
        assert any("holds no slots" in warning for warning in migration.model.warnings)


@pytest.mark.parametrize(
    ("missing", "parameter"), [("max_exp_avg_sq", 0), ("exp_avg_sq", 3), ("step", 1), ("max_exp_avg_sq", None)]
)
def test_an_incomplete_state_of_torch_starts_the_optimizer_new(missing, parameter, tmp_path):
    """An update would ask for what is missing."""
    content = torch_member(torch.optim.Adam, [*SLOTS["adam"], "max_exp_avg_sq"], amsgrad=True)
    for number, entries in content["optimizer"]["state"].items():
        if parameter in (None, number):
            del entries[missing]
    path = torch_keras(tmp_path, content)
    with open_migration(path) as migration:
        assert migration.model.optimizer is None
        assert any("is incomplete" in warning for warning in migration.model.warnings)
    trained_once(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value"), [("scale", float("nan")), ("growth_factor", float("inf")), ("growth_interval", 0), ("scale", 0.0)]
)
def test_an_impossible_loss_scale_of_torch_costs_only_the_optimizer(key, value, tmp_path):
    scaler = {"scale": 4096.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9, "_growth_tracker": 3}
    content = torch_member(torch.optim.Adam, SLOTS["adam"], scaler | {key: value})
    with open_migration(torch_keras(tmp_path, content)) as migration:
        assert migration.model.optimizer is None
        write_migration(migration, tmp_path / "out")


def test_the_loss_scale_of_torch_comes_along(tmp_path):
    scaler = {"scale": 4096.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9, "_growth_tracker": 3}
    path = torch_keras(tmp_path, torch_member(torch.optim.Adam, SLOTS["adam"], scaler))
    with open_migration(path) as migration:
        assert migration.model.optimizer.values["scaler"] == scaler


KERAS2 = {
    "adam": {"m": "exp_avg", "v": "exp_avg_sq"}, "adabelief": {"m": "exp_avg", "v": "exp_avg_var"},
    "nadam": {"m": "exp_avg", "v": "exp_avg_sq"}, "rms-prop": {"rms": "square_avg"},
}  # fmt: skip


def keras2_file(folder: Path, name: str, slots: dict[str, str], config: dict[str, Any], left_out: str = "-") -> Path:
    """An `.h5` with an optimizer; slots whose name begins as `left_out` does are not written.

    Args:
        slots: Slot name in the file -> torch key, which says what it holds.
    """
    # Slots are named after variables, so both decoders need layers of their own names.
    description, values = model_config(), weights()
    for number, net in ((3, "decoder_a"), (4, "decoder_b")):
        text = json.dumps(description["config"]["layers"][number])
        for own in {key.partition("/")[0] for key in values[net]}:
            text = text.replace(f'"{own}"', f'"{net}_{own}"')
        description["config"]["layers"][number] = json.loads(text)
        values[net] = {f"{net}_{key}": array for key, array in values[net].items()}
    path = write_keras2(folder / "small.h5", description, values)
    found: dict[str, Any] = {"iter:0": np.int64(STEPS)}
    if name == "nadam":
        found["Nadam/momentum_cache:0"] = np.float32(0.125)
    named = {key: array for entries in values.values() for key, array in entries.items()}
    for kind, key in slots.items():
        found |= {f"{CLASSES[name]}/{own}/{kind}:0": slot(key, array) for own, array in named.items()}
    found = {key: array for key, array in found.items() if not key.startswith(left_out)}
    training = {"optimizer_config": {"class_name": CLASSES[name], "config": {"beta_1": 0.5, "beta_2": 0.75, **config}}}
    with h5py.File(path, "a") as file:
        file.attrs["training_config"] = json.dumps(training)
        group = file.create_group("optimizer_weights")
        group.attrs["weight_names"] = list(found)
        for key, array in found.items():
            group.create_dataset(key, data=array)
    return path


@pytest.mark.parametrize(
    ("name", "amsgrad"), [*((name, False) for name in KERAS2), ("adam", True), ("adabelief", True)]
)
def test_slots_of_keras_2_come_along(name, amsgrad, tmp_path):
    slots = KERAS2[name] | ({"vhat": MAXIMA[name]} if amsgrad else {})
    warnings = check(keras2_file(tmp_path, name, slots, {"amsgrad": amsgrad}), name, list(slots.values()))
    assert any("updates follow torch" in warning for warning in warnings) == (name == "rms-prop")


@pytest.mark.parametrize("left_out", ["Adam/conv/kernel/m", "Adam/decoder_b_mask_conv/bias/v", "Adam/", "iter"])
def test_an_incomplete_state_of_keras_2_starts_the_optimizer_new(left_out, tmp_path):
    path = keras2_file(tmp_path, "adam", KERAS2["adam"], {"amsgrad": False}, left_out)
    with open_migration(path) as migration:
        assert migration.model.optimizer is None
        assert any("the optimizer starts new" in warning for warning in migration.model.warnings)


def test_maxima_that_every_variable_of_keras_2_lacks_start_the_optimizer_new(tmp_path):
    path = keras2_file(tmp_path, "adam", KERAS2["adam"], {"amsgrad": True})
    with open_migration(path) as migration:
        assert migration.model.optimizer is None
    trained_once(path, tmp_path / "out")


@pytest.mark.parametrize(("rule", "told"), [("keras3", True), ("keras2", False), ("torch", False), (None, False)])
def test_a_resumed_run_is_told_that_its_rule_has_changed(rule, told, caplog):
    layer = nn.Linear(2, 2)
    optimizer = Optimizer(layer, OptimizerOptions(optimizer="nadam"))
    tensors, values = optimizer.state_tensors()
    with caplog.at_level("WARNING"):
        optimizer.load_state_dict({"tensors": tensors, "metadata": values | ({"optimizer_rule": rule} if rule else {})})
    assert ("updates follow torch" in caplog.text) == told
