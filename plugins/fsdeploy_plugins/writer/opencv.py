"""Images through OpenCV."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.frame import OutputInfo
from fsdeploy.convert.images import ImageFolderWriter
from fsdeploy.convert.provenance import mark_jpeg, mark_png
from fsdeploy.convert.tiff import write_tiff
from fsdeploy.errors import InputError

_WITH_ALPHA = ("png", "tif")
_MARKERS = {"png": mark_png, "jpg": mark_jpeg}


@dataclass(frozen=True)
class OpenCVOptions:
    """Format and compression."""

    format: str = option("png", "File format.", choices=("bmp", "jpg", "png", "ppm", "tif"))
    draw_transparent: bool = option(False, "Write the mask of the faces as alpha (png, tif).")
    separate_mask: bool = option(False, "With draw_transparent: alpha as an image of its own in a folder 'masks'.")
    jpg_quality: int = option(95, "Quality of jpg.", minimum=1, maximum=100)
    png_compress_level: int = option(1, "Compression of png: 0 fast, 9 small.", minimum=0, maximum=9)


class OpenCVWriter(ImageFolderWriter):
    """One image per frame: png, jpg, tif, bmp or ppm."""

    Options = OpenCVOptions

    def check(self, info: OutputInfo) -> None:
        chosen = self.options
        if info.transparent and not chosen.separate_mask and chosen.format not in _WITH_ALPHA:
            raise InputError(f"{chosen.format} holds no alpha: choose {', '.join(_WITH_ALPHA)}, or separate_mask")

    def can_mark(self, output: Path) -> bool:
        return self.options.format in (*_MARKERS, "tif")

    def can_alpha(self) -> bool:
        return self.options.format in _WITH_ALPHA

    def encode_pixels(self, image: np.ndarray, xmp: bytes | None) -> bytes:
        chosen = self.options
        parameters = {
            "png": [cv2.IMWRITE_PNG_COMPRESSION, chosen.png_compress_level],
            "jpg": [cv2.IMWRITE_JPEG_QUALITY, chosen.jpg_quality],
        }.get(chosen.format, [])
        if chosen.format == "tif":  # OpenCV's own cannot be marked
            return write_tiff(image, xmp)
        extension = f".{chosen.format}"
        done, pixels = cv2.imencode(extension, image, parameters)
        if not done:
            raise InputError(f"OpenCV cannot write {extension} here: choose another format")
        data = bytes(pixels.tobytes())
        return _MARKERS[chosen.format](data, xmp) if xmp is not None else data
