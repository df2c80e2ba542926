"""Finding model plugins: entry points of the group `fsdeploy.models`, and classes registered by a program."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from fsdeploy.config.entry_point import load_class, warn_of_broken
from fsdeploy.errors import PluginError, UnknownModelError

if TYPE_CHECKING:
    from fsdeploy.model.base import ModelBase

_GROUP = "fsdeploy.models"
_registered: dict[str, type[ModelBase]] = {}


def register(model: type[ModelBase]) -> type[ModelBase]:
    """Make a class known under its `name` for this process; usable as a decorator in notebooks and tests.

    A class defined again (a notebook cell run twice) replaces itself.

    Raises:
        ValueError: another class has that name already.
    """
    present = _registered.setdefault(model.name, model)
    if (present.__module__, present.__qualname__) != (model.__module__, model.__qualname__):
        raise ValueError(f"a model called '{model.name}' is registered already, by {present.__module__}")
    _registered[model.name] = model
    return model


def model_names() -> list[str]:
    """Names of all installed and registered models, sorted."""
    return sorted({*_registered, *(point.name for point in entry_points(group=_GROUP))})


def usable_models() -> dict[str, type[ModelBase]]:
    """Every installed and registered model by name; broken plugins are passed over with a warning."""
    found = {}
    for name in model_names():
        try:
            found[name] = model_class(name)
        except UnknownModelError as error:
            warn_of_broken(error)
    return found


def model_class(name: str) -> type[ModelBase]:
    """The plugin class of a model name; "-" counts as "_".

    Raises:
        UnknownModelError: no such plugin (names the nearest), or it cannot be imported or is no model.
    """
    wanted = name.lower().replace("-", "_")
    if wanted in _registered:
        return _registered[wanted]
    for point in entry_points(group=_GROUP, name=wanted):
        from fsdeploy.model.base import ModelBase  # it needs torch, which listing names does not

        try:
            found: type[ModelBase] = load_class(point, "model", ModelBase)
        except PluginError as error:
            raise UnknownModelError(str(error)) from error
        if found.name != wanted:  # a saved model names its plugin by the class's name
            raise UnknownModelError(
                f"the model plugin '{wanted}' calls itself '{found.name}': rename its file or set `name` in its class"
            )
        return found
    names = model_names()
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(names)}"
    raise UnknownModelError(f"no model plugin is called '{name}': {hint}")
