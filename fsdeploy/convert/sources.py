"""Frames in: video files through PyAV, folders of images of every kind. Nothing of the source is written."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
import av.stream
import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.convert.frame import ColorTags, Frame, Pixels, SourceInfo, Timing
from fsdeploy.convert.integrity import missing_bytes
from fsdeploy.errors import InputError
from fsdeploy.images import IMAGE_EXTENSIONS, UNREAD_IMAGES, VIDEO_EXTENSIONS, to_bgr8

logger = logging.getLogger(__name__)

# swscale's bicubic with exact rounding, and with full chroma on the way to BGR: reading and writing again then changes
# flat colours by 2 levels at most and without bias; its quick path darkens them by 2 to 5 levels each time.
TO_YUV = 4 | 0x40000
TO_BGR = 4 | 0x40000 | 0x2000
BT709, BT601, UNSPECIFIED = 1, 5, 2
_MAX_PIXELS = 1 << 28
_MAX_LEADING = 300
"""So many frames behind a seek are looked at for a key frame."""


class FrameSource(Protocol):
    """Something that frames come from, in order."""

    info: SourceInfo

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[Frame]:
        """Frames `first` <= index < `last`."""
        ...

    def keys(self) -> list[str] | None:
        """Every frame's key where known without decoding (folders), else None."""
        ...


def open_source(path: Path) -> FrameSource:
    """A video file, a folder of images or a single image.

    Raises:
        InputError: nothing there, of an unknown kind, unreadable, or without frames.
    """
    if path.is_dir():
        return ImageFolder(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: give a video file, a folder of images or an image")
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return SingleImage(path)
    if path.suffix.lower() not in VIDEO_EXTENSIONS:
        known = " ".join(sorted(VIDEO_EXTENSIONS))
        raise InputError(
            f"{path} is no known video or image: give a folder of images, an image, or a file ending in {known}"
        )
    return VideoFile(path)


def frame_number(name: str) -> int | None:
    """The run of digits right before the extension of a file name, or None."""
    found = re.search(r"(\d+)$", Path(name).stem)
    return int(found.group(1)) if found else None


class ImageFolder:
    """A folder of images, sorted by name. 16 bit, grey, float and alpha are understood."""

    def __init__(self, path: Path) -> None:
        # Names that begin with a dot are other programs' notes about files, under the files' own endings.
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file()]
        self.files = sorted(
            (entry for entry in entries if entry.suffix.lower() in IMAGE_EXTENSIONS), key=lambda entry: entry.name
        )
        others = [entry.name for entry in entries if entry.suffix.lower() in UNREAD_IMAGES]
        if others and self.files:
            logger.warning("%s: %d images are left out, for %s is not read", path, len(others), Path(others[0]).suffix)
        if not self.files:
            known = " ".join(sorted(IMAGE_EXTENSIONS))
            hint = f"; {others[0]} is of a kind that is not read: save the frames as 16-bit .png" if others else ""
            raise InputError(f"{path} holds no images ({known}){hint}")
        self._begin(path)

    def _begin(self, path: Path) -> None:
        first = next((frame for frame in self.frames() if frame.image is not None), None)
        if first is None or first.image is None:
            problem = next((frame.error for frame in self.frames()), "")
            many = f"{path} holds no readable image: all {len(self.files)} are damaged"
            raise InputError(many if path.is_dir() else problem)
        height, width = first.image.shape[:2]
        self.info = SourceInfo(path, False, width, height, len(self.files))

    def keys(self) -> list[str] | None:
        return [entry.name for entry in self.files]

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[Frame]:
        for index, path in list(enumerate(self.files))[first:last]:
            number = frame_number(path.name)
            try:
                image, alpha = read_with_alpha(path)
                yield Frame(index, path.name, number, image, alpha)
            except InputError as error:
                yield Frame(index, path.name, number, None, error=str(error))


class SingleImage(ImageFolder):
    """One image file: a source of one frame."""

    def __init__(self, path: Path) -> None:
        self.files = [path]
        self._begin(path)


