"""Keras 3 `.keras` archives whose optimizer, if any, lies in the HDF5 member (December 2025 to May 2026)."""

from __future__ import annotations

import dataclasses
import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy.model.migration import LegacyFile, MigratedModel, MigratedOptimizer
from fsdeploy_converters import limits
from fsdeploy_converters.archive import Archive
from fsdeploy_converters.assign import stored_tensors
from fsdeploy_converters.errors import hostile, shown, unsupported
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras3_optimizer import read_optimizer
from fsdeploy_converters.keras3_weights import find_weights
from fsdeploy_converters.keras_graph import Keras3Reader
from fsdeploy_converters.layer_config import Dialect
from fsdeploy_converters.legacy_state import migrated_state
from fsdeploy_converters.locate import is_zip, single_file, state_file
from fsdeploy_converters.look import look_at_archive
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.translate import Slot, Translated, translate
from fsdeploy_converters.window import Window

OPTIMIZER = "optimizer.pt"
_KNOWN_MEMBERS = ("metadata.json", "config.json", "model.weights.h5", OPTIMIZER)
MOST_HDF5 = 32 << 30
_NEWEST_SEEN = (3, 14)


@dataclass(frozen=True)
class Opened:
    """A `.keras` file: everything but the optimizer."""

    path: Path
    archive: Archive
    config: dict[str, Any]
    translated: Translated
    places: dict[Slot, tuple[Hdf5File, str]]
    file: Hdf5File
    model: MigratedModel


class Converter:
    """A `.keras` archive without a torch optimizer."""

    format = "Keras 3 archive (.keras)"

    def recognises(self, path: Path) -> bool:
        archive = archive_of(path)
        return archive is not None and OPTIMIZER not in archive.members

    def look(self, path: Path) -> LegacyFile:
        return look_at_archive(path)

    def read(self, path: Path, resources: ExitStack, with_optimizer: bool = True) -> MigratedModel:
        opened = open_archive(path, resources, self.format)
        if not with_optimizer:
            return opened.model
        return with_state(opened.model, *read_optimizer(opened.file, opened.config, opened.translated.slots))


def archive_of(path: Path) -> Archive | None:
    """The archive that a path names, None when it names none."""
    file = single_file(path)
    return Archive(Window.whole(file), str(file)) if file is not None and is_zip(file) else None


def with_state(model: MigratedModel, optimizer: MigratedOptimizer | None, notes: list[str]) -> MigratedModel:
    """The model with its optimizer, or with the reason why there is none."""
    return dataclasses.replace(model, optimizer=optimizer, warnings=(*model.warnings, *notes))


def open_archive(path: Path, resources: ExitStack, format_name: str) -> Opened:
    """Read everything but the optimizer.

    Raises:
        FsdeployError: the file cannot be migrated; names the reason.
    """
    file_path = single_file(path)
    assert file_path is not None
    source = str(file_path)
    archive = Archive(Window.whole(file_path), source)
    if "model.weights.h5" not in archive.members and any(name.startswith("model.weights.") for name in archive.members):
        raise unsupported(source, "its weights are not stored as HDF5 but as another kind that Keras can write")
    version, notes = _version(archive, source)
    config = read_object(archive.read("config.json", limits.JSON_BYTES), source)
    root = Keras3Reader(source).read(config)
    translated = translate(root, Dialect.KERAS3, source)
    check_size(archive, translated, source)
    window = resources.enter_context(archive.window_of("model.weights.h5", MOST_HDF5))
    file = Hdf5File(window, limits.KERAS3_HDF5, source)
    places = find_weights(file, root, translated.slots)
    tensors = stored_tensors(places, translated.slots)
    state = migrated_state(state_file(file_path), root, translated.has_mask, ("face", 100.0))
    unknown = [name for name in archive.members if name not in _KNOWN_MEMBERS]
    if unknown:
        notes.append(f"{len(unknown)} unknown members of the archive are ignored, {shown(unknown[0])} first")
    model = MigratedModel(
        file_path,
        format_name,
        state.plugin,
        root.name,
        translated.description,
        translated.outputs,
        tensors,
        state.values,
        None,
        state.color_order,
        (*translated.warnings, *notes, *state.warnings),
        {"format": "keras3", "keras_version": version},
    )
    return Opened(file_path, archive, config, translated, places, file, model)


def _version(archive: Archive, source: str) -> tuple[str, list[str]]:
    version = str(read_object(archive.read("metadata.json", 4 << 10), source).get("keras_version", ""))
    numbers = re.match(r"3\.(\d{1,4})\b", version)
    if not numbers:
        raise unsupported(source, f"it was saved by Keras {shown(version)}, not 3.x")
    newer = (3, int(numbers[1])) > _NEWEST_SEEN
    return version, [f"it was saved by Keras {version}, newer than any file seen"] if newer else []


def check_size(archive: Archive, translated: Translated, source: str) -> None:
    """The HDF5 member may hold the weights, and with an optimizer a few times more."""
    weights = sum(4 * math.prod(slot.shape) for slot in translated.slots)
    claimed = archive.members["model.weights.h5"].size if "model.weights.h5" in archive.members else 0
    if claimed > 12 * 1.05 * weights + (64 << 20):
        raise hostile(source, f"its weights claim {claimed} bytes, its graph has {weights}")
