"""The configuration file: TOML, one table per section of options, one `[model.<plugin>]` per model plugin.

[optimizer]
learning_rate = 1e-4

[model.original]
lowmem = true
"""

from __future__ import annotations

import textwrap
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fsdeploy.config.option import OptionSpec, check_value, nearest, specs
from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import ConfigError, InputError

Known = dict[str, tuple[type, Any, OptionSpec]]
_MODEL = "model"
_CONVERT = "convert"
"""Tables of convert plugins: checked by `fsdeploy.convert.settings`, which knows them."""
_WIDTH = 110


@dataclass
class OptionValues:
    """Options that a user set, checked; those not named are not in it."""

    training: dict[str, Any] = field(default_factory=dict)
    """Option name -> value over all sections."""
    plugins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Model plugin -> option name -> value."""
    more: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further tables by their whole name -> option name -> value."""


def sections() -> dict[str, type]:
    """Section name -> dataclass, in the order of the file."""
    defaults = TrainingOptions()
    return {entry.name: type(getattr(defaults, entry.name)) for entry in fields(TrainingOptions)}


def read_file(path: Path, plugins: Mapping[str, type]) -> OptionValues:
    """Read a configuration file.

    Args:
        plugins: Model plugin -> its options dataclass. Tables of other plugins are an error.

    Raises:
        InputError: the file cannot be read.
        ConfigError: no valid TOML, an unknown section or option (names the nearest), or an invalid value.
    """
    tables = read_toml(path)
    try:
        return _check_tables(tables, plugins)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; a byte order mark, which editors on Windows write, is passed over.

    Raises:
        InputError: the file cannot be read.
        ConfigError: it is no TOML, or nests or counts beyond what Python can hold.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}: write one with 'fsdeploy config init'") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is no valid TOML for options: its values are nested too deep") from error
    except ValueError as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise ConfigError(f"{path} is no valid TOML: {error}") from error


def _check_tables(tables: Mapping[str, Any], plugins: Mapping[str, type]) -> OptionValues:
    values = OptionValues()
    known = sections()
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"'{name}' stands outside of a section: put it under its [section]")
        if name == _MODEL:
            for plugin, entries in table.items():
                if plugin not in plugins:
                    raise ConfigError(f"unknown section [model.{plugin}]{nearest(plugin, plugins)}")
                values.plugins[plugin] = _check_table(f"model.{plugin}", entries, specs(plugins[plugin]))
        elif name not in known and name != _CONVERT:
            raise ConfigError(f"unknown section [{name}]{nearest(name, [*known, _MODEL, _CONVERT])}")
        elif name in known:
            values.training |= _check_table(name, table, specs(known[name]))
    return values


def _check_table(section: str, table: Any, known: Known) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"[{section}] must be a table of options")
    checked = {}
    for name, value in table.items():
        if name not in known:
            home = next((other for other, kind in sections().items() if name in specs(kind)), None)
            hint = f": it belongs to [{home}]" if home else nearest(name, known)
            raise ConfigError(f"unknown option '{name}' in [{section}]{hint}")
        kind, _, spec = known[name]
        checked[name] = check_value(name, kind, spec, value)
    return checked


def parse_settings(settings: Sequence[str], plugin: str, options: type) -> OptionValues:
    """Options given as `name=value` on the command line.

    Args:
        plugin, options: Name and options dataclass of the model plugin in use.

    Raises:
        ConfigError: no "=", an unknown name (names the nearest), or an invalid value.
    """
    training: Known = {name: entry for kind in sections().values() for name, entry in specs(kind).items()}
    own = specs(options)
    values = OptionValues(plugins={plugin: {}})
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ConfigError(f"'{setting}' is no setting: write name=value")
        known, target = (own, values.plugins[plugin]) if name in own else (training, values.training)
        if name not in known:
            raise ConfigError(f"unknown option '{name}'{nearest(name, [*training, *own])}")
        kind, _, spec = known[name]
        target[name] = check_value(name, kind, spec, parse_value(name, kind, text.strip()))
    return values


