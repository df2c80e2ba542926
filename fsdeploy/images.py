"""The one image reader and writer. Everything in memory is BGR uint8, (H, W, 3), unless a name says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.files import write_bytes

IMAGE_EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
UNREAD_IMAGES = frozenset({".exr", ".heic", ".webp"})
"""Kinds that people keep frames in and that are not read. OpenCV's wheels are built without OpenEXR."""
VIDEO_EXTENSIONS = frozenset({".avi", ".flv", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv", ".ts", ".vob"})


def to_bgr8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring a decoded image to (H, W, 3) uint8 BGR: grey is replicated, alpha dropped, 16 bit and float scaled."""
    if image.dtype == np.uint16:
        image = (image / 65535.0 * 255.0).astype(np.uint8)
    elif np.issubdtype(image.dtype, np.floating):
        image = (np.clip(np.nan_to_num(image), 0.0, 1.0) * 255.0).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise ValueError(f"unsupported pixel type {image.dtype}")
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image file's bytes to (H, W, 3) uint8 BGR.

    Raises:
        InputError: the bytes are no readable image; `name` is the file named in the message.
    """
    decoded = None
    if data:
        try:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            decoded = None
    if decoded is None:
        raise InputError(f"{name} is not a readable image: it may be truncated; restore or delete it")
    return to_bgr8(decoded)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 BGR.

    Raises:
        InputError: the file is missing, unreadable or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_image(data, str(path))


def encode_image(image: NDArray[np.uint8], extension: str, parameters: list[int] | None = None) -> bytes:
    """Encode a BGR (H, W, 3), BGRA (H, W, 4) or grey (H, W) uint8 image; `extension` as ".png"."""
    done, data = cv2.imencode(extension, image, parameters or [])
    if not done:
        raise InputError(f"cannot encode a {extension} image: use .png or .jpg")
    return data.tobytes()


def write_image(path: Path, image: NDArray[np.uint8], parameters: list[int] | None = None) -> None:
    """Write an image atomically, in the format of the path's extension."""
    write_bytes(path, encode_image(image, path.suffix.lower(), parameters))
