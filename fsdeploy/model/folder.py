"""A model folder as a whole: load one, or write one without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fsdeploy import __version__
from fsdeploy.errors import InputError, ReplacedError
from fsdeploy.model.base import ModelBase
from fsdeploy.model.info import ModelInfo
from fsdeploy.model.lock import FolderLock
from fsdeploy.model.registry import model_class
from fsdeploy.model.saved_set import FileSet, model_names_in
from fsdeploy.model.state import State
from fsdeploy.model.tensor_file import to_host, write_tensors
from fsdeploy.model.weights import until_one_save


def model_name_in(folder: Path) -> str:
    """The plugin name of the model in a folder.

    Raises:
        InputError: no folder, no model in it, or several.
    """
    if not folder.exists():
        raise InputError(f"{folder} does not exist: name the folder of a trained model")
    if not folder.is_dir():
        legacy_file = folder.suffix.lower() in (".h5", ".keras")
        remedy = f"run 'fsdeploy migrate {folder}' first" if legacy_file else "name the folder of a trained model"
        raise InputError(f"{folder} is {'a legacy model' if legacy_file else 'not a folder'}: {remedy}")
    names = model_names_in(folder)
    legacy = sorted(path.name for path in folder.iterdir() if path.suffix in (".h5", ".keras"))
    if legacy and not any(folder.glob("*.safetensors*")):  # its state file has the same name as ours
        raise InputError(f"{folder} holds no model: {legacy[0]} is a legacy model: run 'fsdeploy migrate' first")
    if not names:
        raise InputError(f"{folder} holds no model: a model folder has a file <plugin>_state.json")
    if len(names) > 1:
        raise InputError(f"{folder} holds several models ({', '.join(names)}): move each into its own folder")
    return names[0]


def load_model(folder: Path, predict: bool = True) -> ModelBase:
    """Load the model of a folder: the plugin named by its state, built, weights loaded.

    A damaged set is replaced by the last good one, with a warning. A training may save into the folder meanwhile:
    what is returned is one whole save.

    Raises:
        InputError: no model in the folder.
        UnknownModelError: its plugin is not installed.
        CorruptModelError: no set of the folder can be used.
        ReplacedError: it was saved anew each time it was tried.
    """

    def load() -> ModelBase:
        model = model_class(model_name_in(folder))(folder, predict=predict)
        try:
            model.build()
        except ReplacedError:  # options and iterations were of the save before
            model.close()
            raise
        return model

    return until_one_save(load)


def write_model_folder(
    folder: Path,
    state: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    optimizer: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
    *,
    model_name: str | None = None,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model folder from tensors, as one transaction, without training.

    Args:
        folder: New or empty folder, or one whose model is replaced (`overwrite`).
        state: Keys of the state JSON as the original system writes them, of any of its releases: "name", "sessions",
            "iterations", "lowest_avg_loss", "lr_finder", "config", ... ; unknown ones are kept under "legacy".
        weights: Parameter name -> tensor, as the plugin's network names them.
        optimizer: Tensors named "<parameter name>/<state key>", and JSON values.
        model_name: Name of the architecture where a plugin has several.
        extra: JSON values kept under the state's "fsdeploy" key.

    Raises:
        InputError: the folder holds a model already, is in use, or cannot be written.
        CorruptModelError: a state value has the wrong type.
    """
    name = str(state["name"])
    present = model_names_in(folder)
    if present and not overwrite:
        raise InputError(
            f"{folder} holds a model '{present[0]}' already: choose another folder or replace it with --force"
        )
    kept = State(folder, name, stored={**state, "fsdeploy": dict(extra or {})})
    metadata = {
        "plugin": name,
        "model_name": model_name or name,
        "version": __version__,
        "iterations": kept.iterations,
        "config": kept.config,
    }
    host = to_host(weights)
    write_optimizer = None
    if optimizer is not None:
        tensors, values = to_host(optimizer[0]), dict(optimizer[1])

        def write_optimizer(path: Path) -> None:
            write_tensors(path, tensors, values)

    with FolderLock(folder, name):
        FileSet(folder, name).commit(kept.to_dict(), lambda path: write_tensors(path, host, metadata), write_optimizer)


def model_info(folder: Path) -> ModelInfo:
    """The facts about the model of a folder, without loading its weights.

    Raises:
        InputError, UnknownModelError, CorruptModelError: as `load_model`.
    """
    model = model_class(model_name_in(folder))(folder, predict=True)
    return model.outline()
