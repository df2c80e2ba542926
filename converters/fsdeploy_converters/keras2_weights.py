"""Finding the variables of a graph in a Keras 2 HDF5 file: by order in their group, checked by kind and count."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fsdeploy_converters import limits
from fsdeploy_converters.errors import as_damage, damaged, shown, unsupported
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras_graph import NETS
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.translate import Slot
from fsdeploy_converters.window import Window

Places = dict[Slot, tuple[Hdf5File, str]]
"""Where the values of each variable lie."""
_OTHER_NAMES = {"depthwise_kernel": ("depthwise_kernel", "kernel"), "table": ("Variable", "kernel", "embeddings")}


def check_version(file: Hdf5File) -> str:
    """The Keras version of a file, which must be of the 2.x line.

    Raises:
        UnsupportedFormatError: it is not.
    """
    version = file.text("", "keras_version") or ""
    if not version.startswith("2."):
        raise unsupported(file.source, f"it was saved by Keras {shown(version)}, not 2.x")
    return version


def holds_nets(path: Path) -> bool:
    """Whether an `.h5` file is a whole model, of nets inside a net, and not one part of a model; decided by its graph.

    Raises:
        FsdeployError: the file is damaged or hostile.
    """
    config = Hdf5File(Window.whole(path), limits.KERAS2_HDF5, str(path)).text("", "model_config")
    if config is None:
        return False
    with as_damage(path, "graph"):
        return any(layer["class_name"] in NETS for layer in read_object(config, path)["config"]["layers"])


def group_paths(file: Hdf5File, group: str, slots: Iterable[Slot]) -> Places:
    """Dataset of each slot of one layer group.

    The list in the file names trainable variables first, then all others, each in the order of the graph's layers.

    Raises:
        CorruptModelError: the list is missing, has another length, or other kinds of variables.
    """
    slots = list(slots)
    names = file.names(group, "weight_names")
    if names is None:
        raise damaged(file.source, f"the list of weights of {shown(group)} is missing")
    ordered = [slot for slot in slots if slot.learned] + [slot for slot in slots if not slot.learned]
    if len(names) != len(ordered) or len(set(names)) != len(names):
        raise damaged(file.source, f"{shown(group)} lists {len(names)} weights, its graph has {len(ordered)}")
    found = {}
    for name, slot in zip(names, ordered, strict=True):
        kind = name.rpartition("/")[2].partition(":")[0].rstrip("_0123456789")
        if kind not in _OTHER_NAMES.get(slot.kind, (slot.kind,)):
            raise damaged(file.source, f"{shown(name, 160)} stands where {slot.kind} of {shown(slot.path[-1])} belongs")
        found[slot] = (file, f"{group}/{name}")
    return found


def leftovers(file: Hdf5File, group: str, used: Iterable[str]) -> list[str]:
    """Datasets below `group` that no slot uses."""
    known = set(used)
    return [path for path in file.datasets if path.startswith(f"{group}/") and path not in known]
