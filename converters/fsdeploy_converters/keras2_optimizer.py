"""The optimizer of a Keras 2 HDF5 file: group `optimizer_weights`, hyper-parameters in `training_config`."""

from __future__ import annotations

from collections.abc import Mapping

from fsdeploy.model.migration import MigratedOptimizer
from fsdeploy.model.tensor_stream import StoredTensor
from fsdeploy_converters import optimizer_state
from fsdeploy_converters.errors import shown
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.optimizer_state import KERAS_OPTIMIZERS, OptimizerDroppedError, built, option_values
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.translate import Slot

GROUP = "optimizer_weights"
_SLOTS = {"Adam": ("m", "v"), "Nadam": ("m", "v"), "AdaBelief": ("m", "v"), "RMSprop": ("rms",)}
_MAXIMA = {"Adam": "vhat", "AdaBelief": "vhat"}
"""Slot that AMSGrad adds."""
_TORCH_SLOT = {"vhat": "max", "rms": "v"}


def read_optimizer(
    file: Hdf5File, places: Mapping[Slot, tuple[Hdf5File, str]], slots: tuple[Slot, ...]
) -> tuple[MigratedOptimizer | None, list[str]]:
    """The optimizer state, or None and why. It is never a reason to refuse a model.

    Args:
        places: Where each variable lies: slots are named after variables.
        slots: Variables in the order of the graph.
    """
    if GROUP not in file.children:
        return None, ["no optimizer state in the file: the optimizer starts new"]
    return optimizer_state.attempt(lambda: (_read(file, places, slots), []))


def _read(file: Hdf5File, places: Mapping[Slot, tuple[Hdf5File, str]], slots: tuple[Slot, ...]) -> MigratedOptimizer:
    config = read_object(file.text("", "training_config") or "{}", file.source)["optimizer_config"]
    scaling = None
    if config["class_name"].startswith("LossScaleOptimizer"):
        outer = config["config"]
        config = outer["inner_optimizer"]
        # The running scale is not in the file: it starts again where that program started.
        scaling = optimizer_state.loss_scale(
            float(outer.get("initial_scale", 32768.0)), 0, outer.get("dynamic_growth_steps", 2000)
        )
    class_name = str(config["class_name"]).rpartition(">")[2]
    if class_name not in _SLOTS:
        raise OptimizerDroppedError(f"the optimizer {shown(class_name)} is not known")
    name, torch_keys = KERAS_OPTIMIZERS[class_name]
    kinds = _SLOTS[class_name]
    if config["config"].get("amsgrad") is True and class_name in _MAXIMA:
        kinds = (*kinds, _MAXIMA[class_name])
    variables = _by_name(places, slots)
    found, scalars = _sorted_entries(file, kinds, variables)
    if "iter" not in scalars:
        raise OptimizerDroppedError("its counter is missing")
    steps = int(file.read(scalars["iter"]).reshape(-1)[0])
    if not 0 <= steps < 1 << 31:
        raise OptimizerDroppedError("its counter is impossible")
    states: dict[str, dict[str, StoredTensor]] = {}
    for slot, entries in found.items():
        if set(entries) != set(kinds):
            raise OptimizerDroppedError(f"some slots of {shown(slot.target)} are missing")
        keys = {torch_keys[_TORCH_SLOT.get(kind, kind)]: path for kind, path in entries.items()}
        state = {key: _slot(file, path, slot) for key, path in keys.items()}
        state["step"] = optimizer_state.scalar(steps)
        if class_name == "Nadam":
            state["mu_product"] = optimizer_state.scalar(float(file.read(scalars["momentum_cache"]).reshape(-1)[0]))
        states[slot.target] = state
    missing = [slot for slot in slots if slot.learned and slot.target and slot.target not in states]
    if missing:
        raise OptimizerDroppedError(f"{len(missing)} variables have no slots")
    return built(name, states, option_values(config["config"]), "keras2", steps, scaling)


def _by_name(places: Mapping[Slot, tuple[Hdf5File, str]], slots: tuple[Slot, ...]) -> dict[str, Slot]:
    """Weight name without its group and `:0` -> variable."""
    names: dict[str, Slot] = {}
    for slot in slots:
        if slot.learned:
            name = places[slot][1].split("/", 2)[2].partition(":")[0]
            if name in names:
                raise OptimizerDroppedError(f"two variables are called {shown(name)}")
            names[name] = slot
    return names


def _sorted_entries(
    file: Hdf5File, kinds: tuple[str, ...], variables: Mapping[str, Slot]
) -> tuple[dict[Slot, dict[str, str]], dict[str, str]]:
    """Dataset of each (variable, slot), and of the scalars. Names are read from the right: whatever scope stands before
    the longest known variable name is not looked at."""
    names = file.names(GROUP, "weight_names") or []
    if len(set(names)) != len(names):
        raise OptimizerDroppedError("its list names a slot twice")
    found: dict[Slot, dict[str, str]] = {}
    scalars: dict[str, str] = {}
    for entry in names:
        path = f"{GROUP}/{entry}"
        if path not in file.datasets:
            raise OptimizerDroppedError(f"{shown(entry, 160)} is missing")
        rest, _, kind = entry.partition(":")[0].rpartition("/")
        if kind in ("iter", "momentum_cache") and file.datasets[path].shape == ():
            scalars[kind] = path
            continue
        parts = rest.split("/")
        known = ["/".join(parts[start:]) for start in range(len(parts)) if "/".join(parts[start:]) in variables]
        if not known or kind not in kinds:
            raise OptimizerDroppedError(f"{shown(entry, 160)} belongs to no variable")
        entries = found.setdefault(variables[known[0]], {})
        if kind in entries:
            raise OptimizerDroppedError(f"{shown(entry, 160)} stands twice")
        entries[kind] = path
    if not found:
        raise OptimizerDroppedError("it holds no slots")
    return found, scalars


def _slot(file: Hdf5File, path: str, slot: Slot) -> StoredTensor:
    stored = file.datasets[path]
    if stored.shape != slot.shape or stored.kind != "<f4":
        raise OptimizerDroppedError(f"{shown(path, 160)} is {stored.shape}, its variable {slot.shape}")
    return optimizer_state.slot_tensor(slot, lambda: file.read(path))
