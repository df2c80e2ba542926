"""Animated GIF, written frame by frame: memory does not grow with its length."""

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from PIL import Image

from fsdeploy.config.option import option
from fsdeploy.convert.frame import OutputFullError, OutputInfo, Picture
from fsdeploy.convert.plugin import Writer
from fsdeploy.convert.provenance import append_xmp_gif
from fsdeploy.convert.storage import ReservedFile
from fsdeploy.errors import InputError

_TICKS = 100  # GIF counts time in hundredths of a second


@dataclass(frozen=True)
class GifOptions:
    """Rate, palette and loop."""

    fps: int = option(0, "Frames per second; 0 takes the source's.", minimum=0, maximum=50)
    loop: int = option(0, "How often it is repeated; 0 for ever, -1 never.", minimum=-1, maximum=100)
    palette_size: int = option(256, "Colours per frame.", choices=(2, 4, 8, 16, 32, 64, 128, 256))
    dithering: bool = option(False, "Dither, which hides bands and grows the file.")


class GifWriter(Writer):
    """An animated GIF, a palette per frame."""

    Options = GifOptions
    one_size = True

    def open(self, info: OutputInfo) -> None:
        if info.path.suffix.lower() != ".gif" or info.path.is_dir():
            raise InputError(f"{info.path}: the gif writer writes one file: give a name that ends in .gif")
        self._path = info.path
        self._partial = info.path.with_name(f".{info.path.stem}.part.gif")
        self._file = ReservedFile(self._partial)
        self._container: Any = av.open(self._file, "w", format="gif", options={"loop": str(self.options.loop)})
        rate = Fraction(self.options.fps) if self.options.fps else info.rate
        self._step = Fraction(_TICKS) / rate
        self._stream: Any = self._container.add_stream("gif", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = info.width, info.height, "pal8"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._mark = info.mark
        self._count = 0
        self._last = -1

    def can_mark(self, output: Path) -> bool:
        return True

    def encode(self, picture: Picture) -> Any:
        chosen = self.options
        image = Image.fromarray(cv2.cvtColor(picture.image, cv2.COLOR_BGR2RGB))
        reduced = image.quantize(chosen.palette_size, method=Image.Quantize.MEDIANCUT)
        if chosen.dithering:
            reduced = image.quantize(palette=reduced, dither=Image.Dither.FLOYDSTEINBERG)
        colours = np.asarray(reduced.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette = np.zeros((256, 4), np.uint8)
        palette[:, 0] = 255
        palette[: len(colours), 1:] = colours
        return np.asarray(reduced, np.uint8), palette

    def write(self, picture: Picture, encoded: Any) -> None:
        frame = av.VideoFrame.from_ndarray(encoded, format="pal8")
        frame.pts = max(self._last + 1, round(self._step * self._count))
        frame.time_base = Fraction(1, _TICKS)
        self._last = frame.pts
        self._count += 1
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise OutputFullError(f"cannot write {self._path}: {error}") from error
        if self._file.full:
            raise OutputFullError(f"no space left for {self._path}: {self._count} frames were written and are kept")

    def close(self, complete: bool) -> None:
        try:
            if self._count:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
                self._container.close()
                self._file.close()
                if self._mark is not None:
                    append_xmp_gif(self._partial, self._mark.xmp())
                self._partial.replace(self._path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise OutputFullError(f"{self._path} cannot be finished: {error}") from error
        finally:
            with suppress(OSError):
                self._file.close()
            self._partial.unlink(missing_ok=True)
