"""The first files: weights without a graph, one `.h5` for each network of `original` (2018 to February 2019)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fsdeploy.model.migration import LegacyFile, MigratedModel
from fsdeploy_converters import limits
from fsdeploy_converters.assign import stored_tensors
from fsdeploy_converters.errors import damaged, shown
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras2_weights import Places, check_version, group_paths
from fsdeploy_converters.keras_graph import KerasCall, KerasLayer, KerasNet, Ref
from fsdeploy_converters.layer_config import Dialect
from fsdeploy_converters.legacy_state import migrated_state
from fsdeploy_converters.locate import is_hdf5, part_files, prefix_of, state_file
from fsdeploy_converters.look import look_at_hdf5
from fsdeploy_converters.part_nets import compose, wiring
from fsdeploy_converters.translate import translate
from fsdeploy_converters.window import Window

_SLOPE = 0.1
_EDGE = 4
"""Edge of the image that the encoder's second dense layer gives."""


class Converter:
    """`encoder.h5`, `decoder_A.h5`, `decoder_B.h5` without graphs."""

    format = "Keras weights only, one .h5 for each network"

    def recognises(self, path: Path) -> bool:
        first = next(iter(part_files(path).values()), None)
        if first is None or not is_hdf5(first):
            return False
        return Hdf5File(Window.whole(first), limits.KERAS2_HDF5, str(first)).names("", "layer_names") is not None

    def look(self, path: Path) -> LegacyFile:
        return look_at_hdf5(path)

    def read(self, path: Path, resources: ExitStack, with_optimizer: bool = True) -> MigratedModel:
        paths = part_files(path)
        wiring(paths, str(path))
        files = {part: Hdf5File(Window.whole(file), limits.KERAS2_HDF5, str(file)) for part, file in paths.items()}
        version = {check_version(file) for file in files.values()}
        builders = {"encoder": _encoder, "decoder_A": _decoder, "decoder_B": _decoder}
        nets = {part: builders[part](file, part) for part, file in files.items() if part in builders}
        composition = compose(nets, str(path), "original")
        translated = translate(composition.root, Dialect.KERAS1, str(path))
        places: Places = {}
        for slot in {slot.path: slot for slot in translated.slots}.values():
            part = next(part for part, name in composition.names.items() if name == slot.path[0])
            own = [other for other in translated.slots if other.path == slot.path]
            places |= group_paths(files[part], slot.path[1], own)
        tensors = stored_tensors(places, translated.slots)
        first = next(iter(paths.values()))
        state = migrated_state(state_file(first), "original", translated.has_mask, ("legacy", 62.5))
        prefix = prefix_of(first)
        notes = () if prefix in ("", "lowmem", "original") else (f"the name {shown(prefix)} is taken for 'original'",)
        return MigratedModel(
            path,
            self.format,
            "original",
            "original",
            translated.description,
            translated.outputs,
            tensors,
            state.values,
            None,
            state.color_order,
            (*translated.warnings, *notes, *state.warnings),
            {"format": "keras0", "keras_version": ", ".join(sorted(version))},
        )


class _Chain:
    """A net put together layer by layer: the graph that every file of this generation has, widths from its arrays."""

    def __init__(self, name: str, shape: list[int | None]) -> None:
        self._name = name
        self._layers = {"input": KerasLayer("InputLayer", "input", {"batch_input_shape": shape}, ())}
        self._last = "input"

    def add(self, class_name: str, name: str, **config: Any) -> None:
        call = KerasCall((Ref(self._last, 0, 0),))
        self._layers[name] = KerasLayer(class_name, name, config, (call,))
        self._last = name

    def conv(self, name: str, filters: int, kernel: int, stride: int, activation: str = "linear") -> None:
        size, strides = [kernel, kernel], [stride, stride]
        self.add(
            "Conv2D", name, filters=filters, kernel_size=size, strides=strides, padding="same", activation=activation
        )

    def upscale(self, name: str, filters: int) -> None:
        self.conv(name, filters, 3, 1)
        self.add("LeakyReLU", f"{name} slope", alpha=_SLOPE)
        self.add("PixelShuffler", f"{name} shuffle", size=[2, 2])

    def net(self) -> KerasNet:
        return KerasNet(self._name, self._layers, (Ref("input", 0, 0),), (Ref(self._last, 0, 0),))


def _kernels(file: Hdf5File) -> list[tuple[str, tuple[int, ...]]]:
    """Layers that have weights, in the file's order, with the shape of their kernel."""
    found = []
    for layer in file.names("", "layer_names") or []:
        names = file.names(layer, "weight_names") or []
        stored = file.datasets.get(f"{layer}/{names[0]}") if names else None
        if stored is not None:
            found.append((layer, stored.shape))
    return found


def _encoder(file: Hdf5File, part: str) -> KerasNet:
    kernels = _kernels(file)
    ranks = [len(shape) for _, shape in kernels]
    if len(ranks) not in (6, 7) or ranks[-3:] != [2, 2, 4] or set(ranks[:-3]) != {4}:
        raise damaged(file.source, f"its {len(ranks)} layers are not those of an encoder")
    chain = _Chain(part, [None, 64, 64, 3])
    for name, shape in kernels[:-3]:
        chain.conv(name, shape[-1], 5, 2)
        chain.add("LeakyReLU", f"{name} slope", alpha=_SLOPE)
    (narrow, first), (wide, second), (upscale, last) = kernels[-3:]
    chain.add("Flatten", "flatten")
    chain.add("Dense", narrow, units=first[1])
    chain.add("Dense", wide, units=second[1])
    chain.add("Reshape", "reshape", target_shape=[_EDGE, _EDGE, second[1] // (_EDGE * _EDGE)])
    chain.upscale(upscale, last[-1])
    return chain.net()


def _decoder(file: Hdf5File, part: str) -> KerasNet:
    kernels = _kernels(file)
    if len(kernels) < 2 or any(len(shape) != 4 for _, shape in kernels):
        raise damaged(file.source, f"its {len(kernels)} layers are not those of a decoder")
    chain = _Chain(part, [None, 8, 8, kernels[0][1][2]])
    for name, shape in kernels[:-1]:
        chain.upscale(name, shape[-1])
    chain.conv(kernels[-1][0], kernels[-1][1][-1], 5, 1, "sigmoid")
    return chain.net()
