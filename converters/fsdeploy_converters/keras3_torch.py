"""Keras 3 `.keras` archives with the state of a torch optimizer in them (from May 2026)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy.model.migration import LegacyFile, MigratedModel, MigratedOptimizer
from fsdeploy.model.tensor_stream import StoredTensor
from fsdeploy_converters import optimizer_state
from fsdeploy_converters.errors import shown
from fsdeploy_converters.keras3 import OPTIMIZER, Opened, archive_of, open_archive, with_state
from fsdeploy_converters.look import look_at_archive
from fsdeploy_converters.optimizer_state import OptimizerDroppedError, built
from fsdeploy_converters.torch_archive import TensorRef, TorchArchive
from fsdeploy_converters.translate import Slot

_KEYS = {
    "adabelief": {"exp_avg", "exp_avg_var"},
    "adamax": {"exp_avg", "exp_inf"},
    "nadam": {"exp_avg", "exp_avg_sq"},
    "rms-prop": {"square_avg"},
    "adam": {"exp_avg", "exp_avg_sq"},
    "lion": {"exp_avg"},
}
_MAXIMA = {"adam": "max_exp_avg_sq", "adamw": "max_exp_avg_sq", "adabelief": "max_exp_avg_var"}
_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


class Converter:
    """A `.keras` archive with the member `optimizer.pt`."""

    format = "Keras 3 archive with torch optimizer (.keras)"

    def recognises(self, path: Path) -> bool:
        archive = archive_of(path)
        return archive is not None and OPTIMIZER in archive.members

    def look(self, path: Path) -> LegacyFile:
        return look_at_archive(path)

    def read(self, path: Path, resources: ExitStack, with_optimizer: bool = True) -> MigratedModel:
        opened = open_archive(path, resources, self.format)
        if not with_optimizer:
            return opened.model
        return with_state(opened.model, *read_optimizer(opened, resources))


def read_optimizer(opened: Opened, resources: ExitStack) -> tuple[MigratedOptimizer | None, list[str]]:
    """The optimizer state, or None and why. It is never a reason to refuse a model."""
    slots = [slot for slot in opened.translated.slots if slot.learned]
    # Three slots for each weight at most, and some room for the records around them.
    most = int(3.1 * sum(4 * math.prod(slot.shape) for slot in opened.translated.slots)) + (16 << 20)

    def read() -> tuple[MigratedOptimizer, list[str]]:
        window = resources.enter_context(opened.archive.window_of(OPTIMIZER, most))
        return _read(TorchArchive(window, opened.archive.source), slots)

    return optimizer_state.attempt(read)


def _read(archive: TorchArchive, slots: list[Slot]) -> tuple[MigratedOptimizer, list[str]]:
    content = archive.content
    if not isinstance(content, dict) or set(content) != {"version", "optimizer", "scaler"} or content["version"] != 1.0:
        raise OptimizerDroppedError("it is of an unknown version")
    groups, states = content["optimizer"]["param_groups"], content["optimizer"]["state"]
    if not isinstance(groups, list) or not 1 <= len(groups) <= 8 or not isinstance(states, dict):
        raise OptimizerDroppedError("its parameter groups are not known")
    ordered = _in_torch_order(slots)
    listed = [index for group in groups for index in group["params"]]
    if listed != list(range(len(ordered))) or not set(states) <= set(listed):
        raise OptimizerDroppedError(f"it speaks of {len(listed)} parameters, the model has {len(ordered)}")
    if not states:
        raise OptimizerDroppedError("it holds no slots")
    name = _name_of(states, groups[0])
    wanted = _wanted_slots(name, groups)
    seen: set[str] = set()
    found = {
        ordered[index].target: _state(archive, wanted, ordered[index], state, seen) for index, state in states.items()
    }
    missing = len(ordered) - len(found)
    notes = [f"{missing} parameters never got a gradient and have no optimizer state"] if missing else []
    steps = max(int(state["step"].read()) for state in found.values())
    return built(name, found, _options(groups[0]), "torch", steps, _scaler(content["scaler"])), notes


def _in_torch_order(slots: list[Slot]) -> list[Slot]:
    """Weights that decay, then those that do not: vectors, and everything called bias."""
    plain = [slot for slot in slots if len(slot.shape) <= 1 or slot.kind.endswith("bias")]
    return [slot for slot in slots if slot not in plain] + plain


def _name_of(states: Mapping[Any, Mapping[str, Any]], group: Mapping[str, Any]) -> str:
    first = next(iter(states.values()))
    keys = {key for key in first if isinstance(key, str)} - {"step", "mu_product", *_MAXIMA.values()}
    if "mu_product" in first:
        return "nadam"
    for name, wanted in _KEYS.items():
        if keys == wanted and name != "nadam":
            return "adamw" if name == "adam" and group.get("decoupled_weight_decay") is True else name
    raise OptimizerDroppedError(f"its slots {shown(sorted(keys))} are of no known optimizer")


@dataclass(frozen=True)
class _Wanted:
    """What every parameter's state must have: an update asks for all of it."""

    slots: frozenset[str]
    numbers: frozenset[str]


