"""What a convert plugin is, and how one is found.

Five kinds, four entry-point groups. A plugin is a class with a frozen dataclass `Options` (fields made with
`fsdeploy.config.option.option`); it is built once per conversion and called from several threads, so it keeps no state
between calls (writers excepted: they are called in frame order by one thread).
"""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fsdeploy.config.entry_point import load_class, warn_of_broken
from fsdeploy.config.option import check_section, from_mapping
from fsdeploy.convert.frame import OutputInfo, Picture
from fsdeploy.errors import ConfigError, InputError, PluginError
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.geometry import Centering
from fsdeploy.faces.records import FaceRecord

Float = NDArray[np.float32]

COLOR, MASK, SCALING, WRITER = "color", "mask", "scaling", "writer"
KINDS = (COLOR, MASK, SCALING, WRITER)


@dataclass(frozen=True)
class NoOptions:
    """A plugin without options."""


class ConvertPlugin:
    """Common to all kinds: a name and typed options."""

    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any = None) -> None:
        self.options = options if options is not None else self.Options()
        check_section(self.options)

    @classmethod
    def describe(cls) -> str:
        """First line of the plugin's docstring."""
        return (inspect.getdoc(cls) or "").splitlines()[0]


class ColorPlugin(ConvertPlugin, ABC):
    """Brings the swapped face's colours towards those of the face it replaces, before the warp."""

    @abstractmethod
    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        """Return the adjusted face.

        Args:
            target: (S, S, 3) float32 BGR 0..1, the crop of the frame.
            swapped: (S, S, 3) float32 BGR 0..1, what the model made of it.
            mask: (S, S) float32 0..1, before its edge is softened: where both show a face.

        Returns:
            (S, S, 3) float32; the caller clips it to 0..1.
        """


@dataclass(frozen=True)
class MaskInput:
    """All that a mask can be drawn from."""

    size: int
    """Edge S of the patch."""
    landmarks: NDArray[np.float64]
    """(68 or 4, 2) points in patch pixels."""
    record: FaceRecord
    """The face as the landmarks source gave it, stored masks included."""
    aligned: AlignedFace
    predicted: Float | None
    """(S, S) float32 mask of the model, if it learns one."""
    centering: Centering
    coverage: float
    vertical_offset: float


class MaskSource(ConvertPlugin, ABC):
    """Says which pixels of the patch are face."""

    @abstractmethod
    def __call__(self, face: MaskInput) -> Float | None:
        """(S, S) float32 0..1, or None when this face has no such mask (the next source of the chain is asked)."""


class MaskEdge(ConvertPlugin, ABC):
    """Turns a raw mask into the opacity that the patch is pasted with."""

    @abstractmethod
    def __call__(self, mask: Float, drawn: bool) -> tuple[Float, Float]:
        """Return (raw, final), both (S, S) float32 0..1: `raw` is given to colour plugins, `final` is pasted.

        Args:
            mask: (S, S) float32 0..1.
            drawn: False for the mask "none", which has no edge of its own.
        """


class ScalingPlugin(ConvertPlugin, ABC):
    """Changes the patch before the paste (sharpening), in patch pixels."""

    @abstractmethod
    def __call__(self, patch: Float, pixels_per_percent: float) -> Float:
        """Return the changed (S, S, 3) float32 patch.

        Args:
            patch: (S, S, 3) float32 BGR 0..1.
            pixels_per_percent: patch pixels that one percent of the frame's width takes.
        """


