"""What writers of one image per frame have in common: names, alpha, atomic files, resuming."""

from __future__ import annotations

import struct
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.convert.frame import OutputFullError, OutputInfo, Picture, Status
from fsdeploy.convert.plugin import Writer
from fsdeploy.errors import InputError
from fsdeploy.files import write_bytes
from fsdeploy.images import read_image


class ImageFolderWriter(Writer):
    """Base of image writers. A subclass encodes pixels; its options hold `format` and `separate_mask`."""

    only = ""
    """Name of the one file that is written, where one image is converted into one; by the frame's name if empty."""

    @abstractmethod
    def encode_pixels(self, image: NDArray[np.uint8], xmp: bytes | None) -> bytes:
        """Encode (H, W, 3) BGR, (H, W, 4) BGRA or (H, W) grey pixels as a file's bytes, with XMP where possible."""

    def check(self, info: OutputInfo) -> None:
        """Refuse options that do not fit the output.

        Raises:
            InputError: naming the option.
        """
        return

    def file_suffix(self, output: Path) -> str:
        return f".{self.options.format}"

    def can_mark(self, output: Path) -> bool:
        """Whether the format can carry XMP."""
        return True

    def can_alpha(self) -> bool:
        """Whether the format can carry alpha."""
        return True

    def open(self, info: OutputInfo) -> None:
        self.check(info)
        self.folder, self.info = info.path, info
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: images are written to a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".fsdeploy.tmp"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        if info.source.path.resolve() == self.folder.resolve():
            raise InputError(f"{self.folder} holds the source: write to another folder")

    def path(self, key: str) -> Path:
        """File of a frame."""
        return self.folder / self.file_name(key)

    def file_name(self, key: str) -> str:
        """Name of a frame's file, by the frame's own."""
        return self.only or f"{Path(key).stem}.{self.options.format}"

    def records_there(self, folder: Path, part: str) -> list[Path]:
        """Files of earlier runs that hold something of many frames and tell that images of them are there.

        Args:
            part: what a shard's own files are told apart by, "3of8"; empty when there are no shards.
        """
        return []

    def encode(self, picture: Picture) -> Any:
        xmp = None
        if self.info.mark is not None and self.can_mark(self.folder) and picture.status is Status.SWAPPED:
            xmp = self.info.mark.xmp()
        alpha = picture.alpha
        if alpha is not None and self.options.separate_mask:
            return self.encode_pixels(picture.image, xmp), self.encode_pixels(alpha, xmp)
        image = picture.image
        if alpha is not None and self.can_alpha():
            image = np.dstack([image, alpha])
        return self.encode_pixels(image, xmp), None

    def write(self, picture: Picture, encoded: Any) -> None:
        data, mask = encoded
        path = self.path(picture.key)
        self.store(path, data)
        if mask is not None:
            self.store(self.folder / "masks" / path.name, mask)

    def store(self, path: Path, data: bytes) -> None:
        """Write one file.

        Raises:
            OutputFullError: it cannot be written; the files so far are kept.
        """
        try:
            write_bytes(path, data)
        except InputError as error:
            raise OutputFullError(str(error)) from error

    def has(self, key: str, width: int, height: int) -> bool:
        path = self.path(key)
        return path.is_file() and image_size(path) == (width, height)

    def kept(self, key: str) -> Any:
        path = self.path(key)
        mask = self.folder / "masks" / path.name
        try:
            return path.read_bytes(), mask.read_bytes() if self.options.separate_mask and mask.is_file() else None
        except OSError:
            return None

    def close(self, complete: bool) -> None:
        return

    @property
    def description(self) -> str:
        return f"{type(self).__name__} {self.options.format}"


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image file; read from the header of a PNG, by decoding otherwise. None if damaged."""
    try:
        data = path.read_bytes()
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            if data[-12:-4] != b"\0\0\0\0IEND":
                return None
            width, height = struct.unpack(">II", data[16:24])
            return int(width), int(height)
        image = read_image(path)
    except (InputError, OSError, struct.error):
        return None
    return int(image.shape[1]), int(image.shape[0])
