"""`PatchKerasConfig`: bring the description in an early Keras 3 file up to date, without Keras."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsdeploy import files
from fsdeploy_converters import limits
from fsdeploy_converters.archive import Archive
from fsdeploy_converters.errors import unsupported
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.window import Window

_OWN_MODULE = "lib.model.nn_blocks"
_PLAIN_CLASSES = ("Conv2D", "DepthwiseConv2D")
_LAST_PATCHED = 3
"""Keras 3.3 is the last release whose files need it."""


class PatchKerasConfig:
    """Patches breaking changes between early and later Keras 3 in a `.keras` file.

    In files of Keras 3.0 to 3.3, convolutions that stand under a module of the original program become plain ones,
    and dots in layer names become underscores. Other files are left as they are. Migration does not need this: it
    reads both forms.

    Args:
        model_path: The `.keras` file.

    Example:
        >>> PatchKerasConfig("old_model/original.keras")()
    """

    def __init__(self, model_path: str) -> None:
        self._path = Path(model_path)

    def __call__(self) -> None:
        """Patch the file in place: the new file is written beside it and takes its name in one step.

        Raises:
            FsdeployError: no Keras 3 archive, or a damaged one; the file is untouched.
        """
        archive = Archive(Window.whole(self._path), str(self._path))
        version = str(read_object(archive.read("metadata.json", 4 << 10), self._path).get("keras_version", ""))
        numbers = re.match(r"3\.(\d{1,4})\b", version)
        if not numbers:
            raise unsupported(self._path, "it is no Keras 3 file")
        if int(numbers[1]) > _LAST_PATCHED:
            return
        config = read_object(archive.read("config.json", limits.JSON_BYTES), self._path)
        if patch(config):
            self._replace(archive, json.dumps(config).encode("utf-8"))

    def _replace(self, archive: Archive, config: bytes) -> None:
        with files.atomic_path(self._path) as temporary, zipfile.ZipFile(temporary, "w") as target:
            for name, member in archive.members.items():
                with target.open(zipfile.ZipInfo(name), "w", force_zip64=member.size >= 1 << 31) as stream:
                    for chunk in [config] if name == "config.json" else archive.chunks(name):
                        stream.write(chunk)


def patch(config: dict[str, Any]) -> bool:
    """Change a description in place; True when anything was changed."""
    changed = False
    for layer in _layers(config):
        if layer.get("module") == _OWN_MODULE and layer.get("class_name") in _PLAIN_CLASSES:
            layer["module"], changed = "keras.layers", True
        changed |= _undot(layer, "name")
        if isinstance(layer.get("config"), dict):
            changed |= _undot(layer["config"], "name")
        for node in layer.get("inbound_nodes") or []:
            for history in _histories(node.get("args") if isinstance(node, dict) else None):
                if "." in str(history[0]):
                    history[0], changed = str(history[0]).replace(".", "_"), True
    return changed


def _layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All layers of a description, nested nets included."""
    net = config.get("config")
    for layer in (net.get("layers") or []) if isinstance(net, dict) else []:
        if isinstance(layer, dict):
            yield layer
            yield from _layers(layer)


def _undot(holder: dict[str, Any], key: str) -> bool:
    name = holder.get(key)
    if not isinstance(name, str) or "." not in name:
        return False
    holder[key] = name.replace(".", "_")
    return True


def _histories(value: Any) -> Iterator[list[Any]]:
    """Every `keras_history` in the arguments of a call."""
    if isinstance(value, list):
        for entry in value:
            yield from _histories(entry)
    elif isinstance(value, dict):
        config = value.get("config")
        history = config.get("keras_history") if isinstance(config, dict) else None
        if isinstance(history, list) and history:
            yield history