def _wanted_slots(name: str, groups: list[Mapping[str, Any]]) -> _Wanted:
    slots = {*_KEYS["adam" if name == "adamw" else name]}
    amsgrad = [group.get("amsgrad") is True for group in groups]
    if len(set(amsgrad)) != 1:
        raise OptimizerDroppedError("its parameter groups contradict each other")
    if amsgrad[0] and name in _MAXIMA:
        slots.add(_MAXIMA[name])
    numbers = {"nadam": ["step", "mu_product"], "lion": []}.get(name, ["step"])
    return _Wanted(frozenset(slots), frozenset(numbers))


def _state(
    archive: TorchArchive, wanted: _Wanted, slot: Slot, state: Mapping[str, Any], seen: set[str]
) -> dict[str, StoredTensor]:
    if not wanted.slots | wanted.numbers <= set(state):
        raise OptimizerDroppedError(f"the state of {shown(slot.target)} is incomplete")
    found: dict[str, StoredTensor] = {}
    for key in wanted.slots:
        tensor = state[key]
        if not isinstance(tensor, TensorRef) or tensor.shape != slot.shape or tensor.key in seen:
            raise OptimizerDroppedError(f"a slot {key} does not have the shape {slot.shape} of its parameter")
        seen.add(tensor.key)
        found[key] = optimizer_state.slot_tensor(slot, _reader(archive, tensor))
    step = _number(archive, state["step"]) if "step" in state else 0.0
    if not (step.is_integer() and 0 <= step < 1 << 31):
        raise OptimizerDroppedError(f"a step counter is {step}")
    found["step"] = optimizer_state.scalar(step)
    if "mu_product" in wanted.numbers:
        found["mu_product"] = optimizer_state.scalar(_number(archive, state["mu_product"]))
    return found


def _reader(archive: TorchArchive, tensor: TensorRef) -> optimizer_state.Read:
    return lambda: archive.read(tensor)


def _number(archive: TorchArchive, value: Any) -> float:
    if isinstance(value, TensorRef):
        if value.shape != ():
            raise OptimizerDroppedError("a counter is no number")
        value = float(archive.read(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OptimizerDroppedError("a counter is no number")
    return float(value)


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    betas = group.get("betas")
    values = {"epsilon": group.get("eps"), "amsgrad": group.get("amsgrad")}
    if isinstance(betas, tuple) and len(betas) == 2:
        values |= {"beta_1": betas[0], "beta_2": betas[1]}
    return optimizer_state.option_values(values)


def _scaler(stored: Any) -> dict[str, Any] | None:
    """State of the loss scaler; empty when mixed precision ran without a GPU."""
    if not stored:
        return None
    if not isinstance(stored, dict) or any(
        isinstance(stored.get(key), bool) or not isinstance(stored.get(key), (int, float)) for key in _SCALER
    ):
        raise OptimizerDroppedError("its loss scale is damaged")
    scale, growth, backoff, interval, tracker = (stored[key] for key in _SCALER)
    return optimizer_state.loss_scale(scale, tracker, interval, growth, backoff)
