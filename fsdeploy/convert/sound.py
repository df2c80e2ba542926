"""Copying sound and subtitles of a video, packet by packet, without decoding them."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import av.error

from fsdeploy.convert.timeline import Moment
from fsdeploy.errors import InputError

logger = logging.getLogger(__name__)

_TAIL_S = 30.0
"""Sound that outlasts the pictures of its recording by more is no sign that another one follows."""

_UNLISTED: Final = {"mpegts": frozenset({"aac", "ac3", "dts", "eac3", "mp2", "mp3", "opus"})}
"""What a muxer takes beyond the codecs it lists: MPEG-TS has no table of tags, so only its defaults are listed.
Source: https://ffmpeg.org/ffmpeg-formats.html#mpegts-1 and ISO/IEC 13818-1, stream types."""


class SoundCopy:
    """Every audio and subtitle stream of a video, carried over into an output container in step with its pictures.

    Raises:
        InputError: the output's container cannot hold the source's audio.
    """

    def __init__(self, source: Path, output: Any, target: Path) -> None:
        try:
            self._input: Any = av.open(str(source), metadata_errors="ignore")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"the sound of {source} cannot be read ({error}): pass --no-audio") from error
        self._output = output
        self._streams: dict[int, Any] = {}
        self.left_out: list[str] = []
        """What is not copied, in words: subtitles that the container cannot hold, sound that belongs to no picture."""
        for stream in (*self._input.streams.audio, *self._input.streams.subtitles):
            codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
            if codec not in output.supported_codecs | _UNLISTED.get(output.format.name, frozenset()):
                if stream.type == "audio":
                    self._input.close()
                    raise InputError(
                        f"{target.suffix} cannot hold the {codec} sound of {source}: write .mkv, or pass --no-audio"
                    )
                self.left_out.append(f"subtitles ({codec})")
                logger.warning("%s cannot hold the %s subtitles of %s: left out", target.suffix, codec, source)
                continue
            copy = output.add_stream_from_template(stream)
            copy.metadata.update(stream.metadata)
            self._streams[stream.index] = copy
        self._packets = self._read()
        self._ahead: deque[tuple[int, Any]] = deque()
        """Packets that were read and are not copied yet, each with its lap."""
        self._lap = 0
        """How often the source's times have gone back before what is copied now."""
        self._from = -math.inf
        self._until = -math.inf
        self._shift = 0.0
        self._gaps = False
        self._last: dict[int, int] = {}

    def _read(self) -> Iterator[tuple[int, Any]]:
        """Packets, each with how often the times of the sound have gone back before it."""
        if not self._streams:
            return
        chosen = [stream for stream in self._input.streams if stream.index in self._streams]
        packets = self._input.demux(chosen)
        lap, last = 0, dict[int, int]()
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError):
                return
            if not packet.size or packet.dts is None:
                continue
            if packet.stream.type == "audio":  # subtitles may be stored out of order
                if packet.dts < last.get(packet.stream.index, packet.dts):
                    lap, last = lap + 1, {}
                last[packet.stream.index] = packet.dts
            yield lap, packet

    def follow(self, moment: Moment, time_base: Fraction) -> None:
        """Copy what sounds until the end of the picture at `moment`, whose units are `time_base`."""
        start = float(moment.given * time_base)
        if moment.restarted:
            self._next_lap(start)
        if moment.after_gap:
            self._gaps = True
            self._advance(self._until)
            self._from = start
        self._shift, self._until = float(moment.shift * time_base), float(moment.until * time_base)
        self._advance(self._until)

    def copy(self, until: float) -> None:
        """Copy what sounds before `until`, in seconds of the source, at its own time."""
        self._until = until
        self._advance(until)

    def finish(self, whole: bool) -> None:
        """Copy the rest: all of it when `whole` and no picture was left out, else what sounds with the pictures."""
        self._advance(math.inf if whole and not self._gaps else self._until)
        if self._ahead and self._ahead[0][0] > self._lap:
            logger.warning("the sound's timestamps go back where those of the pictures do not: the rest is left out")
            self.left_out.append("sound after its timestamps went back")

    def _next_lap(self, start: float) -> None:
        """Go on behind the place where the sound's times go back, too, with what sounds from `start` on."""
        self._advance(self._until)
        skipped: deque[tuple[int, Any]] = deque()
        while self._peek() is not None:
            lap, packet = self._ahead.popleft()
            skipped.append((lap, packet))
            if lap > self._lap:
                self._lap, self._from = lap, start
                self._ahead.appendleft(skipped.pop())
                return
            if float(packet.dts * packet.time_base) > self._until + _TAIL_S:
                break
        self._ahead.extendleft(reversed(skipped))  # the sound goes straight on: only the pictures' times went back

    def _peek(self) -> tuple[int, Any] | None:
        if not self._ahead:
            found = next(self._packets, None)
            if found is None:
                return None
            self._ahead.append(found)
        return self._ahead[0]

    def _advance(self, until: float) -> None:
        while (found := self._peek()) is not None:
            lap, packet = found
            position = float(packet.dts * packet.time_base)
            if lap > self._lap or position >= until:
                return
            self._ahead.popleft()
            if position >= self._from - 1e-6:
                self._mux(packet)

    def _mux(self, packet: Any) -> None:
        ticks = round(self._shift / packet.time_base)
        index = packet.stream.index
        if self._lap or self._gaps:  # where two stretches meet, the last packet of the first reaches into the second
            ticks = max(ticks, self._last.get(index, packet.dts + ticks - 1) + 1 - packet.dts)
        if ticks:
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
        self._last[index] = packet.dts
        packet.stream = self._streams[index]
        self._output.mux(packet)

    def close(self) -> None:
        self._input.close()
