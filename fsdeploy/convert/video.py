"""Video out: an encoder found by opening it, the source's timing and colours kept, its sound copied whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

from fsdeploy.convert.frame import ColorTags, OutputFullError, Pixels, Timing
from fsdeploy.convert.provenance import ISO_SUFFIXES, Mark, append_xmp_box
from fsdeploy.convert.sound import SoundCopy
from fsdeploy.convert.sources import TO_YUV, UNSPECIFIED, default_matrix
from fsdeploy.convert.storage import ReservedFile
from fsdeploy.convert.timeline import Timeline
from fsdeploy.errors import FsdeployError, InputError

logger = logging.getLogger(__name__)

HEVC_ENCODERS = ("hevc_nvenc", "hevc_qsv", "hevc_videotoolbox", "libx265")
"""For more than 8 bits: few players decode H.264 of that depth."""
H264_ENCODERS = ("h264_nvenc", "h264_qsv", "h264_amf", "h264_videotoolbox", "libx264")
"""Tried in this order; only opening one shows whether the machine has the hardware."""
WEBM_ENCODERS = ("libvpx-vp9", "libsvtav1")
"""WebM holds neither H.264 nor H.265."""
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi", ".webm": "webm",
              ".ts": "mpegts", ".flv": "flv"}  # fmt: skip
ROTATABLE = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Containers that keep a display matrix; FFmpeg's muxers of the others drop it without a word."""
RESTARTED = "the source's timestamps go back: pictures and sound go on there without a gap"
_DEFAULT_TIME_BASE = 90000
_FAILURES = (av.error.FFmpegError, OSError, ValueError, FsdeployError)
"""What encoders, muxers and disks end a file with."""


@dataclass(frozen=True)
class VideoFormat:
    """What is encoded."""

    width: int
    height: int
    """Size of the pictures; odd sizes are padded by one repeated line or column, as chroma needs."""
    rate: Fraction
    tags: ColorTags = field(default_factory=ColorTags)
    """Written as they are; unspecified stays unspecified, so that players treat the output as the source."""
    time_base: Fraction | None = None
    """Of the source's timing, or None: constant rate."""
    sample_aspect: Fraction | None = None
    rotation: int = 0
    """Degrees of the display matrix."""
    encoder: str = "auto"
    reordering: bool = True
    """False: no pictures that refer to later ones, for containers that cannot say when those are shown."""
    bit_depth: int = 8
    """8, or 10 for pictures of 16 bits."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of the encoder, by its own names."""
    crf: int = 20
    preset: str = "faster"

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the coded pixels."""
        return "yuv420p10le" if self.bit_depth > 8 else "yuv420p"

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height made even."""
        return self.width + self.width % 2, self.height + self.height % 2


def encoder_options(name: str, chosen: VideoFormat) -> dict[str, str]:
    """Quality options under the names of an encoder's own."""
    if name == "libx265":
        return {"crf": str(chosen.crf), "preset": chosen.preset, "x265-params": "log-level=error", **chosen.options}
    if name == "libx264":
        return {"crf": str(chosen.crf), "preset": chosen.preset, **chosen.options}
    if name.endswith("_nvenc"):
        return {"rc": "vbr", "cq": str(chosen.crf), "preset": "p4", **chosen.options}
    if name.endswith("_qsv"):
        return {"global_quality": str(chosen.crf), **chosen.options}
    if name.endswith("_amf"):
        return {"rc": "cqp", "qp_i": str(chosen.crf), "qp_p": str(chosen.crf), **chosen.options}
    if name in ("libsvtav1", "libvpx-vp9"):
        return {"crf": str(chosen.crf + 8), **chosen.options}
    return dict(chosen.options)


def find_encoder(chosen: VideoFormat, candidates: tuple[str, ...] = H264_ENCODERS) -> str:
    """The encoder asked for, or the first of the candidates that opens and takes a picture.

    Raises:
        InputError: the one asked for does not work here, or none does; names the options that are to blame.
    """
    if chosen.encoder != "auto":
        problem = _try_encoder(chosen.encoder, chosen)
        if problem is None:
            return chosen.encoder
        refused = _refused_options(chosen.encoder, chosen)
        problem = f"it does not take {' or '.join(refused)}" if refused else problem
        raise InputError(f"the encoder '{chosen.encoder}' does not work here ({problem}): use 'auto' or 'libx264'")
    problems: dict[str, str] = {}
    for name in candidates:
        problem = _try_encoder(name, chosen)
        if problem is None:
            return name
        problems[name] = problem
        logger.debug("encoder %s: %s", name, problem)
    for name in candidates:
        refused = _refused_options(name, chosen)
        if refused:
            raise InputError(f"{name} does not take {' or '.join(refused)} for {chosen.bit_depth} bit video: change it")
    reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    raise InputError(f"no encoder opens here ({reasons}): name one with --set writer.video.encoder=...")


