"""Optimizer state of legacy files in torch's terms: which slot becomes which, with whose arithmetic it was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import FsdeployError
from fsdeploy.model.migration import MigratedOptimizer, rule_change
from fsdeploy.model.tensor_stream import StoredTensor
from fsdeploy_converters.errors import shown
from fsdeploy_converters.translate import Slot

Read = Callable[[], NDArray[np.float32]]

# Legacy class -> our option value, and legacy slot -> torch key.
KERAS_OPTIMIZERS: dict[str, tuple[str, dict[str, str]]] = {
    "Adam": ("adam", {"m": "exp_avg", "v": "exp_avg_sq", "max": "max_exp_avg_sq"}),
    "AdamW": ("adamw", {"m": "exp_avg", "v": "exp_avg_sq", "max": "max_exp_avg_sq"}),
    "AdaBelief": ("adabelief", {"m": "exp_avg", "v": "exp_avg_var", "max": "max_exp_avg_var"}),
    "Adamax": ("adamax", {"m": "exp_avg", "u": "exp_inf"}),
    "Nadam": ("nadam", {"m": "exp_avg", "v": "exp_avg_sq"}),
    "RMSprop": ("rms-prop", {"v": "square_avg"}),
    "Lion": ("lion", {"m": "exp_avg"}),
}
SECOND_MOMENTS = frozenset({"exp_avg_sq", "exp_avg_var", "exp_inf", "square_avg", "max_exp_avg_sq", "max_exp_avg_var"})
_VERSION = 2


class OptimizerDroppedError(Exception):
    """The optimizer state cannot be used; the text says why. The model itself is not concerned."""


def attempt(read: Callable[[], tuple[MigratedOptimizer, list[str]]]) -> tuple[MigratedOptimizer | None, list[str]]:
    """The optimizer state and notes about it, or None and why. It is never a reason to refuse a model.

    Args:
        read: Reads the state; whatever it raises about the content of the file ends here.
    """
    try:
        found, notes = read()
    except (OptimizerDroppedError, FsdeployError) as error:
        return None, [f"the optimizer state is dropped ({error}): the optimizer starts new"]
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        return None, [f"the optimizer state is damaged ({shown(error)}): the optimizer starts new"]
    change = rule_change(found.name, found.rule)
    return found, notes if change is None else [*notes, change]


def scalar(value: float) -> StoredTensor:
    """A 0-d tensor."""
    return StoredTensor((), lambda: np.array(value, np.float32))


@dataclass(frozen=True)
class SlotTensor(StoredTensor):
    """A slot that can also be read as it lies in the file, which is enough to check its numbers."""

    raw: Read


def slot_tensor(slot: Slot, read: Read) -> SlotTensor:
    """A slot in its parameter's torch layout: slots lie in the file as the parameter does."""
    return SlotTensor(slot.layout.result_shape(slot.shape), lambda: slot.layout.apply(read()), read)


def option_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our options out of hyper-parameters of a file. Numbers went through float32 there: 0.9900000095 means 0.99."""
    found: dict[str, Any] = {}
    for ours, theirs in (("ada_beta_1", "beta_1"), ("ada_beta_2", "beta_2")):
        value = config.get(theirs)
        if isinstance(value, (int, float)) and 0.0 <= value < 1.0:
            found[ours] = float(str(np.float32(value)))
    epsilon = config.get("epsilon")
    if isinstance(epsilon, (int, float)) and 1e-20 <= epsilon <= 1.0:
        found["epsilon_exponent"] = round(math.log10(epsilon))
    if isinstance(config.get("amsgrad"), bool):
        found["ada_amsgrad"] = config["amsgrad"]
    return found


def built(
    name: str,
    slots: Mapping[str, Mapping[str, StoredTensor]],
    config: Mapping[str, Any],
    rule: str,
    steps: int,
    scaler: Mapping[str, Any] | None = None,
    accumulated: int = 0,
) -> MigratedOptimizer:
    """Check every slot once and put the state together.

    Raises:
        OptimizerDroppedError: a slot is not finite, or a second moment is negative.
    """
    for parameter, entries in slots.items():
        for key, tensor in entries.items():
            values = tensor.raw() if isinstance(tensor, SlotTensor) else tensor.read()
            least, largest = float(values.min()), float(values.max())
            if not (math.isfinite(least) and math.isfinite(largest)) or (key in SECOND_MOMENTS and least < 0):
                raise OptimizerDroppedError(f"the slot {key} of {parameter} holds impossible numbers")
            del values  # before the next one is read
    hyper = {"betas": [config[key] for key in ("ada_beta_1", "ada_beta_2") if key in config], "rule": rule}
    metadata = {
        "version": _VERSION,
        "optimizer": name,
        "hyper_parameters": hyper,
        "scaler": dict(scaler) if scaler else None,
        "warmup": None,
        "accumulated": accumulated,
        "clip": None,
        "optimizer_rule": rule,
    }
    return MigratedOptimizer(name, slots, metadata, config, rule, steps)


def loss_scale(
    scale: float, tracker: float, interval: float, growth: float = 2.0, backoff: float = 0.5
) -> dict[str, Any]:
    """State of torch's GradScaler.

    Args:
        scale: What losses are multiplied with, finite and above 0.
        tracker: Updates since the scale changed last, a whole number.
        interval: Updates after which the scale grows, a whole number above 0.
        growth: Factor above 1 of a growing scale.
        backoff: Factor in 0..1 after numbers that are not finite.

    Raises:
        OptimizerDroppedError: a number is out of its range.
    """
    counts = all(float(count).is_integer() and 0 <= count < 1 << 31 for count in (tracker, interval)) and interval > 0
    if not (counts and 0.0 < scale < math.inf and 1.0 < growth < math.inf and 0.0 < backoff < 1.0):
        raise OptimizerDroppedError("its loss scale is impossible")
    return {
        "scale": scale,
        "growth_factor": growth,
        "backoff_factor": backoff,
        "growth_interval": int(interval),
        "_growth_tracker": int(tracker),
    }
