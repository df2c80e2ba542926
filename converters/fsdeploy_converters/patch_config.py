"""`PatchKerasConfig`: bring the description in an early Keras 3 file up to date, without Keras."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsdeploy import files
from fsdeploy.errors import InputError
from fsdeploy_converters import limits
from fsdeploy_converters.archive import Archive
from fsdeploy_converters.assign import stored_tensors
from fsdeploy_converters.errors import as_damage, shown, unsupported
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras3 import MOST_HDF5, check_size
from fsdeploy_converters.keras3_weights import find_weights
from fsdeploy_converters.keras_graph import Keras3Reader, is_triple
from fsdeploy_converters.layer_config import Dialect
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.translate import translate
from fsdeploy_converters.window import Window

_OWN_MODULE = "lib.model.nn_blocks"
_PLAIN_CLASSES = ("Conv2D", "DepthwiseConv2D")
_LAST_PATCHED = 3
"""Keras 3.3 is the last release whose files need it."""


class PatchKerasConfig:
    """Patches breaking changes between early and later Keras 3 in a `.keras` file.

    In files of Keras 3.0 to 3.3, convolutions that stand under a module of the original program become plain ones,
    and dots in layer names become underscores, wherever a name stands. Other files are left as they are. Migration does
    not need this: it reads both forms.

    Args:
        model_path: The `.keras` file.

    Example:
        >>> PatchKerasConfig("old_model/original.keras")()
    """

    def __init__(self, model_path: str) -> None:
        self._path = Path(model_path)

    def __call__(self) -> None:
        """Patch the file in place: the new file is written beside it and takes its name in one step.

        The file as it was is kept as `<file>.unpatched`.

        Raises:
            FsdeployError: no Keras 3 archive, a damaged one, or one that could not be read as a model after the patch;
                the file is untouched.
            InputError: there is a `<file>.unpatched` already, or the folder cannot be written.
        """
        archive = Archive(Window.whole(self._path), str(self._path))
        version = str(read_object(archive.read("metadata.json", 4 << 10), self._path).get("keras_version", ""))
        numbers = re.match(r"3\.(\d{1,4})\b", version)
        if not numbers:
            raise unsupported(self._path, "it is no Keras 3 file")
        if int(numbers[1]) > _LAST_PATCHED:
            return
        config = read_object(archive.read("config.json", limits.JSON_BYTES), self._path)
        if patch(config, str(self._path)):
            self._verify(archive, config)
            self._keep()
            self._replace(archive, json.dumps(config).encode("utf-8"))

    def _verify(self, archive: Archive, config: dict[str, Any]) -> None:
        """The patched description must be a model, and the weights in the file its weights."""
        source = str(self._path)
        root = Keras3Reader(source).read(config)
        translated = translate(root, Dialect.KERAS3, source)
        check_size(archive, translated, source)
        with archive.window_of("model.weights.h5", MOST_HDF5) as window:
            places = find_weights(Hdf5File(window, limits.KERAS3_HDF5, source), root, translated.slots)
            stored_tensors(places, translated.slots)

    def _keep(self) -> None:
        kept = self._path.with_name(f"{self._path.name}.unpatched")
        if kept.exists():
            raise InputError(f"{kept} exists already: it is the file from before an earlier patch, move it away")
        with files.atomic_path(kept) as temporary:
            shutil.copyfile(self._path, temporary)

    def _replace(self, archive: Archive, config: bytes) -> None:
        with files.atomic_path(self._path) as temporary, zipfile.ZipFile(temporary, "w") as target:
            for name, member in archive.members.items():
                with target.open(zipfile.ZipInfo(name), "w", force_zip64=member.size >= 1 << 31) as stream:
                    for chunk in [config] if name == "config.json" else archive.chunks(name):
                        stream.write(chunk)


def patch(config: dict[str, Any], source: str) -> bool:
    """Change a description in place; True when anything was changed.

    Raises:
        UnsupportedFormatError: two layers of a net would have one name; names `source`.
        CorruptModelError: it does not follow the format.
    """
    with as_damage(source, "graph"):
        return _patch_net(config["config"], source)


def _patch_net(net: dict[str, Any], source: str) -> bool:
    """Change a net and the nets in it: modules, names of layers, and every reference to a name."""
    changed = False
    names: set[str] = set()
    for layer in net["layers"]:
        if layer.get("module") == _OWN_MODULE and layer["class_name"] in _PLAIN_CLASSES:
            layer["module"], changed = "keras.layers", True
        changed |= _undot(layer, "name") | _undot(layer["config"], "name")
        for node in layer.get("inbound_nodes") or []:
            for history in _histories([node["args"], node.get("kwargs") or {}]):
                changed |= _undot(history, 0)
        if isinstance(layer["config"].get("layers"), list):
            changed |= _patch_net(layer["config"], source)
        name = layer.get("name", layer["config"].get("name"))
        if name in names:
            raise unsupported(source, f"two layers would be called {shown(name)}, were its dots underscores")
        names.add(name)
    for key in ("input_layers", "output_layers"):
        for reference in _references(net[key]):
            changed |= _undot(reference, 0)
    return changed


def _undot(holder: Any, key: str | int) -> bool:
    name = holder[key] if isinstance(key, int) else holder.get(key)
    if not isinstance(name, str) or "." not in name:
        return False
    holder[key] = name.replace(".", "_")
    return True


def _histories(value: Any) -> Iterator[list[Any]]:
    """Every `keras_history` in the arguments of a call, however they are nested."""
    if isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history:
            yield history
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _histories(entry)


def _references(value: Any) -> Iterator[list[Any]]:
    """Every [name, call, output] in a list that may be one itself."""
    if is_triple(value):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _references(entry)