def parse_value(name: str, kind: type, text: str) -> Any:
    """The value that `text` stands for.

    Raises:
        ConfigError: the text is no value of that type.
    """
    if typing.get_origin(kind) is tuple:
        return tuple(entry.strip() for entry in text.split(",") if entry.strip())
    if kind is bool:
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.lower() not in words:
            raise ConfigError(f"option '{name}' is true or false, not '{text}'")
        return words[text.lower()]
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"option '{name}' must be of type {kind.__name__}, got '{text}'") from error


def write_commented(plugins: Mapping[str, type], more: Mapping[str, type] | None = None) -> str:
    """A configuration file that names every option with its default, range and meaning; all of them commented out, so
    that a later default is not overruled by an old file.

    Args:
        plugins: Model plugin -> its options dataclass.
        more: Further tables by their whole name -> options dataclass.
    """
    lines = [
        "# Options of fsdeploy. Remove the '#' in front of an option to set it.",
        "# 'fixed' options belong to the model: they count when it is created and keep their value afterwards.",
    ]
    for name, kind in sections().items():
        lines += ["", f"[{name}]", *_section(kind)]
    for name, kind in plugins.items():
        if specs(kind):
            lines += ["", f"[{_MODEL}.{name}]", *_section(kind)]
    for name, kind in (more or {}).items():
        lines += ["", f"[{name}]", *_section(kind)]
    return "\n".join(lines) + "\n"


def _section(kind: type) -> list[str]:
    lines = [f"# {line}" for line in textwrap.wrap((kind.__doc__ or "").strip().partition("\n\n")[0], _WIDTH)]
    for name, (option_type, default, spec) in specs(kind).items():
        lines.append("")
        lines += [f"# {line}" for line in textwrap.wrap(f"{spec.help} {describe(option_type, spec)}".strip(), _WIDTH)]
        lines.append(f"# {name} = {toml_value(default)}")
    return lines


def describe(kind: type, spec: OptionSpec) -> str:
    """The values an option accepts, in words."""
    parts = []
    if spec.choices is not None:
        parts.append(f"One of {', '.join(map(str, spec.choices))}.")
    elif spec.minimum is not None or spec.maximum is not None:
        step = f" in steps of {spec.step:g}" if spec.step else ""
        parts.append(f"{spec.minimum:g} to {spec.maximum:g}{step}.")
    elif kind is bool:
        parts.append("true or false.")
    elif spec.form is not None:
        parts.append(f"{spec.form}.")
    return " ".join([*parts, *(["Fixed."] if spec.fixed else [])])


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(entry) for entry in value) + "]"
    if isinstance(value, float):
        text = repr(value)
        return text if any(mark in text for mark in ".en") else text + ".0"
    return str(value)


@dataclass(frozen=True)
class OptionRow:
    """One option as it is shown."""

    section: str
    name: str
    kind: type
    value: Any
    default: Any
    spec: OptionSpec

    def as_json(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return {
            "section": self.section,
            "name": self.name,
            "type": getattr(self.kind, "__name__", "list") if typing.get_origin(self.kind) is None else "list",
            "value": self.value,
            "default": self.default,
            "minimum": self.spec.minimum,
            "maximum": self.spec.maximum,
            "step": self.spec.step,
            "choices": self.spec.choices,
            "form": self.spec.form,
            "fixed": self.spec.fixed,
            "help": self.spec.help,
        }


def option_rows(
    values: OptionValues, plugins: Mapping[str, type], more: Mapping[str, type] | None = None
) -> list[OptionRow]:
    """Every option of all sections, plugins and further tables, with the value that `values` gives it."""
    tables = [(name, kind, values.training) for name, kind in sections().items()]
    tables += [(f"{_MODEL}.{name}", kind, values.plugins.get(name, {})) for name, kind in plugins.items()]
    tables += [(name, kind, values.more.get(name, {})) for name, kind in (more or {}).items()]
    return [
        OptionRow(section, name, option_type, given.get(name, default), default, spec)
        for section, kind, given in tables
        for name, (option_type, default, spec) in specs(kind).items()
    ]
