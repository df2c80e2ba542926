"""Swapped faces as images of their own, with the matrix that puts each into its frame: for compositing programs."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.frame import OutputInfo, Patch, Picture
from fsdeploy.convert.images import ImageFolderWriter
from fsdeploy.convert.provenance import GENERATED, Mark, mark_png
from fsdeploy.convert.tiff import write_tiff
from fsdeploy.errors import InputError
from fsdeploy.files import write_text

_NUMBERED = re.compile(r"(.*?)[^A-Za-z0-9]?(\d+)")
_ORIGINS = ("bottom-left", "bottom-right", "top-left", "top-right")


@dataclass(frozen=True)
class PatchOptions:
    """Pixels, names and the corner that matrices count from."""

    format: str = option("png", "File format.", choices=("png", "tif"))
    bit_depth: int = option(16, "Bits per channel; 32 (float) in tif only.", choices=(8, 16, 32))
    origin: str = option("bottom-left", "Corner that the matrix and the corners count from.", choices=_ORIGINS)
    empty_frames: str = option("blank", "Frames without a face: one blank patch, or none.", choices=("blank", "skip"))
    start_index: int = option(0, "Number of the frame that the source's names count as first (0 or 1).", choices=(0, 1))
    index_offset: int = option(0, "Added to every number.", minimum=0, maximum=1000)
    number_padding: int = option(6, "Digits of the number.", minimum=0, maximum=10)
    include_filename: bool = option(True, "Begin names with the source's.")
    face_index_location: str = option("before", "Face index before or after the number.", choices=("before", "after"))
    separate_mask: bool = option(False, "Opacity as an image of its own in a folder 'masks'.")
    draw_transparent: bool = option(True, "Keep opacity as alpha.")
    png_compress_level: int = option(3, "Compression of png: 0 fast, 9 small.", minimum=0, maximum=9)


class PatchWriter(ImageFolderWriter):
    """One image per face (BGR and opacity) and matrices.json with the matrix and corners of each."""

    Options = PatchOptions
    takes = "patches"
    _counted_from = 1
    """Number that the source's names give their first frame."""

    def check(self, info: OutputInfo) -> None:
        if self.options.bit_depth == 32 and self.options.format != "tif":
            raise InputError("32 bit patches are written as tif: --set writer.patch.format=tif")
        # A bare patch is wholly generated, not a composite.
        self._mark = None if info.mark is None else Mark(info.mark.software, GENERATED)
        self._blank = Patch(np.zeros((info.patch_size, info.patch_size, 4), np.float32), np.eye(3)[:2])
        self._part = info.part
        self._matrices = self._matrices_there(info.path) if info.resume else {}
        self._counted_from = 0 if any(_number(key) == 0 for key in info.keys or ()) else 1

    def encode(self, picture: Picture) -> Any:
        patches = picture.patches
        if not patches:
            if self.options.empty_frames == "skip":
                return []
            patches = (self._blank,)
        height, width = picture.image.shape[:2]
        return [self._encode_one(picture.key, number, patch, width, height) for number, patch in enumerate(patches)]

    def _encode_one(self, key: str, number: int, patch: Patch, width: int, height: int) -> Any:
        name = self.name(key, number)
        size = patch.pixels.shape[0]
        matrix, corners = placement(patch.matrix, size, width, height, self.options.origin)
        facts = {"transform_matrix": matrix.tolist(), "roi": corners.tolist()}
        pixels = quantised(patch.pixels, self.options.bit_depth)
        if self.options.separate_mask:
            parts: tuple[bytes, bytes | None] = (self._bytes(pixels[..., :3]), self._bytes(pixels[..., 3]))
        else:
            parts = (self._bytes(pixels if self.options.draw_transparent else pixels[..., :3]), None)
        return name, facts, parts

    def _bytes(self, pixels: np.ndarray) -> bytes:
        xmp = None if self._mark is None else self._mark.xmp()
        pixels = np.ascontiguousarray(pixels)
        if self.options.format == "tif":
            return write_tiff(pixels, xmp)
        level = [cv2.IMWRITE_PNG_COMPRESSION, self.options.png_compress_level]
        done, encoded = cv2.imencode(".png", pixels, level)
        if not done:
            raise InputError("OpenCV cannot write this patch: choose another format")
        data = bytes(encoded.tobytes())
        return data if xmp is None else mark_png(data, xmp)

    def encode_pixels(self, image: np.ndarray, xmp: bytes | None) -> bytes:
        return self._bytes(image)

    def name(self, key: str, face: int) -> str:
        """File name without extension of a face: source name, face index, frame number."""
        chosen = self.options
        stem = Path(key).stem
        found = _NUMBERED.fullmatch(stem)
        base = found.group(1) if found else stem
        shift = chosen.start_index - self._counted_from + chosen.index_offset
        number = "" if not found else f".{int(found.group(2)) + shift:0{chosen.number_padding}d}"
        index = f"{face:02d}"
        if chosen.face_index_location == "before":
            return (f"{base}_{index}" if chosen.include_filename and base else index) + number
        return ((base if chosen.include_filename else "") + f"{number}.{index}").lstrip(".")

    def file_name(self, key: str) -> str:
        return f"{self.name(key, 0)}.{self.options.format}"

    def write(self, picture: Picture, encoded: Any) -> None:
        self._forget(picture.key, len(encoded))
        for name, facts, (data, mask) in encoded:
            self._matrices[name] = facts
            self.store(self.folder / f"{name}.{self.options.format}", data)
            if mask is not None:
                self.store(self.folder / "masks" / f"{name}.{self.options.format}", mask)

    def _matrices_there(self, folder: Path) -> dict[str, Any]:
        """What earlier runs wrote of these frames; a part keeps to its own file, for joining adds the others."""
        own = folder / _matrices_name(self._part)
        found: dict[str, Any] = {}
        for path in self.records_there(folder, self._part):
            if not self._part or path == own:
                found.update(_read_matrices(path))
        return found

    def _forget(self, key: str, count: int) -> None:
        """Remove what an earlier run wrote of faces that the frame no longer has. `count`: faces it has now."""
        while (name := self.name(key, count)) in self._matrices:
            del self._matrices[name]
            for folder in (self.folder, self.folder / "masks"):
                (folder / f"{name}.{self.options.format}").unlink(missing_ok=True)
            count += 1

    def has(self, key: str, width: int, height: int) -> bool:
        return False  # a run that goes on writes its frames again, and keeps what there is of others

    def records_there(self, folder: Path, part: str) -> list[Path]:
        whole = folder / _matrices_name("")
        parts = [folder / _matrices_name(part)] if part else sorted(folder.glob(_matrices_name("*of*")))
        return [path for path in (*parts, whole) if path.exists()]

    def close(self, complete: bool) -> None:
        if self._matrices:
            # Parts may share a folder; joining puts their files together.
            write_text(
                self.folder / _matrices_name(self._part),
                json.dumps(dict(sorted(self._matrices.items())), indent=1) + "\n",
            )


