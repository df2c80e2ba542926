"""Spreading a conversion over machines: which part of a source is whose, and what a part says about itself."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from fsdeploy.convert.conversion import Conversion
from fsdeploy.convert.report import Report
from fsdeploy.convert.sources import FrameSource, VideoFile, frame_times
from fsdeploy.errors import InputError

logger = logging.getLogger(__name__)


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
    """Number of frames that all parts agree on.

    Of a video they are counted from its packets; where these carry no or ambiguous times, by decoding.

    Raises:
        InputError: the frames of the video are not in the order of their times, so that parts have no place in it.
    """
    if not source.info.is_video:
        return len(source.keys() or [])
    times = frame_times(source.info.path)
    if times is not None:
        return len(times)
    logger.info("%s says no clear time of each frame: its frames are counted by decoding", source.info.path)
    count, last = 0, None
    for moment in VideoFile(source.info.path).decoded_times():
        count += 1
        if last is not None and moment is not None and moment < last:
            raise InputError(
                f"{source.info.path}: its timestamps go back at frame {count}, so that parts would have no place: "
                "convert it in one piece, without --shard"
            )
        last = moment if moment is not None else last
    return count


@dataclass(frozen=True)
class PartFacts:
    """What the report of a part says, so that parts can be checked and joined."""

    index: int
    of: int
    first_frame: int
    frames: int
    """Frames of the source that are this part's, whether they were to be written or not."""
    total: int
    """Frames of the whole source."""
    first_time: str
    """Time of the first written frame in seconds, as a fraction: in the source, or at the rate of shown images."""
    settings_digest: str
    """Digest of everything that must agree between parts."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def start(self) -> Fraction:
        """`first_time` as a number."""
        return Fraction(self.first_time)


def report_path(output: Path, shard: Shard | None = None, *, folder: bool = False) -> Path:
    """Where the report of an output lies: inside a folder, beside a file.

    Args:
        folder: the output will be a folder, whatever its name looks like and whether it is there yet.
    """
    if output.suffix and not folder and not output.is_dir():
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
        Fraction(PartFacts(**data["shard"]).first_time)
        frames = data["frames"]
        if not all(isinstance(frames[name], int) for name in ("read", "written", "failed")):
            raise TypeError("frame counts")
        if not {"writer", "marked", "no_mark", "stopped", "damage"} <= data.keys():
            raise KeyError("made by another version")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}: it lies beside its part") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the report of a part ('convert --shard'): {error}") from error
    return dict(data)


def share(job: Conversion, total: int) -> int:
    """Number of the source's frames that are a part's."""
    first, last = job.part
    return (total if last is None else last) - first


def check_share(report: Report, job: Conversion, total: int) -> None:
    """Refuse a part that would leave a hole in the whole, or be there twice.

    Raises:
        InputError: other frames were read than belong to the part, and no damage explains it.
    """
    wanted = share(job, total)
    if report.stopped or getattr(job.source, "damage", None) or report.read == wanted:
        return
    report.stopped = f"{report.read} frames were read where {wanted} belong to this part"
    raise InputError(f"{job.source.info.path}: {report.stopped}: convert it in one piece, without --shard")


def part_facts(shard: Shard, report: Report, job: Conversion, total: int) -> PartFacts:
    """What a part says about itself; two parts fit when their digests agree."""
    facts = report.facts
    alike = {
        "input": Path(facts["input"]).name, "model": facts["model"]["sha256"], "settings": facts["settings"],
        "writer": facts["writer"], "output_settings": facts["output_settings"], "faces": facts["landmarks"]["faces"],
        "total": total, "rate": str(job.rate),
    }  # fmt: skip
    first = job.part[0] if report.first_frame is None else report.first_frame
    timing = report.first_timing
    moment = first / job.rate if timing is None else timing.pts * timing.time_base
    return PartFacts(shard.index, shard.of, first, share(job, total), total, str(moment), digest_of(alike))


def digest_of(value: Any) -> str:
    """SHA-256 of a value's JSON form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
