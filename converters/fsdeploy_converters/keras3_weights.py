"""Finding the variables of a graph in `model.weights.h5`: by class name and position in the graph."""

from __future__ import annotations

import re

from fsdeploy_converters.errors import damaged, shown
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras_graph import KerasNet
from fsdeploy_converters.translate import Slot

OPTIMIZER = "optimizer"


def snake_case(class_name: str) -> str:
    """The key of a class: `LeakyReLU` is `leaky_re_lu`, `UpSampling2D` is `up_sampling2d`."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def layer_keys(net: KerasNet) -> dict[str, str]:
    """Layer name -> key in its group: the class, counted in the order of the net. Bare operations do not count."""
    counts: dict[str, int] = {}
    keys = {}
    for name, layer in net.layers.items():
        if layer.bare:
            continue
        base = snake_case(layer.class_name)
        count = counts.get(base, 0)
        counts[base] = count + 1
        keys[name] = f"{base}_{count}" if count else base
    return keys


def find_weights(file: Hdf5File, root: KerasNet, slots: tuple[Slot, ...]) -> dict[Slot, tuple[Hdf5File, str]]:
    """Dataset of each slot.

    Raises:
        CorruptModelError: an array is missing or left over, or a group names another layer.
    """
    groups = _groups(file, root, "", ())
    found = {}
    for slot in slots:
        inner = f"/{slot.place}" if slot.place else ""
        found[slot] = (file, f"{groups[slot.path]}{inner}/vars/{slot.index}")
    used = {path for _, path in found.values()}
    for path in file.datasets:
        if path not in used and not path.startswith(f"{OPTIMIZER}/"):
            raise damaged(file.source, f"the array {shown(path, 160)} belongs to no layer of its graph")
    for slot, (_, path) in found.items():
        if path not in file.datasets:
            raise damaged(file.source, f"the array {shown(path, 160)} ({slot.kind}) is missing")
    return found


def _groups(file: Hdf5File, net: KerasNet, group: str, path: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    for name, key in layer_keys(net).items():
        own = f"{group}/layers/{key}".lstrip("/")
        named = file.text(f"{own}/vars", "name")
        if named is not None and named != name:
            raise damaged(file.source, f"{shown(own, 160)} names the layer {shown(named)}, its graph {shown(name)}")
        found[(*path, name)] = own
        inner = net.layers[name].net
        if inner is not None:
            found |= _groups(file, inner, own, (*path, name))
    return found
