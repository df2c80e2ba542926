"""Migration of one model, the same for every format: read, find the native plugin, check, write the folder, report."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsdeploy import __version__
from fsdeploy.errors import InputError
from fsdeploy.files import sync_folder
from fsdeploy.model.graph.network import GraphNetwork
from fsdeploy.model.lock import FolderLock
from fsdeploy.model.migration import MigratedModel, MigratedOptimizer, find_converter
from fsdeploy.model.native_fit import NativeFit, fit_native, load_on
from fsdeploy.model.saved_set import FileSet
from fsdeploy.model.state import State
from fsdeploy.model.tensor_stream import StoredTensor, stream_tensors

logger = logging.getLogger(__name__)

IMPORTED = "imported"
"""Plugin of models whose graph is kept as it came."""


@dataclass(frozen=True)
class PartSummary:
    """Figures of one part of the network, to compare with what one knows of the model."""

    name: str
    tensors: int
    parameters: int
    minimum: float
    maximum: float
    mean: float


@dataclass(frozen=True)
class MigrationReport:
    """What was found and what became of it."""

    source: str
    format: str
    plugin: str
    """Plugin of the model folder."""
    model_name: str
    """Name of the architecture in the source."""
    output: str | None
    """The folder; None for a dry run."""
    iterations: int
    input_size: int
    outputs: list[list[int]]
    """[channels, H, W] of each output of one side."""
    parts: list[PartSummary]
    optimizer: str
    """What became of the optimizer state, in words."""
    native_difference: float | None
    """Largest difference between the file's graph and the native plugin on random faces; None when kept as a graph."""
    reference_difference: dict[str, float]
    """Largest difference from reference outputs by direction; empty when none were given."""
    kept_under_legacy: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Migration:
    """A model read into memory, ready to be checked and written. The optimizer's tensors are still in the file."""

    model: MigratedModel
    tensors: Mapping[str, Tensor]
    fit: NativeFit | None

    @property
    def plugin(self) -> str:
        """Plugin of the folder."""
        return self.fit.plugin if self.fit else IMPORTED

    def network(self) -> GraphNetwork:
        """The file's graph around the tensors."""
        return load_on(GraphNetwork, self.tensors, self.model.description)

    def names(self) -> dict[str, str]:
        """Parameter of the graph -> parameter in the folder."""
        return dict(self.fit.names) if self.fit else {name: name for name in self.tensors}


@contextmanager
def open_migration(path: Path, with_optimizer: bool = True) -> Iterator[Migration]:
    """Read a legacy model; the source is only read and stays open while the context lasts.

    Raises:
        FsdeployError: the path is no legacy model, or one that cannot be migrated; names the reason.
    """
    converter = find_converter(path)
    with ExitStack() as resources:
        model = converter.read(path, resources, with_optimizer)
        tensors = {name: torch.from_numpy(tensor.read()) for name, tensor in model.tensors.items()}
        load_on(GraphNetwork, tensors, model.description)  # every tensor of the network must be there
        stored = {**model.state.get("legacy", {}).get("config", {}), **model.state["config"]}
        yield Migration(model, tensors, fit_native(model, tensors, stored))


def check_output(output: Path) -> Path:
    """The folder that `write_migration` would write, with links followed.

    Raises:
        InputError: it exists with files in it, or cannot be looked at.
    """
    try:
        folder = output.resolve()
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(f"cannot write {output}: {error}: choose another folder with -o") from error
    if taken:
        raise InputError(f"{output} exists already: choose another folder with -o, or move it away")
    return folder


