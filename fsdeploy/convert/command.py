"""What `fsdeploy convert` does with its options: build a conversion, run it with progress, write the report."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from fsdeploy import __version__
from fsdeploy.convert import checks
from fsdeploy.convert.account import Account
from fsdeploy.convert.conversion import Conversion
from fsdeploy.convert.credentials import SigningKey, check_signable, sign_outputs
from fsdeploy.convert.images import ImageFolderWriter
from fsdeploy.convert.landmarks import FaceIndex, load_faces
from fsdeploy.convert.model import exported_model
from fsdeploy.convert.pipeline import convert
from fsdeploy.convert.plugin import Writer
from fsdeploy.convert.provenance import NO_MARK_NOTICE, Mark
from fsdeploy.convert.report import Report
from fsdeploy.convert.resume import face_digests, frames_outdated, frames_to_redo
from fsdeploy.convert.settings import (
    DEFAULT_COLOR,
    DEFAULT_EDGE,
    ORIGINAL,
    Choice,
    Values,
    build_look,
    build_writer,
    image_format,
    is_one_image,
    parse_values,
    writer_for,
)  # fmt: skip
from fsdeploy.convert.shard import Shard, check_share, frame_count, part_facts, report_path
from fsdeploy.convert.sources import FrameSource, VideoFile, open_source
from fsdeploy.convert.swap import try_look
from fsdeploy.convert.video import CONTAINERS
from fsdeploy.errors import InputError
from fsdeploy.files import sha256
from fsdeploy.progress import Progress
from fsdeploy.runtime import Swapper

logger = logging.getLogger(__name__)


def run(chosen: Mapping[str, Any]) -> tuple[Report, list[str]]:
    """Convert as the command line's options say.

    Returns:
        The account, and lines for the user.

    Raises:
        FsdeployError: anything that a user can put right, before the first frame is written.
    """
    output: Path = chosen["output"]
    values = parse_values(chosen["assignments"], chosen["config"])
    one = is_one_image(chosen["source"], output, chosen["writer"])
    writer_name = chosen["writer"] or ("opencv" if one else writer_for(output))
    checks.check_output(output, chosen["source"], checks.ONE_IMAGE if one else writer_name, chosen["force"])
    if chosen["transparent"] and writer_name not in ("opencv", "pillow"):
        raise InputError(f"--transparent needs images, not the writer '{writer_name}': give a folder as output")
    overrides: dict[str, Any] = {"draw_transparent": True} if chosen["transparent"] else {}
    if one:
        checks.check_whole(chosen)
        overrides["format"] = image_format(output)
    writer = build_writer(writer_name, values, overrides)
    place = output
    if one and isinstance(writer, ImageFolderWriter):
        writer.only, place = output.name, output.parent
    if writer.takes == "frames" and getattr(writer.options, "draw_transparent", False):
        chosen = {**chosen, "transparent": True}  # as the option of the writer asks, without the flag
    if chosen["resume"]:
        checks.check_resume(writer, output)
    ranges = tuple(_range(text) for text in chosen["ranges"])
    source = open_source(chosen["source"])
    checks.check_ranges(ranges, source, chosen["keep_unchanged"])
    checks.check_images(writer, place, source)
    checks.check_single_image(writer, place, source)
    faces = load_faces(chosen["source"], chosen["alignments"], chosen["faces"], chosen["landmarks"])
    checks.check_faces(faces, source)
    choice = _choice(chosen, values)
    checks.check_mask(choice, faces)
    suffix = writer.file_suffix(output)
    shard = _shard(chosen, writer, suffix)
    signing = _signing(chosen, suffix)
    markable = writer.can_mark(output)
    mark = Mark(f"fsdeploy {__version__}") if markable and not chosen["no_mark"] else None
    total = frame_count(source) if shard else 0
    part = shard.bounds(total) if shard else (0, None)
    part_name = f"{shard.index}of{shard.of}" if shard else ""
    written_ranges = () if chosen["keep_unchanged"] else ranges
    if not (chosen["force"] or chosen["resume"] or one):
        checks.check_nothing_is_there(writer, output, source, part, written_ranges, part_name)
    model, look = _load_model(chosen), build_look(choice)
    try_look(look, model)
    job = Conversion(
        source=source,
        faces=faces,
        model=model,
        look=look,
        writer=writer,
        output=place,
        ranges=ranges,
        keep_unchanged=chosen["keep_unchanged"],
        scale=chosen["scale"] / 100.0,
        part=part,
        part_name=part_name,
        batch=chosen["batch"] or (2 if model.provider == "CPUExecutionProvider" else 8),
        jobs=chosen["jobs"] or max(1, min(8, (os.cpu_count() or 2) - 1)),
        rate=_rate(chosen, source),
        audio_from=None if shard else _audio(chosen, source),
        transparent=chosen["transparent"],
        mark=mark,
        on_error=chosen["on_error"],
        resume=chosen["resume"],
    )
    if isinstance(source, VideoFile):
        source.deep = job.writer.deep
    facts = _facts(chosen, source, faces, model, choice, (writer_name, suffix), mark)
    report = Report(facts=facts, damage=list(faces.problems))
    path = chosen["report"] or report_path(output, shard, folder=isinstance(writer, ImageFolderWriter) and not one)
    if isinstance(writer, ImageFolderWriter):
        report.facts["landmarks"]["digests"] = face_digests(faces, source)
    if job.resume:
        redo = frames_to_redo(job, path, report.facts)
        if redo is None and not chosen["force"]:
            checks.check_nothing_is_there(writer, output, source, part, written_ranges, part_name, resuming=True)
        job = replace(job, resume=redo is not None, redo=redo or frozenset())
    report.outdated = set() if one else frames_outdated(job, path, report.facts)

    def save() -> None:
        report.facts["writer"]["encoder"] = job.writer.description
        if shard is not None:
            report.facts["shard"] = part_facts(shard, report, job, total).as_dict()
        report.write(path)

    account = Account(path, save)
    try:
        _run_with_progress(job, report, account)
        if shard is not None:
            check_share(report, job, total)
    finally:
        account.finish(written=report.written > 0, worth_telling=report.read > 0 and bool(report.stopped))
    if not report.written and not report.stopped:
        what = "no frame of it can be decoded" if not report.read else "none of its frames lies in the ranges"
        raise InputError(f"{source.info.path}: {what}, nothing was written")
    if signing is not None:
        sign_outputs(output, suffix, signing, report.facts, source.info.path)
    lines = [*report.summary(), f"wrote {output}"]
    if not (report.stopped or shard or job.ranges):
        unused = len(faces.unused())
        report.facts["landmarks"]["frames_that_do_not_exist"] = unused
        lines += [f"{unused} frames with landmarks do not exist in {source.info.path}"] if unused else []
    if mark is None:
        lines.append(NO_MARK_NOTICE if markable else f"{suffix} files cannot hold a mark; {NO_MARK_NOTICE}")
    return report, lines


def _load_model(chosen: Mapping[str, Any]) -> Swapper:
    path = exported_model(chosen["model"], chosen["swap_sides"])
    strict = chosen["provider"] != "auto"  # one that was asked for by name is not quietly replaced
    model = Swapper(
        path, providers=chosen["provider"], threads=chosen["threads"], batch=chosen["batch"] or 16, strict=strict
    )
    if model.format == "frame":
        raise InputError(f"{path} holds a whole-frame graph: convert needs a plain export ('fsdeploy export')")
    model.warm_up()
    return model


def _choice(chosen: Mapping[str, Any], values: Values) -> Choice:
    original = chosen["compat"] == "faceswap"
    return Choice(
        mask=chosen["mask"],
        edge=chosen["edge"] or (ORIGINAL["edge"] if original else DEFAULT_EDGE),
        color=chosen["color"] or (ORIGINAL["color"] if original else DEFAULT_COLOR),
        sharpen=chosen["sharpen"],
        face_scale=chosen["face_scale"],
        original=original,
        values=values,
    )


def _signing(chosen: Mapping[str, Any], suffix: str) -> SigningKey | None:
    """The key that outputs are signed with; all that can be wrong with it is found before work starts."""
    if not chosen["sign"]:
        return None
    if chosen["no_mark"]:
        raise InputError("--sign and --no-mark contradict each other: choose one")
    if chosen["shard"]:
        raise InputError("a part cannot be signed, for joining changes it: sign with 'fsdeploy join --sign'")
    check_signable(suffix)
    return SigningKey.load(*chosen["sign"])


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", text)
    if not found or int(found.group(1)) > int(found.group(2)):
        raise InputError(f"'{text}' is no frame range: write first-last, for example 10-20 (10-10 for one frame)")
    return int(found.group(1)), int(found.group(2))


def _rate(chosen: Mapping[str, Any], source: FrameSource) -> Fraction:
    if source.info.rate is not None:
        return source.info.rate
    if chosen["reference_video"] is not None and chosen["fps"] is None:
        return VideoFile(chosen["reference_video"]).info.rate or Fraction(25)
    return Fraction(chosen["fps"] or 25).limit_denominator(1001)


def _audio(chosen: Mapping[str, Any], source: FrameSource) -> Path | None:
    if chosen["no_audio"]:
        return None
    if source.info.is_video:
        return source.info.path
    reference: Path | None = chosen["reference_video"]
    return reference


def _facts(
    chosen: Mapping[str, Any], source: FrameSource, faces: FaceIndex, model: Swapper, choice: Choice,
    writer: tuple[str, str], mark: Mark | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "input": str(source.info.path),
        "output": str(chosen["output"]),
        "landmarks": {"file": str(faces.source), "faces": faces.face_count},
        "model": {
            "file": str(model.path),
            "sha256": sha256(model.path),
            "weights_sha256": model.metadata.weights_sha256,
            "direction": model.metadata.direction,
            "provider": model.provider,
        },
        "settings": asdict(choice),
        "output_settings": {name: chosen[name] for name in ("scale", "ranges", "keep_unchanged", "transparent")},
        "writer": {"name": writer[0], "suffix": writer[1]},
        "marked": mark.source_type if mark is not None else False,
        "no_mark": bool(chosen["no_mark"]),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    import av
    import cv2
    import numpy as np
    import onnxruntime

    return {
        "fsdeploy": __version__, "av": av.__version__, "opencv": cv2.__version__, "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }  # fmt: skip


def _shard(chosen: Mapping[str, Any], writer: Writer, suffix: str) -> Shard | None:
    if not chosen["shard"]:
        return None
    if chosen["ranges"] and not chosen["keep_unchanged"]:
        raise InputError(
            "--shard with --range needs --keep-unchanged: parts are placed by the times of the source, and one of them "
            "may hold no frame of the ranges"
        )
    if writer.one_size and suffix not in CONTAINERS:
        raise InputError(f"parts of a {suffix} file cannot be joined: convert it in one piece, without --shard")
    return Shard.parse(chosen["shard"])


def _run_with_progress(job: Conversion, report: Report, account: Account) -> None:
    stop = threading.Event()
    started = time.monotonic()
    with Progress("Converting", total=_expected(job), unit="frames") as progress, _interruptible(stop):

        def advance(current: Report) -> None:
            account.keep_up()
            rate = current.written / max(time.monotonic() - started, 1e-6)
            progress.advance(current.written - progress.done, f"{rate:.1f} fps, {current.faces} faces")

        convert(job, report, advance, stop)


def _expected(job: Conversion) -> int | None:
    """Frames that will be written, as far as that is known."""
    total = job.source.info.count
    first, last = job.part
    if total is None:
        return None
    if job.ranges and not job.keep_unchanged:
        return sum(max(0, min(b, total) - max(a, 1) + 1) for a, b in job.ranges) if job.source.info.is_video else None
    return max(0, (total if last is None else last) - first)


@contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """First Ctrl-C: finish what is in flight and close the file. Second: stop now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        logger.warning("stopping: frames in flight are finished (Ctrl-C again stops at once)")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