class Writer(ConvertPlugin, ABC):
    """Writes pictures. `encode` runs in several threads; the rest in one, in frame order."""

    takes: ClassVar[str] = "frames"
    """"frames" or "patches": what the writer is given."""
    deep: ClassVar[bool] = False
    """True: pictures of sources with more than 8 bits are given as uint16."""
    one_size: ClassVar[bool] = False
    """True: every picture must have the size that `open` was told."""

    def keeps_rotation(self, path: Path) -> bool:
        """Whether the output at `path` can say that it is to be shown turned. Where not, pictures are given upright."""
        return False

    def has(self, key: str, width: int, height: int) -> bool:
        """Whether the picture of this key was written by an earlier run, at this size. Streams never have one."""
        return False

    def file_suffix(self, output: Path) -> str:
        """Suffix of the files that are written, with its dot. `output` is what the user named; asked before `open`."""
        return output.suffix.lower()

    def can_mark(self, output: Path) -> bool:
        """Whether `OutputInfo.mark` gets into the files that are written. Asked before `open`, too."""
        return False

    def kept(self, key: str) -> Any:
        """What `encode` made of a picture that `has` found, as `write` takes it, to be written again; None: unknown."""
        return None

    def notes(self) -> list[str]:
        """What the user should know about the output as a whole; asked once, after `close`."""
        return []

    @abstractmethod
    def open(self, info: OutputInfo) -> None:
        """Check the options against the output and start it.

        Raises:
            InputError: the container, codec or format cannot hold this output.
        """

    def encode(self, picture: Picture) -> Any:
        """The part of the work that needs no order; its result is handed to `write`."""
        return None

    @abstractmethod
    def write(self, picture: Picture, encoded: Any) -> None:
        """Write one picture. `encoded` is what `encode` returned.

        Raises:
            OutputFullError: nothing more fits; what was written so far stays usable.
        """

    @abstractmethod
    def close(self, complete: bool) -> None:
        """Finish the output; after it the file is playable. Called once, also after an error.

        Args:
            complete: False when frames of the source are missing at the end.
        """

    @property
    def description(self) -> str:
        """What is being written with, for the report (encoder, format)."""
        return type(self).__name__


Plugin = TypeVar("Plugin", bound=ConvertPlugin)


def names(kind: str, base: type | None = None) -> list[str]:
    """Names of the installed plugins of a kind, sorted; with `base` only usable ones that are subclasses of it."""
    if base is None:
        return sorted({entry.name for entry in _entries(kind)})
    return list(usable(kind, base))


def usable(kind: str, base: type = ConvertPlugin) -> dict[str, type[ConvertPlugin]]:
    """Every installed plugin of a kind by name, sorted; broken ones are passed over with a warning."""
    found = {}
    for name in names(kind):
        try:
            found[name] = find(kind, name)
        except PluginError as error:
            warn_of_broken(error)
    return {name: loaded for name, loaded in found.items() if issubclass(loaded, base)}


def find(kind: str, name: str) -> type[ConvertPlugin]:
    """The plugin class of that name.

    Raises:
        InputError: none is installed (names the nearest).
        PluginError: it cannot be imported or is no convert plugin.
    """
    entries = {entry.name: entry for entry in _entries(kind)}
    wanted = name.replace("_", "-")
    if wanted not in entries:
        near = difflib.get_close_matches(wanted, entries, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(sorted(entries))}"
        raise InputError(f"no {kind} plugin is called '{name}': {hint}")
    return load_class(entries[wanted], kind, ConvertPlugin)


def build(kind: str, name: str, base: type[Plugin], values: Mapping[str, Any] | None = None) -> Plugin:
    """Build a plugin with options given by name.

    Raises:
        InputError: no such plugin, or one of another sort.
        ConfigError: unknown option or a value outside its range.
    """
    loaded = find(kind, name)
    if not issubclass(loaded, base):
        choices = ", ".join(names(kind, base))
        raise InputError(f"the {kind} plugin '{name}' cannot be used here: choose from {choices}")
    try:
        return loaded(from_mapping(loaded.Options, dict(values or {})))
    except ConfigError as error:
        raise ConfigError(f"{kind}.{name}: {error}") from error


def _entries(kind: str) -> Any:
    return entry_points(group=f"fsdeploy.convert.{kind}")