def write_migration(migration: Migration, output: Path) -> None:
    """Write the model folder: it appears complete or not at all. One that exists and is empty is filled, not replaced.

    Raises:
        InputError: the folder exists with files in it, or cannot be written.
    """
    folder = check_output(output)
    # A folder that exists may be a mount point, or the one the user stands in: it cannot be replaced by another.
    exists = folder.is_dir()
    temporary = (folder if exists else folder.parent) / f".{folder.name}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        _write_set(migration, temporary)
        if exists:
            _move_files(temporary, folder)
        else:
            temporary.rename(folder)
    except OSError as error:
        raise InputError(
            f"cannot write {output}: {error.strerror or error}: check its permissions and space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_files(source: Path, folder: Path) -> None:
    """Move the files of a set into the folder around `source`: all, or none."""
    if any(entry != source for entry in folder.iterdir()):
        raise InputError(f"{folder} was filled by another program meanwhile: choose another folder with -o")
    moved: list[Path] = []
    try:
        # The state JSON is what makes a set of the files: it comes last.
        for file in sorted(source.iterdir(), key=lambda file: file.suffix == ".json"):
            moved.append(file.rename(folder / file.name))
        sync_folder(folder)
    except BaseException:
        for file in moved:
            file.unlink(missing_ok=True)
        raise


def _write_set(migration: Migration, folder: Path) -> None:
    model, plugin = migration.model, migration.plugin
    state = {**model.state, "name": plugin, "config": stored_config(migration), "fsdeploy": _extra(migration)}
    state["legacy"] = legacy_values(migration)
    kept = State(folder, plugin, stored=state)
    metadata = {
        "plugin": plugin,
        "model_name": model.model_name if plugin == IMPORTED else plugin,
        "version": __version__,
        "iterations": kept.iterations,
        "input_size": model.description.net.inputs[0][-1],
        "color_order": model.color_order,
        "config": kept.config,
    }
    names = migration.names()
    weights = {names[name]: _held(tensor) for name, tensor in migration.tensors.items()}
    write_optimizer = None
    if model.optimizer is not None:
        slots, values = optimizer_tensors(model.optimizer, names), model.optimizer.values

        def write_optimizer(path: Path) -> None:
            stream_tensors(path, slots, values)

    with FolderLock(folder, plugin):
        FileSet(folder, plugin).commit(
            kept.to_dict(), lambda path: stream_tensors(path, weights, metadata), write_optimizer
        )
    for lock in folder.glob(".*.lock"):
        lock.unlink()


def _held(tensor: Tensor) -> StoredTensor:
    return StoredTensor(tuple(tensor.shape), tensor.numpy)


def optimizer_tensors(optimizer: MigratedOptimizer, names: Mapping[str, str]) -> dict[str, StoredTensor]:
    """Tensors named "<parameter>/<state key>", as an optimizer of ours saves them."""
    return {
        f"{names[parameter]}/{key}": tensor
        for parameter, entries in optimizer.slots.items()
        for key, tensor in entries.items()
    }


def stored_config(migration: Migration) -> dict[str, Any]:
    """Options of the folder: those of the state file, corrected by what graph and optimizer really are."""
    model = migration.model
    config = dict(model.state["config"])
    if migration.fit:
        config |= migration.fit.options
    if model.optimizer is not None:
        config |= {**model.optimizer.config, "optimizer": model.optimizer.name}
    return config


def legacy_values(migration: Migration) -> dict[str, Any]:
    """What the state file held that has no meaning here; options of the native plugin do."""
    legacy = dict(migration.model.state.get("legacy", {}))
    known = stored_config(migration)
    if left := {key: value for key, value in legacy.pop("config", {}).items() if key not in known}:
        legacy["config"] = left
    return legacy


def _extra(migration: Migration) -> dict[str, Any]:
    model = migration.model
    extra: dict[str, Any] = {"origin": {**model.origin, "model_name": model.model_name, "plugin": model.plugin}}
    if model.optimizer is not None:
        extra["origin"]["optimizer_rule"] = model.optimizer.rule
    if migration.plugin == IMPORTED:
        extra |= {"graph": model.description.to_json(), "color_order": model.color_order}
    return extra


def report(
    migration: Migration, output: Path | None, with_optimizer: bool, references: Mapping[str, float] | None = None
) -> MigrationReport:
    """The figures of a migration, computed from what was read."""
    model = migration.model
    return MigrationReport(
        source=str(model.source),
        format=model.format,
        plugin=migration.plugin,
        model_name=model.model_name,
        output=None if output is None else str(output),
        iterations=int(model.state.get("iterations", 0)),
        input_size=model.description.net.inputs[0][-1],
        outputs=[list(shape) for shape in model.outputs],
        parts=summaries(migration.tensors),
        optimizer=_optimizer_words(model.optimizer, with_optimizer),
        native_difference=migration.fit.difference if migration.fit else None,
        reference_difference=dict(references or {}),
        kept_under_legacy=_legacy_keys(legacy_values(migration)),
        warnings=list(model.warnings),
    )


def _optimizer_words(optimizer: MigratedOptimizer | None, wanted: bool) -> str:
    if not wanted:
        return "left out as asked"
    if optimizer is None:
        return "none: starts new"
    scaled = ", loss scale kept" if optimizer.values.get("scaler") else ""
    return f"{optimizer.name}, {optimizer.steps} updates, {len(optimizer.slots)} parameters{scaled}"


def _legacy_keys(legacy: Mapping[str, Any]) -> list[str]:
    inner = [f"config.{key}" for key in legacy.get("config", {})]
    return sorted([*(key for key in legacy if key not in ("config", "sessions")), *inner])


def summaries(tensors: Mapping[str, Tensor]) -> list[PartSummary]:
    """Counts and ranges of each part of the network."""
    groups: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(name.partition(".")[0], []).append(tensor)
    return [
        PartSummary(
            name,
            len(group),
            count := sum(tensor.numel() for tensor in group),
            min(float(low) for low, _ in ranges),
            max(float(high) for _, high in ranges),
            sum(float(tensor.mean()) * tensor.numel() for tensor in group) / count,
        )
        for name, group in groups.items()
        if (ranges := [torch.aminmax(tensor) for tensor in group])
    ]


def to_json(found: MigrationReport) -> dict[str, Any]:
    """The report as JSON values."""
    return dataclasses.asdict(found)
