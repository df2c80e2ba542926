"""Spreading a conversion over machines: which part of a source is whose, and what a part says about itself."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from fsdeploy.convert.sources import FrameSource, frame_times
from fsdeploy.errors import InputError


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `of` parts, counted from 1."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "3/8".

        Raises:
            InputError: not of that form.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found or not 1 <= int(found.group(1)) <= int(found.group(2)):
            raise InputError(f"'{text}' is no part: write I/N with I from 1 to N, for example 3/8")
        return cls(int(found.group(1)), int(found.group(2)))

    def bounds(self, total: int) -> tuple[int, int | None]:
        """First frame index and the one after the last; the last part is open, for counts are only hints.

        Raises:
            InputError: fewer frames than parts.
        """
        if total < self.of:
            raise InputError(f"{total} frames cannot be split into {self.of} parts: use at most {total}")
        first = total * (self.index - 1) // self.of
        return first, None if self.index == self.of else total * self.index // self.of


def frame_count(source: FrameSource) -> int:
    """Number of frames that all parts agree on: counted from the packets of a video, without decoding.

    Raises:
        InputError: it cannot be found out.
    """
    if source.info.is_video:
        times = frame_times(source.info.path)
        if times is not None:
            return len(times)
    if source.info.count is None:
        raise InputError(f"{source.info.path} does not say how many frames it has: convert it in one piece")
    return source.info.count


@dataclass(frozen=True)
class PartFacts:
    """What the report of a part says, so that parts can be checked and joined."""

    index: int
    of: int
    first_frame: int
    first_time: str
    """Time of the first frame in the source in seconds, as a fraction; empty for image folders."""
    settings_digest: str
    """Digest of everything that must agree between parts."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def start(self) -> Fraction:
        """`first_time` as a number."""
        return Fraction(self.first_time or 0)


def report_path(output: Path, shard: Shard | None = None) -> Path:
    """Where the report of an output lies: inside a folder, beside a file."""
    if output.suffix and not output.is_dir():
        return output.with_name(f"{output.stem}.convert_report.json")
    name = "convert_report.json" if shard is None else f"convert_report.{shard.index}of{shard.of}.json"
    return output / name


def read_report(path: Path) -> dict[str, Any]:
    """A report that was written as JSON.

    Raises:
        InputError: missing, damaged, or not of a part.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        PartFacts(**data["shard"])
        frames = data["frames"]
        if not all(isinstance(frames[name], int) for name in ("read", "written", "failed")):
            raise TypeError("frame counts")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}: it lies beside its part") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the report of a part ('convert --shard'): {error}") from error
    return dict(data)
