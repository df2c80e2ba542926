"""Putting the parts of a sharded conversion together: packets are copied, nothing is encoded again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from fsdeploy import __version__
from fsdeploy.convert.provenance import ISO_SUFFIXES, Mark, append_xmp_box
from fsdeploy.convert.shard import PartFacts, read_report, report_path
from fsdeploy.convert.sound import SoundCopy
from fsdeploy.convert.storage import ReservedFile
from fsdeploy.convert.video import CONTAINERS
from fsdeploy.errors import InputError
from fsdeploy.files import write_text

Part = tuple[Path, dict[str, Any]]


def join(parts: Sequence[Path], output: Path, *, source: Path | None = None, audio: bool = True) -> dict[str, Any]:
    """Join video parts, or folders of images, in the order of their reports.

    Args:
        source: where the sound comes from; by default the input that the reports name.

    Returns:
        The report of the whole, which is also written beside or into the output.

    Raises:
        InputError: a part is missing, damaged, twice there, or made with other settings.
    """
    found = _checked(parts)
    if all(path.is_dir() for path, _ in found):
        _join_folders(found, output)
    else:
        _join_videos(found, output, source, audio)
    whole = merged_report([report for _, report in found], output)
    write_text(report_path(output), json.dumps(whole, indent=2) + "\n")
    return whole


def _checked(parts: Sequence[Path]) -> list[Part]:
    """Parts with their reports in order, complete and alike."""
    found: list[Part] = []
    for path in parts:
        reports = sorted(path.glob("convert_report.*of*.json")) if path.is_dir() else [report_path(path)]
        if not reports:
            raise InputError(f"{path} holds no report of a part: convert it with --shard")
        found += [(path, read_report(report)) for report in reports]
    if not found:
        raise InputError("no parts were given: name the files or folders that 'convert --shard' wrote")
    found.sort(key=lambda part: int(part[1]["shard"]["index"]))
    total = int(found[0][1]["shard"]["of"])
    indices = [int(report["shard"]["index"]) for _, report in found]
    missing = sorted(set(range(1, total + 1)) - set(indices))
    if missing:
        raise InputError(f"part {missing[0]} of {total} is missing: convert it with --shard {missing[0]}/{total}")
    if len(indices) != total:
        twice = next(index for index in indices if indices.count(index) > 1)
        raise InputError(f"part {twice} of {total} is there twice: give each part once")
    for path, report in found[1:]:
        if report["shard"]["settings_digest"] != found[0][1]["shard"]["settings_digest"]:
            raise InputError(f"{path} was made with another model, source or settings than {found[0][0]}")
    for path, report in found:
        if report["stopped"]:
            raise InputError(f"{path} is not finished ({report['stopped']}): convert that part again")
    return found


def _join_folders(found: list[Part], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for folder in dict.fromkeys(path for path, _ in found):
        if folder.resolve() == output.resolve():
            continue
        for entry in sorted(folder.rglob("*")):
            if entry.is_file() and not entry.name.startswith("convert_report."):
                target = output / entry.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(entry, target)


def _join_videos(found: list[Part], output: Path, source: Path | None, audio: bool) -> None:
    suffix = output.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{output}: a video is written as {', '.join(CONTAINERS)}")
    sound_from = source or Path(str(found[0][1]["input"]))
    if audio and not sound_from.is_file():
        raise InputError(f"{sound_from} is not there, but its sound is needed: give --source, or --no-audio")
    partial = output.with_name(f".{output.stem}.part{suffix}")
    file = ReservedFile(partial)
    sound: SoundCopy | None = None
    try:
        with av.open(file, "w", format=CONTAINERS[suffix]) as container:
            stream = _template(found, container)
            sound = SoundCopy(sound_from, container, output) if audio else None
            marked = found[0][1]["marked"]
            if marked:
                container.metadata["comment"] = f"DigitalSourceType: {marked}"
            writer = _PacketWriter(container, stream, sound)
            for path, report in found:
                writer.append(path, PartFacts(**report["shard"]).start)
                if file.full:
                    raise InputError(f"no space left for {output}: free some and join again")
            if sound is not None:
                sound.finish(True)
        file.close()
        if marked and suffix in ISO_SUFFIXES:
            append_xmp_box(partial, Mark(f"fsdeploy {__version__}", str(marked)).xmp())
        partial.replace(output)
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"the parts cannot be joined as {output} ({error}): use the container they have") from error
    finally:
        if sound is not None:
            sound.close()
        file.close()
        partial.unlink(missing_ok=True)


def _template(found: list[Part], container: Any) -> Any:
    """The output's video stream, as the first part's; every other part must carry the same codec headers."""
    headers = None
    for path, _ in found:
        try:
            with av.open(str(path)) as part:
                video = part.streams.video[0]
                context = video.codec_context
                these = (context.name, context.width, context.height, bytes(context.extradata or b""))
                if headers is None:
                    headers = these
                    stream = container.add_stream_from_template(video)
                    stream.time_base = video.time_base
        except (av.error.FFmpegError, OSError, IndexError) as error:
            raise InputError(f"{path} is no readable part ({error}): convert it again") from error
        if these != headers:
            raise InputError(f"{path} was encoded differently from {found[0][0]}: use one encoder for all parts")
    return stream


class _PacketWriter:
    """Appends the packets of one part after another."""

    def __init__(self, container: Any, stream: Any, sound: SoundCopy | None) -> None:
        self.container, self.stream, self.sound = container, stream, sound
        self._last: Fraction | None = None

    def append(self, path: Path, start: Fraction) -> None:
        """Copy one part; its first picture is shown at `start` seconds."""
        with av.open(str(path)) as part:
            video = part.streams.video[0]
            first = video.start_time or 0
            for packet in part.demux(video):
                if packet.dts is None or not packet.size:
                    continue
                shift = round(start / packet.time_base) - first
                packet.pts = (packet.dts if packet.pts is None else packet.pts) + shift
                packet.dts += shift
                moment = packet.dts * packet.time_base
                if self._last is not None and moment <= self._last:
                    moment = self._last + packet.time_base
                    packet.dts = round(moment / packet.time_base)
                self._last = moment
                packet.stream = self.stream
                self.container.mux(packet)
                if self.sound is not None:
                    self.sound.copy(float(moment), 0.0, None)


def merged_report(reports: list[dict[str, Any]], output: Path) -> dict[str, Any]:
    """One account of all parts."""
    first = {
        name: value for name, value in reports[0].items() if name not in ("shard", "seconds", "fps", "ms_per_frame")
    }
    frames = {name: sum(report["frames"][name] for report in reports) for name in reports[0]["frames"]}
    return {
        **first,
        "complete": all(report["complete"] for report in reports),
        "frames": frames,
        "faces": sum(report["faces"] for report in reports),
        "failed": [entry for report in reports for entry in report["failed"]],
        "damage": [entry for report in reports for entry in report["damage"]],
        "output": str(output),
        "parts": len(reports),
        "seconds": round(sum(report["seconds"] for report in reports), 3),
    }