def _refused_options(name: str, chosen: VideoFormat) -> list[str]:
    """Options without which an encoder would open, as "profile=high"; none where it does not open at all."""
    if not chosen.options or _try_encoder(name, replace(chosen, options={})) is not None:
        return []
    alone = {option: {option: value} for option, value in chosen.options.items()}
    found = [option for option in alone if _try_encoder(name, replace(chosen, options=alone[option])) is not None]
    return [f"{option}={chosen.options[option]}" for option in found or chosen.options]


def _candidates(suffix: str, chosen: VideoFormat) -> tuple[str, ...]:
    if suffix == ".webm":
        return WEBM_ENCODERS
    return HEVC_ENCODERS if chosen.bit_depth > 8 else H264_ENCODERS


def _try_encoder(name: str, chosen: VideoFormat) -> str | None:
    """Open an encoder and give it one black picture; None when that works, else why not."""
    try:
        context: Any = av.CodecContext.create(name, "w")
        _set_up(context, name, chosen)
        context.open()
        width, height = chosen.coded_size
        frame = av.VideoFrame(width, height, chosen.pixel_format)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = 0
        context.encode(frame)
        context.encode(None)
    except (av.error.FFmpegError, ValueError, OSError, TypeError) as error:
        return str(error)
    return None


def _set_up(context: Any, name: str, chosen: VideoFormat) -> None:
    context.width, context.height = chosen.coded_size
    context.pix_fmt = chosen.pixel_format
    context.framerate = chosen.rate
    context.time_base = chosen.time_base or Fraction(1, _DEFAULT_TIME_BASE)
    if chosen.sample_aspect:
        context.sample_aspect_ratio = chosen.sample_aspect
    tags = chosen.tags
    context.color_primaries, context.color_trc = tags.primaries, tags.transfer
    context.colorspace, context.color_range = tags.matrix, tags.range
    context.options = encoder_options(name, chosen)
    if not chosen.reordering:
        context.max_b_frames = 0


