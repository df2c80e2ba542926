"""All that a conversion is told before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from fsdeploy.convert.landmarks import FaceIndex
from fsdeploy.convert.plugin import Writer
from fsdeploy.convert.provenance import Mark
from fsdeploy.convert.sources import FrameSource
from fsdeploy.convert.swap import Look, Model


@dataclass(frozen=True)
class Conversion:
    """All that a conversion needs. Built by the command line, or by hand."""

    source: FrameSource
    faces: FaceIndex
    model: Model
    look: Look
    writer: Writer
    output: Path
    ranges: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges of frame numbers; empty: all."""
    keep_unchanged: bool = False
    """Write frames outside the ranges as they are, instead of leaving them out."""
    scale: float = 1.0
    """Factor of the output's size."""
    part: tuple[int, int | None] = (0, None)
    """First frame index and the one after the last, for shards."""
    part_name: str = ""
    """What a shard's own files are told apart by, "3of8"; empty when all is converted in one piece."""
    batch: int = 2
    """Faces per run of the model."""
    jobs: int = 2
    """Threads that blend and encode."""
    rate: Fraction = Fraction(25)
    """Frames per second where the source has no timing."""
    audio_from: Path | None = None
    transparent: bool = False
    mark: Mark | None = None
    on_error: Literal["keep", "stop"] = "keep"
    resume: bool = False
    """Keep pictures that an earlier run has written, but for those of `redo`."""
    redo: frozenset[str] = frozenset()
    """Keys of frames whose pictures of earlier runs are not kept: failed, outdated, or of faces that have changed."""
