"""Images through Pillow: formats and options that OpenCV lacks."""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from fsdeploy.config.option import option
from fsdeploy.convert.frame import OutputInfo
from fsdeploy.convert.images import ImageFolderWriter
from fsdeploy.convert.provenance import mark_gif
from fsdeploy.errors import InputError

_WITH_ALPHA = ("png", "tif", "webp")
_NAMES = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000", "ppm": "PPM"}
_XMP_TAG = 700


@dataclass(frozen=True)
class PillowOptions:
    """Format and compression."""

    format: str = option("tif", "File format.", choices=("bmp", "gif", "jp2", "jpg", "png", "ppm", "tif", "webp"))
    draw_transparent: bool = option(False, "Write the mask of the faces as alpha (png, tif, webp).")
    separate_mask: bool = option(False, "With draw_transparent: alpha as an image of its own in a folder 'masks'.")
    optimize: bool = option(False, "Smaller gif, jpg and png, more slowly.")
    gif_interlace: bool = option(True, "Interlaced gif.")
    jpg_quality: int = option(95, "Quality of jpg and webp.", minimum=1, maximum=100)
    png_compress_level: int = option(3, "Compression of png: 0 fast, 9 small.", minimum=0, maximum=9)
    tif_compression: str = option(
        "tiff_deflate", "Compression of tif.", choices=("none", "tiff_jpeg", "tiff_adobe_deflate", "tiff_deflate")
    )


class PillowWriter(ImageFolderWriter):
    """One image per frame: tif, png, jpg, webp, jp2, gif, bmp or ppm."""

    Options = PillowOptions

    def check(self, info: OutputInfo) -> None:
        chosen = self.options
        if info.transparent and not chosen.separate_mask and chosen.format not in _WITH_ALPHA:
            raise InputError(f"{chosen.format} holds no alpha: choose {', '.join(_WITH_ALPHA)}, or separate_mask")

    def can_mark(self, output: Path) -> bool:
        return self.options.format in ("gif", "jpg", "png", "tif", "webp")

    def can_alpha(self) -> bool:
        return self.options.format in _WITH_ALPHA

    def encode_pixels(self, image: np.ndarray, xmp: bytes | None) -> bytes:
        chosen = self.options
        if image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
        picture = Image.fromarray(image)
        settings: dict[str, object] = {}
        if chosen.format in ("gif", "jpg", "png"):
            settings["optimize"] = chosen.optimize
        if chosen.format == "gif":
            settings["interlace"] = chosen.gif_interlace
        if chosen.format in ("jpg", "webp"):
            settings["quality"] = chosen.jpg_quality
        if chosen.format == "png":
            settings["compress_level"] = chosen.png_compress_level
        if chosen.format == "tif" and chosen.tif_compression != "none":
            settings["compression"] = chosen.tif_compression
        if xmp is not None and chosen.format != "gif":
            settings |= self._mark(xmp)
        stream = io.BytesIO()
        picture.save(stream, _NAMES.get(chosen.format, chosen.format.upper()), **settings)
        data = stream.getvalue()
        return mark_gif(data, xmp) if xmp is not None and chosen.format == "gif" else data

    def _mark(self, xmp: bytes) -> dict[str, object]:
        """XMP where the format keeps it: a TIFF tag, a PNG text chunk, or Pillow's own parameter."""
        if self.options.format == "tif":
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags.tagtype[_XMP_TAG] = 1
            tags[_XMP_TAG] = xmp
            return {"tiffinfo": tags}
        if self.options.format == "png":
            from PIL.PngImagePlugin import PngInfo

            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", xmp.decode())
            return {"pnginfo": info}
        return {"xmp": xmp}