def read_with_alpha(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Read an image as (H, W, 3) uint8 BGR and its (H, W) uint8 alpha, if it has one.

    Raises:
        InputError: missing, empty, truncated or absurdly large.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    decoded = None
    if data.size:
        try:
            decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise InputError(f"{path} cannot be decoded ({error.err}): restore or delete it") from error
    if decoded is None or decoded.shape[0] * decoded.shape[1] > _MAX_PIXELS:
        raise InputError(f"{path} is not a readable image: it may be truncated; restore or delete it")
    try:
        if decoded.ndim == 3 and decoded.shape[2] == 4:
            return to_bgr8(decoded), to_bgr8(decoded[..., 3])[..., 0]
        return to_bgr8(decoded), None
    except ValueError as error:
        raise InputError(f"{path} has an {error}: save it as 8 or 16 bit") from error


class VideoFile:
    """A video file. Frames keep their timestamps; colours are read with the matrix that the file names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as container:
            stream = _video_stream(container, path)
            context = stream.codec_context
            if not context.width or not context.height:
                raise InputError(f"{path} holds no decodable video: its header is damaged")
            self.info = SourceInfo(
                path=path,
                is_video=True,
                width=context.width,
                height=context.height,
                count=_count_hint(stream, container),
                rate=stream.average_rate or stream.guessed_rate or Fraction(25),
                time_base=stream.time_base,
                tags=ColorTags(
                    int(context.color_primaries), int(context.color_trc), int(context.colorspace),
                    int(context.color_range),
                ),
                bit_depth=max((part.bits for part in context.format.components), default=8),
                sample_aspect=stream.sample_aspect_ratio,
                rotation=_rotation(container, stream),
            )  # fmt: skip
        self.deep = False
        """Set to have frames of more than 8 bits as uint16."""
        cut = missing_bytes(path)
        self.damage: list[str] = [f"the file is cut off: {cut} bytes are missing at its end"] if cut else []
        """What could not be decoded, in words; the frames around it are kept."""

    def keys(self) -> list[str] | None:
        return None

    def key(self, index: int) -> str:
        """Name of the frame as alignments files write it."""
        return f"{self.path.stem}_{index + 1:06d}{self.path.suffix}"

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[Frame]:
        index = 0
        times = frame_times(self.path) if first or last is not None else None
        with _open(self.path) as container:
            stream = _video_stream(container, self.path)
            stream.thread_type = "AUTO"
            if first and times is not None:
                self._seek(container, stream, times, first)
            for decoded in self._decoded(container, stream):
                if times is not None and decoded.pts is not None:
                    place = int(np.searchsorted(times, decoded.pts))
                    index = place if place < len(times) and times[place] == decoded.pts else index
                if last is not None and index >= last:
                    return
                if index >= first:
                    image = to_bgr(decoded, self.deep and self.info.bit_depth > 8)
                    timing = None
                    if decoded.pts is not None and decoded.time_base is not None:
                        timing = Timing(decoded.pts, decoded.time_base, decoded.duration or 0)
                    yield Frame(index, self.key(index), index + 1, image, timing=timing)
                index += 1

    def decoded_times(self) -> Iterator[int | None]:
        """Timestamp of every frame, found by decoding all of them; None where a frame has none."""
        with _open(self.path) as container:
            stream = _video_stream(container, self.path)
            stream.thread_type = "AUTO"
            for decoded in self._decoded(container, stream):
                yield decoded.pts

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decoded frames; packets that cannot be decoded are noted and skipped."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                yield from packet.decode()
            except StopIteration:
                return
            except (av.error.FFmpegError, ValueError) as error:
                self._note(error)
                if isinstance(error, av.error.EOFError):
                    return
                if len(self.damage) > 1000:
                    return

    def _note(self, error: Exception) -> None:
        if len(self.damage) < 2:
            logger.warning("%s is damaged (%s): what can be decoded is converted", self.path, error)
        self.damage.append(str(error))

    def _seek(self, container: Any, stream: Any, times: NDArray[np.int64], first: int) -> None:
        """Go to a key frame at or before frame `first`; to the beginning where none is found."""
        target = int(times[min(first, len(times) - 1)])
        container.seek(target, stream=stream, backward=True, any_frame=False)
        decoded = itertools.islice(self._decoded(container, stream), _MAX_LEADING)
        key = next((frame.pts for frame in decoded if frame.key_frame and frame.pts is not None), None)
        # Frames that are shown before a key frame but stored after it cannot be decoded from there.
        start = target if key is not None and key <= target else int(times[0])
        container.seek(start, stream=stream, backward=True, any_frame=False)


def frame_times(path: Path) -> NDArray[np.int64] | None:
    """Timestamps of a video's frames in display order, read from its packets; None where they cannot be trusted.

    Packets that an edit list hides, and those before the first frame that can be decoded, are no frames.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        times: list[int] = []
        try:
            for packet in container.demux(stream):
                if packet.size and packet.pts is None:
                    return None
                if packet.size and not packet.is_discard:
                    times.append(packet.pts)
        except av.error.FFmpegError as error:
            logger.warning("%s is damaged (%s)", path, error)
    ordered = np.unique(np.asarray(times, np.int64))
    if len(ordered) != len(times) or not times:
        return None
    begin = _first_time(path)
    return None if begin is None or begin not in ordered else ordered[ordered >= begin]


def _first_time(path: Path) -> int | None:
    with _open(path) as container:
        try:
            return next((frame.pts for frame in container.decode(_video_stream(container, path))), None)
        except (av.error.FFmpegError, ValueError):
            return None


def to_bgr(frame: av.VideoFrame, deep: bool = False) -> Pixels:
    """(H, W, 3) BGR of a decoded frame, uint8 or (deep) uint16.

    The matrix is the one that it is tagged with; where it is not, BT.709 for HD and BT.601 below.
    """
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED:
        matrix = default_matrix(frame.height)
    pixels: Any = frame.to_ndarray(format="bgr48le" if deep else "bgr24", src_colorspace=matrix, interpolation=TO_BGR)
    return np.asarray(pixels, np.uint16 if deep else np.uint8)


def default_matrix(height: int) -> int:
    """The matrix that players assume where a video names none."""
    return BT709 if height >= 720 else BT601


def _open(path: Path) -> Any:
    try:
        return av.open(str(path), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a video ({error}): is it complete?") from error


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise InputError(f"{path} holds no video stream")
    # Cover pictures are video streams, too.
    pictures = av.stream.Disposition.attached_pic
    return (
        next((stream for stream in container.streams.video if not stream.disposition & pictures), None)
        or (container.streams.video[0])
    )


def _rotation(container: Any, stream: Any) -> int:
    """Degrees of the display matrix, which decoders attach to frames."""
    try:
        return int(next(container.decode(stream)).rotation)
    except (StopIteration, av.error.FFmpegError, ValueError):
        return 0


def _count_hint(stream: Any, container: Any) -> int | None:
    if stream.frames:
        return int(stream.frames)
    rate = stream.average_rate or stream.guessed_rate
    if container.duration and rate:
        return max(1, int(container.duration / av.time_base * rate + 0.5))
    return None
