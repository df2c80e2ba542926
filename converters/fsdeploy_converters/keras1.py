"""Standalone Keras 2.2: each network in an `.h5` of its own, with its graph (2019 to 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from fsdeploy.model.migration import LegacyFile, MigratedModel
from fsdeploy_converters import limits
from fsdeploy_converters.assign import stored_tensors
from fsdeploy_converters.errors import damaged, shown, unsupported
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras2_weights import Places, check_version, group_paths, holds_nets
from fsdeploy_converters.keras_graph import Keras2Reader, KerasNet
from fsdeploy_converters.layer_config import Dialect
from fsdeploy_converters.legacy_state import migrated_state
from fsdeploy_converters.locate import is_hdf5, part_files, prefix_of, state_file
from fsdeploy_converters.look import look_at_hdf5
from fsdeploy_converters.part_nets import compose, wiring
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.translate import translate
from fsdeploy_converters.window import Window

WEIGHTS = "model_weights"


class Converter:
    """`<plugin>_encoder.h5`, `<plugin>_decoder_A.h5`, `<plugin>_decoder_B.h5`, ..."""

    format = "Keras 2.2, one .h5 for each network"

    def recognises(self, path: Path) -> bool:
        files = part_files(path)
        first = next(iter(files.values()), None)
        if first is None or not is_hdf5(first):
            return False
        if Hdf5File(Window.whole(first), limits.KERAS2_HDF5, str(first)).names("", "layer_names") is not None:
            return False
        return not holds_nets(path if path.is_file() else first)

    def look(self, path: Path) -> LegacyFile:
        return look_at_hdf5(path)

    def read(self, path: Path, resources: ExitStack, with_optimizer: bool = True) -> MigratedModel:
        paths = part_files(path)
        wiring(paths, str(path))
        files = {part: Hdf5File(Window.whole(file), limits.KERAS2_HDF5, str(file)) for part, file in paths.items()}
        nets = {part: _net(file) for part, file in files.items()}
        version = {check_version(file) for file in files.values()}
        first = next(iter(paths.values()))
        composition = compose(nets, str(path), prefix_of(first))
        translated = translate(composition.root, Dialect.KERAS1, str(path))
        places: Places = {}
        for part, net in nets.items():
            name = composition.names[part]
            for layer in net.layers:
                own = [slot for slot in translated.slots if slot.path == (name, layer)]
                places |= group_paths(files[part], f"{WEIGHTS}/{layer}", own)
        tensors = stored_tensors(places, translated.slots)
        state = migrated_state(state_file(first), _plugin(first, nets), translated.has_mask, ("legacy", 68.75))
        return MigratedModel(
            path,
            self.format,
            state.plugin,
            state.plugin,
            translated.description,
            translated.outputs,
            tensors,
            state.values,
            None,
            state.color_order,
            (*translated.warnings, *state.warnings),
            {"format": "keras1", "keras_version": ", ".join(sorted(version))},
        )


def _plugin(first: Path, nets: Mapping[str, KerasNet]) -> str:
    return prefix_of(first).lower() or ("iae" if "inter" in nets else "original")


def _net(file: Hdf5File) -> KerasNet:
    config = file.text("", "model_config")
    if config is None:
        raise unsupported(file.source, "it holds weights without a graph (no model_config)")
    net = Keras2Reader(file.source).read(read_object(config, file.source))
    if any(layer.net is not None for layer in net.layers.values()):
        raise damaged(file.source, f"{shown(net.name)} holds a network inside a network")
    return net
