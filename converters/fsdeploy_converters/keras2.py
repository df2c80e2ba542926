"""Keras 2 HDF5: one `.h5` with the graph, the weights and sometimes the optimizer (2020 to 2025)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from fsdeploy.model.migration import LegacyFile, MigratedModel
from fsdeploy_converters import limits
from fsdeploy_converters.assign import stored_tensors
from fsdeploy_converters.errors import shown, unsupported
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras2_optimizer import read_optimizer
from fsdeploy_converters.keras2_weights import Places, check_version, group_paths, holds_nets, leftovers
from fsdeploy_converters.keras_graph import Keras2Reader, KerasNet
from fsdeploy_converters.layer_config import Dialect
from fsdeploy_converters.legacy_state import migrated_state
from fsdeploy_converters.locate import is_hdf5, part_files, single_file, state_file
from fsdeploy_converters.look import look_at_hdf5
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.translate import Slot, translate
from fsdeploy_converters.window import Window

WEIGHTS = "model_weights"


class Converter:
    """One `.h5` file."""

    format = "Keras 2 HDF5 (.h5)"

    def recognises(self, path: Path) -> bool:
        file = _model_file(path)
        return file is not None and is_hdf5(file)

    def look(self, path: Path) -> LegacyFile:
        return look_at_hdf5(path)

    def read(self, path: Path, resources: ExitStack, with_optimizer: bool = True) -> MigratedModel:
        model = _model_file(path)
        assert model is not None
        file = Hdf5File(Window.whole(model), limits.KERAS2_HDF5, str(model))
        version = check_version(file)
        config = file.text("", "model_config")
        if config is None:
            raise unsupported(model, "it holds weights without a graph (no model_config)")
        root = Keras2Reader(str(model)).read(read_object(config, model))
        translated = translate(root, Dialect.KERAS2, str(model))
        places = place_weights(file, root, translated.slots)
        tensors = stored_tensors(places, translated.slots)
        warnings = list(translated.warnings)
        if unused := leftovers(file, WEIGHTS, (place for _, place in places.values())):
            warnings.append(f"{len(unused)} arrays belong to no layer and are dropped, {shown(unused[0])} first")
        optimizer, notes = (None, []) if not with_optimizer else read_optimizer(file, places, translated.slots)
        state = migrated_state(state_file(model), root, translated.has_mask, ("face", 87.5))
        return MigratedModel(
            model,
            self.format,
            state.plugin,
            root.name,
            translated.description,
            translated.outputs,
            tensors,
            state.values,
            optimizer,
            state.color_order,
            (*warnings, *notes, *state.warnings),
            {"format": "keras2", "keras_version": version},
        )


def _model_file(path: Path) -> Path | None:
    """The file that a path names, None when it is one part of a model. A whole model may bear the name of a part."""
    parts = part_files(path)
    if not parts:
        return single_file(path)
    named = path if path.is_file() else next(iter(parts.values())) if len(parts) == 1 else None
    return named if named is not None and is_hdf5(named) and holds_nets(named) else None


def place_weights(file: Hdf5File, root: KerasNet, slots: tuple[Slot, ...]) -> Places:
    """Dataset of each variable, group by group of the top net.

    Raises:
        CorruptModelError: a list of weights does not fit the graph.
    """
    places: Places = {}
    for name in root.layers:
        own = [slot for slot in slots if slot.path[0] == name]
        if own or f"{WEIGHTS}/{name}" in file.children:
            places |= group_paths(file, f"{WEIGHTS}/{name}", own)
    return places
