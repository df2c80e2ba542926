"""Copying sound and subtitles of a video, packet by packet, without decoding them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error

from fsdeploy.errors import InputError

logger = logging.getLogger(__name__)


class SoundCopy:
    """Every audio and subtitle stream of a video, carried over into an output container in step with its pictures.

    Raises:
        InputError: the output's container cannot hold the source's audio.
    """

    def __init__(self, source: Path, output: Any, target: Path) -> None:
        self._input: Any = av.open(str(source), metadata_errors="ignore")
        self._output = output
        self._streams: dict[int, Any] = {}
        self.left_out: list[str] = []
        """Subtitle streams that the container cannot hold, in words."""
        for stream in (*self._input.streams.audio, *self._input.streams.subtitles):
            codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
            if codec not in output.supported_codecs:
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
        self._waiting: Any = None
        self._from = -math.inf
        self._until = -math.inf
        self._shift = 0.0

    def _read(self) -> Iterator[Any]:
        if not self._streams:
            return
        chosen = [stream for stream in self._input.streams if stream.index in self._streams]
        packets = self._input.demux(chosen)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError):
                return
            if packet.size and packet.dts is not None:
                yield packet

    def copy(self, until: float, shift: float, start: float | None) -> None:
        """Copy what sounds before `until`.

        Args:
            until: seconds in the source.
            shift: seconds from source time to output time.
            start: given where pictures were left out before this one: source seconds from which sound counts again.
        """
        if start is not None:
            self._advance(self._until)
            self._from = start
        self._shift, self._until = shift, until
        self._advance(until)

    def finish(self, complete: bool) -> None:
        """Copy the rest: all of it when the pictures are complete and none was left out."""
        whole = complete and self._from == -math.inf
        self._advance(math.inf if whole else self._until)

    def _advance(self, until: float) -> None:
        while True:
            if self._waiting is None:
                self._waiting = next(self._packets, None)
            packet = self._waiting
            if packet is None:
                return
            position = float(packet.dts * packet.time_base)
            if position >= until:
                return
            self._waiting = None
            if position >= self._from - 1e-6:
                self._mux(packet)

    def _mux(self, packet: Any) -> None:
        if self._shift:
            ticks = round(self._shift / packet.time_base)
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
        packet.stream = self._streams[packet.stream.index]
        self._output.mux(packet)

    def close(self) -> None:
        self._input.close()
