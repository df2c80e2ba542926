"""One typed option: default, range or choices, help, and whether it is fixed once a model exists.

A section is a frozen dataclass whose fields are made with `option`. One declaration feeds the command line, the TOML
file, the documentation and the state JSON, so the four cannot disagree.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fsdeploy.errors import ConfigError

Section = TypeVar("Section")


@dataclass(frozen=True)
class OptionSpec:
    """What an option accepts."""

    help: str
    """One or two sentences for a user, in plain words."""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    """Values must be `minimum + n * step` (n integer)."""
    choices: tuple[Any, ...] | None = None
    form: str | None = None
    """How a text must look, in words that a user can copy, for example "#rrggbb"."""
    pattern: str | None = None
    """The same as a regular expression for the whole text."""
    fixed: bool = False
    """True: set when the model is created; on resume the model's own value wins."""


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    choices: tuple[Any, ...] | None = None,
    form: str | None = None,
    pattern: str | None = None,
    fixed: bool = False,
) -> Any:
    """Declare a field of a section dataclass. The field's annotation gives its type: bool, int, float or str,
    or tuple[str, ...] for a list of names."""
    spec = OptionSpec(help, minimum, maximum, step, choices, form, pattern, fixed)
    return dataclasses.field(default=default, metadata={"option": spec})


def specs(section: type) -> dict[str, tuple[type, Any, OptionSpec]]:
    """Option name -> (type, default, spec) of a section dataclass, in declaration order."""
    hints = typing.get_type_hints(section)
    return {
        field.name: (hints[field.name], field.default, field.metadata["option"])
        for field in dataclasses.fields(section)
        if "option" in field.metadata
    }


def check_value(name: str, kind: type, spec: OptionSpec, value: Any) -> Any:
    """Return `value` as the option's type.

    Raises:
        ConfigError: wrong type or form, not one of the choices (names the nearest), or outside the range or step.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as error:
            raise ConfigError(f"option '{name}' cannot be a number of {len(str(value))} digits") from error
    if typing.get_origin(kind) is tuple:
        return _check_names(name, spec, value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"option '{name}' must be of type {kind.__name__}, got {value!r}")
    if spec.choices is not None and value not in spec.choices:
        raise ConfigError(f"option '{name}' cannot be {value!r}{nearest(str(value), map(str, spec.choices))}")
    if spec.pattern is not None and not re.fullmatch(spec.pattern, str(value)):
        raise ConfigError(f"option '{name}' must look like {spec.form or spec.pattern}, got {value!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(name, spec, value)
    return value


def _check_names(name: str, spec: OptionSpec, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f"option '{name}' must be a list of names, got {value!r}")
    for entry in value:
        if spec.choices is not None and entry not in spec.choices:
            raise ConfigError(f"option '{name}' cannot hold {entry!r}{nearest(entry, map(str, spec.choices))}")
    return tuple(value)


def _check_range(name: str, spec: OptionSpec, value: float) -> None:
    low, high = spec.minimum, spec.maximum
    if value != value or (low is not None and value < low) or (high is not None and value > high):
        near = low if low is not None and not value > low else high
        raise ConfigError(f"option '{name}' must be in {low}..{high}, got {value}: the nearest valid value is {near}")
    if spec.step:
        start = low or 0
        whole = round((value - start) / spec.step)
        if abs(value - start - whole * spec.step) > 1e-9:
            near = start + whole * spec.step
            raise ConfigError(f"option '{name}' goes in steps of {spec.step}, got {value}: the nearest is {near}")


def nearest(value: str, choices: typing.Iterable[str]) -> str:
    """The end of an error message: the choice that `value` was probably meant to be, else all choices."""
    names = list(choices)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.4)
    return f": did you mean {near[0]!r}?" if near else f": choose from {', '.join(names)}"


def from_mapping(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Build a section from name -> value, every value checked; missing names take their default.

    Raises:
        ConfigError: unknown name (names the nearest) or invalid value.
    """
    known = specs(section)
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown option '{name}'{nearest(name, known)}")
    checked = {name: check_value(name, known[name][0], known[name][2], value) for name, value in values.items()}
    return section(**checked)


def check_section(section: Any) -> None:
    """Check every value of a section instance that was built by hand.

    Raises:
        ConfigError: as `check_value`.
    """
    for name, (kind, _, spec) in specs(type(section)).items():
        check_value(name, kind, spec, getattr(section, name))
