"""Going on where earlier runs ended: what they must have in common with this one, and what is to be done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsdeploy.convert.conversion import Conversion
from fsdeploy.convert.frame import Frame
from fsdeploy.convert.images import ImageFolderWriter
from fsdeploy.convert.landmarks import FaceIndex
from fsdeploy.convert.report import UNFINISHED
from fsdeploy.convert.sources import FrameSource, VideoFile, frame_number
from fsdeploy.errors import InputError
from fsdeploy.faces.records import FaceRecord

Ranges = Sequence[tuple[int, int]]
"""Inclusive ranges of frame numbers; empty: all."""


def frames_to_redo(job: Conversion, account: Path, facts: Mapping[str, Any]) -> frozenset[str] | None:
    """Keys of the frames whose images cannot be kept; None when earlier runs left no report.

    They are those that earlier runs failed at or may have failed at, or had yet to replace, and those whose faces have
    changed.

    Args:
        account: where this run's report lies; an earlier one is replaced. Shards leave a report each in their folder.
        facts: what this run's report says of model, settings, writer and faces.

    Raises:
        InputError: a report cannot be read, or what it tells of was made with something else.
    """
    folder = job.output if job.output.is_dir() else None
    reports = {account, *(folder.glob("convert_report*.json") if folder else ())}
    there = [path for path in sorted(reports) if path.exists()]
    if not there:
        return None
    redo = frozenset().union(*(_to_redo(path, facts) for path in there))
    own = [path for path in there if not job.part_name or path in (account, job.output / "convert_report.json")]
    return redo | _written_after(job, [path for path in own if _was_killed(path)])


def _was_killed(account: Path) -> bool:
    return bool(json.loads(account.read_text("utf-8")).get("stopped") == UNFINISHED)


def _written_after(job: Conversion, reports: Sequence[Path]) -> set[str]:
    """Keys of the frames whose images are younger than the last report of a killed run: it may have failed at them."""
    if not reports or not isinstance(job.writer, ImageFolderWriter) or not job.output.is_dir():
        return set()
    last = min(path.stat().st_mtime_ns for path in reports)
    images = images_there(job.writer, job.output, job.source, job.part)
    return {key for key, name in images if (job.output / name).stat().st_mtime_ns >= last}


def frames_outdated(job: Conversion, account: Path, facts: Mapping[str, Any]) -> set[str]:
    """Keys of the frames of which an image is there that this run is to replace, or that does not fit to its images.

    Whoever goes on from this run needs to know them, should it end before they are written. Arguments as above; what
    `job` says of resuming counts.
    """
    if not isinstance(job.writer, ImageFolderWriter) or job.writer.takes != "frames" or not job.output.is_dir():
        return set()
    there = {key for key, _ in images_there(job.writer, job.output, job.source, job.part)}
    if job.resume:
        return there & job.redo
    written = () if job.keep_unchanged else job.ranges
    replaced = {key for key in there if not written or within(frame_number(key), written)}
    try:
        redo = frames_to_redo(job, account, facts)
    except InputError:  # nobody asked to go on from those reports, and what is there is not of this run's kind
        redo = None
    return there if redo is None else replaced | (there & redo)


def face_digests(faces: FaceIndex, source: FrameSource) -> dict[str, str]:
    """Frame key -> digest of the landmarks and stored masks of its faces, for each frame that has faces."""
    digests = {}
    for frame in _frames_with_entries(faces, source):
        records = faces.frames.get(faces.find(frame) or "", ())
        if records:
            digests[frame.key] = _digest(records)
    return digests


def _frames_with_entries(faces: FaceIndex, source: FrameSource) -> Iterator[Frame]:
    """Frames, without their pictures, that may have faces."""
    keys = source.keys()
    if keys is not None:
        yield from (Frame(index, key, None, None) for index, key in enumerate(keys))
    elif isinstance(source, VideoFile):
        for name in faces.frames:
            number = int(name) + 1 if faces.by_index else frame_number(name)
            if number:
                yield Frame(number - 1, source.key(number - 1), None, None)


def _digest(records: Sequence[FaceRecord]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for record in records:
        digest.update(np.ascontiguousarray(record.landmarks, np.float32).tobytes())
        for name, mask in sorted(record.masks.items()):
            digest.update(f"{name} {mask.stored_size} {mask.stored_centering}".encode())
            digest.update(np.ascontiguousarray(mask.affine_matrix, np.float64).tobytes())
            digest.update(mask.data)
    return digest.hexdigest()


def images_there(
    writer: ImageFolderWriter, output: Path, source: FrameSource, part: tuple[int, int | None], ranges: Ranges = ()
) -> Iterator[tuple[str, str]]:
    """(frame key, file name) of each file of the output folder that a frame would be written to.

    Args:
        part: first frame index and the one after the last.
    """
    first, last = part
    there = sorted(entry.name for entry in output.iterdir())
    keys = source.keys()
    if keys is not None:
        wanted = [key for key in keys[first:last] if not ranges or within(frame_number(key), ranges)]
        chosen = {writer.file_name(key): key for key in wanted}
        yield from ((chosen[name], name) for name in there if name in chosen)
    elif isinstance(source, VideoFile):
        for name in there:
            number = frame_number(name)
            if number is None or number <= first or (last is not None and number > last):
                continue
            key = source.key(number - 1)
            if name == writer.file_name(key) and (not ranges or within(number, ranges)):
                yield key, name


def within(number: int | None, ranges: Ranges) -> bool:
    """Whether a frame's number lies in one of the ranges."""
    return number is not None and any(first <= number <= last for first, last in ranges)


def _to_redo(account: Path, facts: Mapping[str, Any]) -> frozenset[str]:
    try:
        before = json.loads(account.read_text("utf-8"))
        failed = frozenset(str(entry["frame"]) for entry in before["failed"])
        count = int(before["frames"]["failed"])
        outdated = frozenset(map(str, before.get("outdated", ())))
        faces, faces_now = (dict(entry["landmarks"].get("digests", {})) for entry in (before, facts))
        earlier, now = _alike(before), _alike(json.loads(json.dumps(dict(facts), default=str)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{account} is no report to go on from ({error}): convert without --resume") from error
    differing = [name for name in now if earlier[name] != now[name]]
    if differing:
        raise InputError(
            f"{account}: the earlier run had another {' and another '.join(differing)}: "
            "convert into another folder, or without --resume"
        )
    if count > len(failed):
        raise InputError(f"{account} names only {len(failed)} of {count} failed frames: convert without --resume")
    changed = {key for key in faces.keys() | faces_now.keys() if faces.get(key) != faces_now.get(key)}
    return failed | outdated | changed


def _alike(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must have in common for their pictures to fit together, by the words that a user knows."""
    output = dict(facts["output_settings"])
    if not output["keep_unchanged"]:
        del output["ranges"]  # frames outside them were not written
    return {
        "input": Path(facts["input"]).name,
        "model": facts["model"]["sha256"],
        "look": facts["settings"],
        "output setting": output,
        "writer": facts["writer"]["name"],
        "mark": facts["marked"],
    }
