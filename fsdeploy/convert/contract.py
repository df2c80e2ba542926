"""What convert plugins return is what their base classes say: checked at each face, tried before the first frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fsdeploy.convert.plugin import ConvertPlugin, Float
from fsdeploy.errors import FsdeployError, PluginError


def checked(kind: str, plugin: ConvertPlugin, shape: tuple[int, ...], call: Callable[[], Any]) -> Float:
    """The one array of a plugin.

    Args:
        kind: what the plugin is, for people: "color", "mask", ...
        shape: what the array must have.

    Raises:
        PluginError: the plugin raised something, or gave another shape or no floats; names it.
    """
    (array,) = called(kind, plugin, lambda: (call(),))
    _check_array(kind, plugin, array, shape)
    return np.asarray(array)


def checked_pair(
    kind: str, plugin: ConvertPlugin, shape: tuple[int, ...], call: Callable[[], Any]
) -> tuple[Float, Float]:
    """The two arrays of a plugin. Arguments and errors as above."""
    pair = called(kind, plugin, call)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise PluginError(f"{_named(kind, plugin)} must return two arrays, got {type(pair).__name__}")
    for array in pair:
        _check_array(kind, plugin, array, shape)
    return pair


def called(kind: str, plugin: ConvertPlugin, call: Callable[[], Any]) -> Any:
    """What a plugin returns, whatever it is.

    Raises:
        PluginError: it raised something; names it.
    """
    try:
        return call()
    except FsdeployError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        raise PluginError(f"{_named(kind, plugin)} failed ({type(error).__name__}: {error})") from error


def _check_array(kind: str, plugin: ConvertPlugin, array: Any, shape: tuple[int, ...]) -> None:
    given = getattr(array, "shape", type(array).__name__)
    if given != shape:
        raise PluginError(f"{_named(kind, plugin)} must return an array of shape {shape}, got {given}")
    if array.dtype.kind != "f":
        raise PluginError(f"{_named(kind, plugin)} must return floats from 0 to 1, got {array.dtype}")


def _named(kind: str, plugin: ConvertPlugin) -> str:
    return f"the {kind} plugin {type(plugin).__name__} ({type(plugin).__module__})"
