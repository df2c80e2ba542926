"""Taking over models of other programs: what a converter gives, how converters are found, how a folder is written.

A converter is a class with the members of `Converter`, registered under the entry point group `fsdeploy.converters`. It
reads one file format and says what is in it; everything after that is the same for all formats and stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from fsdeploy.config.entry_point import load_class, warn_of_broken
from fsdeploy.errors import InputError, PluginError, UnsupportedFormatError
from fsdeploy.model.graph.description import GraphDescription
from fsdeploy.model.tensor_stream import StoredTensor

_GROUP = "fsdeploy.converters"


@dataclass(frozen=True)
class MigratedOptimizer:
    """Optimizer state in torch's terms."""

    name: str
    """Option value, for example "adam"."""
    slots: Mapping[str, Mapping[str, StoredTensor]]
    """Parameter name -> state key -> tensor, in the parameter's layout; scalars have the shape ()."""
    values: Mapping[str, Any]
    """JSON values as `Optimizer.state_tensors` gives them: hyper-parameters, scaler, counters."""
    config: Mapping[str, Any]
    """Options that the file fixes: betas, epsilon, amsgrad."""
    rule: str
    """Whose arithmetic made the state: "keras2", "keras3" or "torch"."""
    steps: int
    """Updates counted in the state."""


_CHANGED_RULES = {
    ("adamax", "keras3"): "epsilon stood beside the maximum",
    ("nadam", "keras3"): "the momentum schedule was steeper",
    ("rms-prop", "keras2"): "the decay was 0.9, here 0.99",
    ("rms-prop", "keras3"): "the decay was 0.9, here 0.99, and epsilon stood inside the root",
}


def rule_change(optimizer: str, rule: str) -> str | None:
    """How updates go on otherwise than those that made a state; None where nothing of weight changes.

    Args:
        optimizer: Option value, for example "adam".
        rule: As `MigratedOptimizer.rule`.
    """
    what = _CHANGED_RULES.get((optimizer, rule))
    if what is None:
        return None
    return f"the optimizer state was made by the {optimizer} of Keras, updates follow torch from here on ({what})"


@dataclass(frozen=True)
class MigratedModel:
    """A model as read from a file of another program."""

    source: Path
    format: str
    """Name of the format for people, for example "Keras 2 HDF5"."""
    plugin: str
    """Name of the architecture in that program; a native plugin of that name is tried first."""
    model_name: str
    """Plugin name, or a more precise one where a plugin covers several architectures."""
    description: GraphDescription
    outputs: tuple[tuple[int, ...], ...]
    """(C, H, W) of each output of one side."""
    tensors: Mapping[str, StoredTensor]
    """Parameters and buffers, named as in the `GraphNetwork` of the description."""
    state: Mapping[str, Any]
    """Keys of the state JSON; unknown ones under "legacy"."""
    optimizer: MigratedOptimizer | None = None
    color_order: str = "bgr"
    warnings: tuple[str, ...] = ()
    """What was dropped or doubtful, one line each."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Versions found in the file, kept with the model."""


@dataclass(frozen=True)
class LegacyFile:
    """What a file is, told without reading its graph or weights."""

    format: str
    """Format with its version, for people, for example "Keras HDF5, Keras 2.10.0"."""
    is_model: bool
    """False: a file of that kind which holds something else."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known, JSON values."""


class Converter(Protocol):
    """Reads one format."""

    format: str
    """Name of the format for people."""

    def recognises(self, path: Path) -> bool:
        """Whether `path`, a file or folder, is of this format. Looks at structure, never at the extension alone.

        Raises:
            FsdeployError: the file is of this family of formats but damaged or hostile.
        """

    def look(self, path: Path) -> LegacyFile:
        """Say what a recognised file is, as quickly and as safely as `recognises`.

        Raises:
            FsdeployError: it is damaged or hostile.
        """

    def read(self, path: Path, resources: ExitStack, with_optimizer: bool = True) -> MigratedModel:
        """Read the model. Tensors are read later; what that needs (temporary files) is kept open in `resources`.

        Raises:
            FsdeployError: the file cannot be migrated; names the reason.
        """


def find_converter(path: Path) -> Converter:
    """The installed converter that recognises a file or folder.

    Raises:
        InputError: there is no such path.
        UnsupportedFormatError: no converter knows the format.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: name a model file or the folder of a legacy model")
    names = []
    for point in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        try:
            converter: Converter = load_class(point, "converter")()
        except PluginError as error:
            warn_of_broken(error)
            continue
        names.append(converter.format)
        if converter.recognises(path):
            return converter
    known = "; ".join(names) or "none is installed"
    raise UnsupportedFormatError(f"{path} is of no known format ({known}): name the .h5 or .keras file or its folder")
