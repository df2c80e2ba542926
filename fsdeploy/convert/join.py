"""Putting the parts of a sharded conversion together: packets are copied, nothing is encoded again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from fsdeploy import __version__
from fsdeploy.convert.credentials import SigningKey, check_signable, sign_outputs
from fsdeploy.convert.provenance import COMPOSITE, ISO_SUFFIXES, UNMARKED, Mark, append_xmp_box
from fsdeploy.convert.shard import PartFacts, read_report, report_path
from fsdeploy.convert.sound import SoundCopy
from fsdeploy.convert.storage import ReservedFile
from fsdeploy.convert.video import CONTAINERS
from fsdeploy.errors import InputError
from fsdeploy.files import atomic_path, write_text
from fsdeploy.images import VIDEO_EXTENSIONS

_PART_FILE = re.compile(r"(.+)\.\d+of\d+\.json")
Part = tuple[Path, dict[str, Any]]


def join(
    parts: Sequence[Path], output: Path, *, source: Path | None = None, audio: bool = True,
    signing: SigningKey | None = None, overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Join video parts, or folders of images, in the order of their reports.

    Args:
        source: where the sound comes from; by default the video that the reports name as their input.
        signing: sign what was joined.
        overwrite: replace files of those names.

    Returns:
        The report of the whole, which is also written beside or into the output.

    Raises:
        InputError: a part is missing, damaged, unfinished, twice there, or made with other settings.
    """
    found = _checked(parts)
    folders = all(path.is_dir() for path, _ in found)
    first = found[0][1]
    suffix = str(first["writer"]["suffix"]) if folders else output.suffix.lower()
    if signing is not None:
        check_signable(suffix)
        if folders and not first["marked"]:
            raise InputError(f"{found[0][0]} holds unmarked pictures (--no-mark): nothing says which are to be signed")
    if folders:
        marked = first["marked"]
        _join_folders(found, output, overwrite)
    else:
        marked = False if first["no_mark"] or suffix in UNMARKED else COMPOSITE
        _join_videos(found, output, source, audio, Mark(f"fsdeploy {__version__}") if marked else None)
    whole = {**merged_report([report for _, report in found], output), "marked": marked}
    write_text(report_path(output, folder=folders), json.dumps(whole, indent=2) + "\n")
    if signing is not None:
        sign_outputs(output, suffix, signing, whole, source or Path(whole["input"]))
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
        _check_whole(path, report)
    return found


def _check_whole(path: Path, report: dict[str, Any]) -> None:
    frames, share = report["frames"], int(report["shard"]["frames"])
    problem = str(report["stopped"])
    if not problem and frames["read"] != share and not report["damage"]:
        problem = f"{frames['read']} frames were read where {share} belong to it"
    if not problem and frames["written"] != frames["read"]:
        problem = f"{frames['written']} of {frames['read']} frames were written"
    if problem:
        raise InputError(f"{path} is not finished ({problem}): convert that part again")


def _join_folders(found: list[Part], output: Path, overwrite: bool) -> None:
    folders = [path for path in dict.fromkeys(path for path, _ in found) if path.resolve() != output.resolve()]
    copies = {
        entry: output / entry.relative_to(folder)
        for folder in folders
        for entry in sorted(folder.rglob("*"))
        if entry.is_file() and not entry.name.startswith("convert_report.") and not _PART_FILE.fullmatch(entry.name)
    }
    there = next((target for target in copies.values() if target.exists()), None)
    if there is not None and not overwrite:
        raise InputError(f"{there} exists already: choose another folder or pass --force to replace it")
    for entry, target in copies.items():
        with atomic_path(target) as temporary:
            shutil.copy2(entry, temporary)
    _merge_part_files([path for path, _ in found], output)


def _merge_part_files(folders: list[Path], output: Path) -> None:
    """Put the JSON objects that every part wrote for itself together: NAME.1of2.json and so on become NAME.json."""
    entries: dict[str, dict[str, Any]] = {}
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.glob("*.json")):
            named = _PART_FILE.fullmatch(path.name)
            if named is None or named.group(1) == "convert_report":
                continue
            try:
                entries.setdefault(named.group(1), {}).update(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise InputError(f"{path} cannot be read ({error}): convert that part again") from error
    for name, merged in entries.items():
        write_text(output / f"{name}.json", json.dumps(dict(sorted(merged.items())), indent=1) + "\n")


def _join_videos(found: list[Part], output: Path, source: Path | None, audio: bool, mark: Mark | None) -> None:
    suffix = output.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{output}: a video is written as {', '.join(CONTAINERS)}")
    made_of = Path(str(found[0][1]["input"]))
    of_video = made_of.suffix.lower() in VIDEO_EXTENSIONS
    sound_from = source or made_of
    audio = audio and (of_video or source is not None)  # a folder of images has none of its own
    if audio and not sound_from.is_file():
        raise InputError(f"{sound_from} is not there, but its sound is needed: give --source, or --no-audio")
    partial = output.with_name(f".{output.stem}.part{suffix}")
    file = ReservedFile(partial)
    sound: SoundCopy | None = None
    try:
        with av.open(file, "w", format=CONTAINERS[suffix]) as container:
            stream = _template(found, container)
            sound = SoundCopy(sound_from, container, output) if audio else None
            if mark is not None:
                container.metadata["comment"] = f"DigitalSourceType: {mark.source_type}"
            writer = _PacketWriter(container, stream, sound)
            for path, report in found:
                pictures = writer.append(path, PartFacts(**report["shard"]).start)
                if pictures < report["frames"]["written"]:
                    raise InputError(
                        f"{path} holds {pictures} pictures where {report['frames']['written']} were written: "
                        "convert that part again"
                    )
                if file.full:
                    raise InputError(f"no space left for {output}: free some and join again")
            if sound is not None:
                sound.finish(of_video)
        file.close()
        if mark is not None and suffix in ISO_SUFFIXES:
            append_xmp_box(partial, mark.xmp())
        partial.replace(output)
    except (av.error.FFmpegError, ValueError, OSError) as error:
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

    def append(self, path: Path, start: Fraction) -> int:
        """Copy one part; its first picture is shown at `start` seconds. Returns how many pictures it holds."""
        pictures = 0
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
                pictures += 1
                until = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                packet.stream = self.stream
                self.container.mux(packet)
                if self.sound is not None:
                    self.sound.copy(until)
        return pictures


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
        "outdated": sorted({key for report in reports for key in report.get("outdated", ())}),
        "damage": [entry for report in reports for entry in report["damage"]],
        "output": str(output),
        "parts": len(reports),
        "seconds": round(sum(report["seconds"] for report in reports), 3),
    }
