"""What travels through the pipeline: a frame as it was read, a picture as it will be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError

Pixels = NDArray[Any]
"""Frames are uint8, or uint16 where source and writer both keep more than 8 bits."""


class OutputFullError(InputError):
    """The output cannot take any more; what was written so far has been kept usable (exit code 2)."""


class Status(StrEnum):
    """What became of a frame. Every frame that is read gets exactly one."""

    SWAPPED = "swapped"
    UNCHANGED = "unchanged"
    """No face in it, written as it was."""
    KEPT = "kept"
    """Written by an earlier run, and left as it is."""
    SKIPPED = "skipped"
    """Outside the frame ranges."""
    FAILED = "failed"
    """Something went wrong; written unchanged, or as the frame before where it could not be read."""


@dataclass(frozen=True)
class Timing:
    """When a video frame is shown."""

    pts: int
    time_base: Fraction
    duration: int = 0
    """In units of the time base; 0 when unknown."""

    @property
    def seconds(self) -> float:
        return float(self.pts * self.time_base)


@dataclass(frozen=True)
class ColorTags:
    """Colour description of a video as numbers of ISO/IEC 23091-2 (H.273); range as FFmpeg counts it (1 = 16..235)."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    range: int = 0


@dataclass(frozen=True)
class SourceInfo:
    """What is known about the input before the first frame is decoded."""

    path: Path
    is_video: bool
    width: int
    height: int
    count: int | None
    """Number of frames: exact for folders, a hint for videos."""
    rate: Fraction | None = None
    time_base: Fraction | None = None
    """Unit of the video's timestamps."""
    tags: ColorTags = field(default_factory=ColorTags)
    bit_depth: int = 8
    sample_aspect: Fraction | None = None
    rotation: int = 0
    """Degrees of the display matrix, counterclockwise. Frames are handled as stored; on the way out the matrix is
    carried over, or the pictures are turned."""


@dataclass
class Frame:
    """A frame as it was read."""

    index: int
    """Place in the source from 0, counted at decoding: all order comes from it."""
    key: str
    """File name, or `<video stem>_<NNNNNN><extension>` counted from 1: the name landmarks are found by."""
    number: int | None
    """Frame number for ranges: from 1 in a video, the digits before the extension in a folder."""
    image: Pixels | None
    """(H, W, 3) BGR; None when it could not be read."""
    alpha: NDArray[np.uint8] | None = None
    """(H, W) opacity of the source, carried to the output."""
    timing: Timing | None = None
    error: str = ""
    """Why it could not be read."""


@dataclass(frozen=True)
class Patch:
    """One swapped face before it is pasted, for the patch writer."""

    pixels: NDArray[np.float32]
    """(S, S, 4) float32 0..1: BGR and opacity, not premultiplied."""
    matrix: NDArray[np.float64]
    """(2, 3) frame pixels to patch pixels."""


@dataclass
class Picture:
    """A finished picture on its way to the writer."""

    index: int
    """Place in the source."""
    key: str
    image: Pixels
    """(H, W, 3) BGR at output size."""
    status: Status
    """What it shows: where an unreadable frame repeats a swapped picture, SWAPPED."""
    alpha: NDArray[np.uint8] | None = None
    """(H, W) opacity, only for writers that draw transparent."""
    timing: Timing | None = None
    patches: tuple[Patch, ...] = ()
    faces: int = 0
    notes: tuple[str, ...] = ()
    """What the user should know about this frame: failures, mask fallbacks."""


@dataclass(frozen=True)
class OutputInfo:
    """All that a writer is told before the first picture."""

    path: Path
    source: SourceInfo
    width: int
    height: int
    rate: Fraction
    """Frames per second, for sources without timing."""
    keep_timing: bool
    """True: pictures carry the source's timing."""
    audio_from: Path | None
    """Video whose sound and subtitles are copied, or None."""
    transparent: bool = False
    mark: Any = None
    """`provenance.Mark`, or None when marking was switched off."""
    resume: bool = False
    part: str = ""
    """Of a shard "3of8": goes into the names of files that every shard writes. Empty when there are no shards."""
    patch_size: int = 64
    """Edge of the swapped faces, for writers that take patches."""
    keys: list[str] | None = None
    """Every frame's key where known without decoding (folders), those of other shards included; else None."""
