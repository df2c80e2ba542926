"""From names and options to plugin instances: what the command line and the configuration file choose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsdeploy.config.file import parse_value, read_toml
from fsdeploy.config.option import from_mapping, specs
from fsdeploy.convert import plugin
from fsdeploy.convert.plugin import (
    COLOR,
    KINDS,
    MASK,
    SCALING,
    WRITER,
    ColorPlugin,
    MaskEdge,
    MaskSource,
    ScalingPlugin,
    Writer,
)
from fsdeploy.convert.swap import Look
from fsdeploy.errors import ConfigError, InputError
from fsdeploy.images import IMAGE_EXTENSIONS, UNREAD_IMAGES, VIDEO_EXTENSIONS

DEFAULT_MASK, DEFAULT_EDGE, DEFAULT_COLOR = "extended", "feather", "mkl"
FALLBACK_MASKS = ("predicted", "stored", "extended", "components")
"""Asked in this order for a face that has no mask of the chosen name."""
ORIGINAL = {"edge": "blend", "color": "avg-color"}
"""What `--compat faceswap` chooses where nothing else is asked for."""

Values = dict[str, dict[str, Any]]
"""Plugin as "kind.name" -> option -> value."""


@dataclass(frozen=True)
class Choice:
    """What is used to put faces back, by name."""

    mask: str = DEFAULT_MASK
    edge: str = DEFAULT_EDGE
    color: str = DEFAULT_COLOR
    """A colour plugin, or "none"."""
    sharpen: str = "none"
    """Method of the sharpen plugin, or "none"."""
    face_scale: float = 0.0
    original: bool = False
    """Reproduce the original program's paste."""
    values: Values = field(default_factory=dict)

    def options(self, kind: str, name: str) -> dict[str, Any]:
        """Options given for a plugin."""
        return dict(self.values.get(f"{kind}.{name.replace('_', '-')}", {}))


def build_look(choice: Choice) -> Look:
    """Build the plugins of a choice.

    Raises:
        InputError, ConfigError: unknown plugin or option.
    """
    chain = [_mask(choice, choice.mask)]
    chain += [_mask(choice, name) for name in FALLBACK_MASKS if name != choice.mask]
    edge_values = choice.options(MASK, choice.edge)
    if choice.original and choice.edge == "blend":
        edge_values.setdefault("window", "original")
    color = scaling = None
    if choice.color != "none":
        color = plugin.build(COLOR, choice.color, ColorPlugin, choice.options(COLOR, choice.color))  # type: ignore[type-abstract]
    if choice.sharpen != "none":
        values = {**choice.options(SCALING, "sharpen"), "method": choice.sharpen.replace("-", "_")}
        scaling = plugin.build(SCALING, "sharpen", ScalingPlugin, values)  # type: ignore[type-abstract]
    edge = plugin.build(MASK, choice.edge, MaskEdge, edge_values)  # type: ignore[type-abstract]
    return Look(tuple(chain), edge, color, scaling, choice.face_scale, choice.original)


def default_look() -> Look:
    """The look that `fsdeploy convert` has without options."""
    return build_look(Choice())


def _mask(choice: Choice, name: str) -> tuple[str, MaskSource]:
    """A mask source by plugin name; any other name is that of a stored mask."""
    known = plugin.names(MASK, MaskSource)
    if name in known:
        return name, plugin.build(MASK, name, MaskSource, choice.options(MASK, name))  # type: ignore[type-abstract]
    return name, plugin.build(MASK, "stored", MaskSource, {"name": name})  # type: ignore[type-abstract]


def build_writer(name: str, values: Values, overrides: Mapping[str, Any] | None = None) -> Writer:
    """Build a writer by name.

    Raises:
        InputError, ConfigError: unknown writer or option.
    """
    given = {**values.get(f"{WRITER}.{name.replace('_', '-')}", {}), **(overrides or {})}
    return plugin.build(WRITER, name, Writer, given)  # type: ignore[type-abstract]


def writer_for(output: Path) -> str:
    """The writer that an output's name asks for: a video, an animation, else a folder of images.

    Raises:
        InputError: the name of a single image.
    """
    from fsdeploy.convert.video import CONTAINERS

    suffix = output.suffix.lower()
    if suffix == ".gif":
        return "gif"
    if suffix in IMAGE_EXTENSIONS | UNREAD_IMAGES and not output.is_dir():
        hint = f", and --set writer.opencv.format={image_format(output)}" if suffix in IMAGE_EXTENSIONS else ""
        raise InputError(f"{output} names one image: give a folder{hint}")
    return "video" if suffix in CONTAINERS or suffix in VIDEO_EXTENSIONS else "opencv"


def image_format(output: Path) -> str:
    """The format option of image writers that a file name asks for."""
    suffix = output.suffix.lower()
    return {".jpeg": "jpg", ".tiff": "tif"}.get(suffix, suffix[1:])


def is_one_image(source: Path, output: Path, writer: str | None) -> bool:
    """Whether one image file is to become one."""
    files = source.is_file() and not output.is_dir() and writer in (None, "opencv", "pillow")
    return files and {source.suffix.lower(), output.suffix.lower()} <= IMAGE_EXTENSIONS


def parse_values(assignments: Iterable[str], config: Path | None = None) -> Values:
    """Options of plugins from a TOML file (tables [convert.<kind>.<plugin>]) and from "kind.plugin.option=value".

    Raises:
        ConfigError: not of that form, or the file cannot be read; names the line or the assignment.
    """
    values: Values = {}
    if config is not None:
        for kind, plugins in _config_tables(config).items():
            if kind not in KINDS or not isinstance(plugins, dict):
                raise ConfigError(f"{config}: [convert.{kind}] is unknown: choose from {', '.join(KINDS)}")
            for name, options in plugins.items():
                if not isinstance(options, dict):
                    raise ConfigError(f"{config}: write [convert.{kind}.<plugin>] and '{name} = ...' below it")
                values[f"{kind}.{name.replace('_', '-')}"] = dict(options)
    from_file = set(values)
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        parts = path.strip().split(".")
        if not found or len(parts) != 3 or parts[0] not in KINDS:
            raise ConfigError(f"'{assignment}' is no option: write kind.plugin.option=value, as in writer.video.crf=18")
        kind, name, option = parts[0], parts[1].replace("_", "-"), parts[2].replace("-", "_")
        known = specs(plugin.find(kind, name).Options)
        value = parse_value(option, known[option][0], text.strip()) if option in known else text
        values.setdefault(f"{kind}.{name}", {})[option] = value
    for key, options in values.items():
        try:
            from_mapping(plugin.find(*key.split(".", 1)).Options, options)
        except InputError as error:
            raise ConfigError(f"{config}: {key}: {error}" if key in from_file else f"{key}: {error}") from error
    return values


def option_tables() -> dict[str, type]:
    """Table of a configuration file, "convert.<kind>.<plugin>" -> options dataclass, of plugins that have options."""
    found = {(kind, name): loaded.Options for kind in KINDS for name, loaded in plugin.usable(kind).items()}
    return {f"convert.{kind}.{name}": options for (kind, name), options in found.items() if specs(options)}


def _config_tables(path: Path) -> dict[str, Any]:
    tables = read_toml(path).get("convert", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: 'convert' must be a table")
    return tables