class VideoOutput:
    """One video file being written. Pictures come in order; the file appears under its name when it is closed.

    Args:
        audio_from: video whose sound and subtitles are copied.
        audio_to_end: copy them to their very end, also where they outlast the pictures.

    Raises:
        InputError: container and codec do not fit, or the folder cannot be written.
    """

    def __init__(
        self, path: Path, chosen: VideoFormat, *, audio_from: Path | None = None, audio_to_end: bool = True,
        mark: Mark | None = None,
    ) -> None:  # fmt: skip
        suffix = path.suffix.lower()
        if suffix not in CONTAINERS:
            raise InputError(f"{path}: a video is written as {', '.join(CONTAINERS)}")
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file")
        if suffix in (".avi", ".flv"):
            chosen = replace(chosen, reordering=False)
        self.path, self._chosen, self._mark = path, chosen, mark
        self.encoder = find_encoder(chosen, _candidates(suffix, chosen))
        self._partial = path.with_name(f".{path.stem}.part{suffix}")
        self._file = ReservedFile(self._partial)
        self._sound: SoundCopy | None = None
        self._audio_to_end = audio_to_end
        self._closed = False
        try:
            self._container: Any = av.open(self._file, "w", format=CONTAINERS[suffix])
            stream: Any = self._container.add_stream(self.encoder, rate=chosen.rate)
            self._stream: Any = stream
            _set_up(self._stream.codec_context, self.encoder, chosen)
            if ("265" in self.encoder or "hevc" in self.encoder) and suffix in ISO_SUFFIXES:
                self._stream.codec_context.codec_tag = "hvc1"  # the tag that Apple's players ask for
            if chosen.rotation:
                self._stream.set_display_rotation(chosen.rotation)
            if audio_from is not None:
                self._sound = SoundCopy(audio_from, self._container, path)
            if mark is not None:
                self._container.metadata["comment"] = f"DigitalSourceType: {mark.source_type}"
            self._container.start_encoding()
        except InputError:
            self._discard()
            raise
        except (av.error.FFmpegError, ValueError, OSError) as error:
            self._discard()
            raise InputError(
                f"{path}: {suffix} cannot hold {self.encoder} video ({error}): use .mp4 or .mkv"
            ) from error
        self._timeline = Timeline(self._time_base, chosen.rate)
        self._count = 0

    @property
    def _time_base(self) -> Fraction:
        return self._chosen.time_base or Fraction(1, _DEFAULT_TIME_BASE)

    def write(self, image: Pixels, timing: Timing | None, contiguous: bool = True) -> None:
        """Encode one (H, W, 3) BGR picture, uint8 or uint16.

        Args:
            timing: when the source shows it; None: at the constant rate.
            contiguous: False when frames of the source were left out before this one: the gap is closed.

        Raises:
            OutputFullError: the disk is full, or the encoder, the muxer or the sound failed; the file so far is kept.
        """
        moment = self._timeline.place(timing, contiguous)
        try:
            frame = self._converted(image)
            frame.pts, frame.time_base = moment.pts, self._time_base
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
            if self._sound is not None:
                self._sound.follow(moment, self._time_base)
        except _FAILURES as error:
            raise OutputFullError(f"cannot write {self.path}: {_cause(error)}") from error
        if self._file.full:
            raise OutputFullError(f"no space left for {self.path}: {self._count} frames were written and are kept")
        self._count += 1

    def _converted(self, image: Any) -> av.VideoFrame:
        """The picture in the coded pixel format, with the matrix and range that the tags name."""
        width, height = self._chosen.coded_size
        if image.shape[:2] != (height, width):
            bottom, right = height - image.shape[0], width - image.shape[1]
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        tags = self._chosen.tags
        matrix = tags.matrix if tags.matrix != UNSPECIFIED else default_matrix(self._chosen.height)
        given = "bgr48le" if image.dtype == np.uint16 else "bgr24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=given).reformat(
            format=self._chosen.pixel_format,
            dst_colorspace=matrix,
            dst_color_range=2 if tags.range == 2 else 1,
            interpolation=TO_YUV,
        )
        frame.colorspace, frame.color_range = tags.matrix, tags.range
        return frame

    def close(self, complete: bool = True) -> None:
        """Finish the file and give it its name. `complete`: copy the sound to its very end.

        Raises:
            OutputFullError: pictures or sound at its end are missing; what could be finished has its name.
        """
        if self._closed:
            return
        self._closed = True
        failure: Exception | None = None
        try:
            if self._count:
                failure = self._finish(complete)
        finally:
            self._discard()  # whatever happens, nothing is left of it but the file that has its name
        if failure is not None:
            raise OutputFullError(f"{self.path} cannot be finished: {_cause(failure)}") from failure

    def _finish(self, complete: bool) -> Exception | None:
        failure = self._attempt(self._flush) or self._attempt(lambda: self._finish_sound(complete))
        unusable = self._attempt(self._container.close) or self._attempt(self._file.close)
        if unusable is None:
            self._mark_box()
            unusable = self._attempt(lambda: self._partial.replace(self.path))
        return failure or unusable

    def _flush(self) -> None:
        for packet in self._stream.encode(None):
            self._container.mux(packet)

    def _finish_sound(self, complete: bool) -> None:
        if self._sound is not None:
            self._sound.finish(complete and self._audio_to_end)

    def _mark_box(self) -> None:
        if self._mark is not None and self.path.suffix.lower() in ISO_SUFFIXES:
            try:
                append_xmp_box(self._partial, self._mark.xmp())
            except OSError as error:
                logger.warning("%s carries no XMP (%s), only its comment tag", self.path, error.strerror)

    @staticmethod
    def _attempt(step: Callable[[], object]) -> Exception | None:
        """What went wrong in a step of finishing the file; the steps after it are still taken."""
        try:
            step()
        except _FAILURES as error:
            return error
        return None

    def _discard(self) -> None:
        if self._sound is not None:
            self._sound.close()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def notes(self) -> list[str]:
        """What is not in the file, or not as it was in the source; for the report."""
        notes = [RESTARTED] * self._timeline.restarts
        return notes + ([f"left out: {entry}" for entry in self._sound.left_out] if self._sound is not None else [])


def _cause(error: Exception) -> str:
    """One line, without the numbers and file names that FFmpeg and the system put around it."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