def _matrices_name(part: str) -> str:
    return f"matrices.{part}.json" if part else "matrices.json"


def _read_matrices(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no matrices by name")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): convert without --resume, with --force") from error
    return found


def _number(key: str) -> int | None:
    found = _NUMBERED.fullmatch(Path(key).stem)
    return int(found.group(2)) if found else None


def quantised(pixels: np.ndarray, bits: int) -> np.ndarray:
    """0..1 floats as uint8, uint16 or float32."""
    if bits == 32:
        return pixels.astype(np.float32)
    top = (1 << bits) - 1
    return np.asarray(np.rint(np.clip(pixels, 0.0, 1.0) * top), np.uint8 if bits == 8 else np.uint16)


def placement(matrix: np.ndarray, size: int, width: int, height: int, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a patch lies in its frame, counted from a corner of the frame.

    Args:
        matrix: (2, 3) frame pixels to patch pixels, both from the top left.

    Returns:
        (3, 3) matrix patch to frame in the corner's coordinates, and the patch's four corners (4, 2) there, clockwise
        from its top left; for top-right and bottom-left origins in mirrored order, so that they stay clockwise.
    """
    to_frame = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))
    right, bottom = "right" in origin, "bottom" in origin
    if right or bottom:
        corner = to_frame @ np.array([size if right else 0.0, size if bottom else 0.0, 1.0])
        to_frame[0, 2] = width - corner[0] if right else corner[0]
        to_frame[1, 2] = height - corner[1] if bottom else corner[1]
    points = np.array([[0.0, 0.0], [size, 0.0], [size, size], [0.0, size]])
    if right != bottom:
        to_frame[0, 1], to_frame[1, 0] = -to_frame[0, 1], -to_frame[1, 0]
        points = points[[0, 3, 2, 1]]
    return to_frame, points @ to_frame[:2, :2].T + to_frame[:2, 2]
