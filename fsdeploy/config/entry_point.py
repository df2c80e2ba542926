"""Loading what installed packages name in entry points: a package that is broken costs its own plugins only."""

from __future__ import annotations

import inspect
import logging
from importlib.metadata import EntryPoint

from fsdeploy.errors import InputError, PluginError

logger = logging.getLogger(__name__)

_told: set[str] = set()


def load_class(point: EntryPoint, kind: str, base: type | None = None) -> type:
    """The class that an entry point names.

    Args:
        kind: what it is to be, for people: "model", "color", ...
        base: what it must derive from; None where any class will do.

    Raises:
        PluginError: it cannot be imported, or is not of that kind; names the package it comes from.
    """
    try:
        found = point.load()
    except Exception as error:  # importing a stranger's module may raise anything
        raise PluginError(
            f"the {kind} plugin '{point.name}' ({point.value}) cannot be imported: {type(error).__name__}: {error}: "
            f"reinstall or remove the package {_package(point)}"
        ) from error
    if not inspect.isclass(found) or (base is not None and not issubclass(found, base)):
        wanted = "class" if base is None else base.__name__
        raise PluginError(
            f"the {kind} plugin '{point.name}' ({point.value}) of the package {_package(point)} is no {wanted}: "
            "see docs/plugins.md"
        )
    return found


def warn_of_broken(error: InputError) -> None:
    """Say, once in a run of the program, why a plugin is passed over that nobody has asked for."""
    if str(error) not in _told:
        _told.add(str(error))
        logger.warning("%s; it is passed over", error)


def _package(point: EntryPoint) -> str:
    """The distribution of an entry point; its module's outermost name where that is not known."""
    dist = getattr(point, "dist", None)
    name = None if dist is None else dist.metadata["Name"]
    return f"'{name or point.value.partition(':')[0].partition('.')[0]}'"
