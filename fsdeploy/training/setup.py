"""From what a user typed to a model that is ready to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsdeploy.config.file import OptionValues, parse_settings, read_file
from fsdeploy.config.option import check_value, specs
from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import ConfigError, CorruptModelError, InputError
from fsdeploy.model.base import ModelBase
from fsdeploy.model.registry import usable_models
from fsdeploy.model.saved_set import BACKUP, FileSet, model_names_in, read_state
from fsdeploy.training.data.files import get_sorted_images

DEFAULT_PLUGIN = "original"


def check_folders(folders: Sequence[Path]) -> None:
    """Refuse folders that are missing, cannot be read or hold no PNG, before anything is created.

    Raises:
        InputError: names the folder.
    """
    for folder in folders:
        if not get_sorted_images(str(folder)):
            raise InputError(f"{folder} holds no PNG files: name a folder of extracted faces")


def choose_plugin(folder: Path, asked: str | None) -> str:
    """The model plugin of a run: the one asked for, else that of the model in the folder, else `DEFAULT_PLUGIN`.

    Raises:
        InputError: none was asked for and the folder holds several models.
    """
    if asked is not None:
        return asked
    present = model_names_in(folder)
    if len(present) > 1:
        raise InputError(f"{folder} holds several models ({', '.join(present)}): name one of these plugins with -t")
    return present[0] if present else DEFAULT_PLUGIN


def known_plugins() -> dict[str, type]:
    """Model plugin -> its options dataclass, of all installed plugins that can be used."""
    return {name: model.Options for name, model in usable_models().items()}


def gather_options(
    model: type[ModelBase], model_dir: Path | None, file: Path | None, settings: Sequence[str]
) -> tuple[TrainingOptions, Any]:
    """The options of a run: defaults, then what an existing model was trained with, then the file, then settings.

    Args:
        model: The plugin.
        model_dir: The model's folder, new or existing.
        file: Configuration file.
        settings: `name=value` each.

    Returns:
        All training options, and the plugin's own.

    Raises:
        ConfigError: unknown option or invalid value.
    """
    values = OptionValues() if file is None else read_file(file, known_plugins())
    given = parse_settings(settings, model.name, model.Options)
    stored = {} if model_dir is None else _stored_config(model_dir, model.name)
    training = _valid(stored, TrainingOptions().flat(), _training_specs()) | values.training | given.training
    own_specs = specs(model.Options)
    own = _valid(stored, own_specs, own_specs) | values.plugins.get(model.name, {}) | given.plugins[model.name]
    return TrainingOptions.from_flat(training), model.Options(**own)


def _training_specs() -> dict[str, Any]:
    defaults = TrainingOptions()
    return {
        name: entry
        for section in dataclasses.fields(TrainingOptions)
        for name, entry in specs(type(getattr(defaults, section.name))).items()
    }


def _stored_config(folder: Path, name: str) -> dict[str, Any]:
    for suffix in ("", BACKUP):
        path = FileSet(folder, name, suffix).state
        if path.is_file():
            try:
                return dict(read_state(path)["config"])
            except (CorruptModelError, KeyError, TypeError):
                continue  # the model itself reports it when it is opened
    return {}


def _valid(stored: dict[str, Any], names: Any, known: dict[str, Any]) -> dict[str, Any]:
    """The stored values that are still possible; the model reports the others when it is opened."""
    kept = {}
    for name in names:
        if name in stored:
            kind, _, spec = known[name]
            try:
                kept[name] = check_value(name, kind, spec, stored[name])
            except (ConfigError, TypeError):
                continue
    return kept
