"""The optimizer of a `.keras` file that Keras itself wrote: `/optimizer/vars/<i>` in the HDF5 member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsdeploy.model.migration import MigratedOptimizer
from fsdeploy.model.tensor_stream import StoredTensor
from fsdeploy_converters import optimizer_state
from fsdeploy_converters.errors import shown
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.optimizer_state import KERAS_OPTIMIZERS, OptimizerDroppedError, built, option_values
from fsdeploy_converters.translate import Slot

# Slots of each class, interleaved per variable. Maxima of Adam follow after all of them.
_INTERLEAVED = {
    "Adam": ("m", "v"), "AdamW": ("m", "v"), "Nadam": ("m", "v"), "AdaBelief": ("m", "v"), "Adamax": ("m", "u"),
    "Lion": ("m",), "RMSprop": ("v",),
}  # fmt: skip


@dataclass(frozen=True)
class _Config:
    class_name: str
    values: Mapping[str, Any]
    growth_interval: int | None
    """Updates between doublings of the loss scale; None without loss scaling."""


def read_optimizer(
    file: Hdf5File, config: Mapping[str, Any], slots: tuple[Slot, ...]
) -> tuple[MigratedOptimizer | None, list[str]]:
    """The optimizer state, or None and why. It is never a reason to refuse a model.

    Args:
        config: The whole `config.json`.
        slots: Variables in the order of the graph.
    """
    compiled = config.get("compile_config")
    entry = compiled.get("optimizer") if isinstance(compiled, dict) else None
    if not isinstance(entry, dict) or "optimizer/vars/0" not in file.datasets:
        return None, ["no optimizer state in the file: the optimizer starts new"]
    learned = [slot for slot in slots if slot.learned]
    return optimizer_state.attempt(lambda: _read(file, _optimizer_config(entry), learned))


def _optimizer_config(entry: Mapping[str, Any]) -> _Config:
    interval = None
    if entry["class_name"] == "LossScaleOptimizer":
        interval = int(entry["config"].get("dynamic_growth_steps", 2000))
        entry = entry["config"]["inner_optimizer"]
    if entry["class_name"] not in _INTERLEAVED:
        raise OptimizerDroppedError(f"the optimizer {shown(entry['class_name'])} is not known")
    return _Config(entry["class_name"], dict(entry["config"]), interval)


class _Variables:
    """The datasets of a group in numeric order."""

    def __init__(self, file: Hdf5File, group: str) -> None:
        self._file, self._group = file, group
        numbers = sorted(int(name) for name in file.children.get(group, []) if name.isdigit())
        if numbers != list(range(len(numbers))):
            raise OptimizerDroppedError("its variables are not numbered through")
        self.count = len(numbers)
        self._next = 0

    def scalar(self) -> float:
        """The next variable, a number."""
        path = self._take(())
        return float(self._file.read(path).reshape(()))

    def skip(self, slots: list[Slot]) -> None:
        """The next variables, one for each slot, which are not taken over."""
        for slot in slots:
            self._take(slot.shape)

    def tensor(self, slot: Slot) -> StoredTensor:
        """The next variable, of the shape of a weight."""
        path = self._take(slot.shape)
        return optimizer_state.slot_tensor(slot, lambda: self._file.read(path))

    def _take(self, shape: tuple[int, ...]) -> str:
        path = f"{self._group}/{self._next}"
        stored = self._file.datasets.get(path)
        if stored is None or stored.shape != shape or (shape and stored.kind != "<f4"):
            raise OptimizerDroppedError(f"{shown(path)} does not have the shape {shape}")
        self._next += 1
        return path


def _read(file: Hdf5File, config: _Config, slots: list[Slot]) -> tuple[MigratedOptimizer, list[str]]:
    scaler = None
    group = "optimizer/vars"
    if config.growth_interval is not None:
        outer = _Variables(file, group)
        outer.scalar(), outer.scalar()
        tracker, scale = outer.scalar(), outer.scalar()
        scaler = optimizer_state.loss_scale(scale, tracker, config.growth_interval)
        group = "optimizer/inner_optimizer/vars"
    values, notes = config.values, []
    name, torch_keys = KERAS_OPTIMIZERS[config.class_name]
    variables = _Variables(file, group)
    calls = int(variables.scalar())
    variables.scalar()  # the learning rate in force at the save: settings decide, not the file
    if values.get("use_ema"):
        variables.skip(slots)
        notes.append("moving averages of the weights are dropped")
    accumulation = values.get("gradient_accumulation_steps") or 1
    if not isinstance(accumulation, int) or not 1 <= accumulation <= 10_000:
        raise OptimizerDroppedError(f"it accumulates {shown(accumulation)} gradients")
    if accumulation >= 2:
        variables.skip(slots)
        notes.append("gradients accumulated since the last update are dropped")
    steps = calls // accumulation
    if not 0 <= steps < 1 << 31:
        raise OptimizerDroppedError("its counter is impossible")
    states = _states(variables, config, torch_keys, slots)
    if config.class_name == "Nadam":
        product = variables.scalar()
        for state in states.values():
            state["mu_product"] = optimizer_state.scalar(product)
    if variables._next != variables.count:
        raise OptimizerDroppedError(f"it has {variables.count} variables, {variables._next} were expected")
    for state in states.values():
        state["step"] = optimizer_state.scalar(steps)
    if values.get("weight_decay"):
        notes.append(f"the weight decay of {shown(values['weight_decay'])} in the file gives way to the configured one")
    return built(name, states, option_values(values), "keras3", steps, scaler), notes


def _states(
    variables: _Variables, config: _Config, torch_keys: Mapping[str, str], slots: list[Slot]
) -> dict[str, dict[str, StoredTensor]]:
    amsgrad = config.values.get("amsgrad") is True
    kinds = _INTERLEAVED[config.class_name]
    if amsgrad and config.class_name == "AdaBelief":
        kinds = (*kinds, "max")
    states = {slot.target: {torch_keys[kind]: variables.tensor(slot) for kind in kinds} for slot in slots}
    if amsgrad and config.class_name in ("Adam", "AdamW"):
        for slot in slots:
            states[slot.target][torch_keys["max"]] = variables.tensor(slot)
    return states
