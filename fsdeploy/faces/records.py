"""What a face file and an alignments file say about a face, as frozen records. Readers check every value first."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import HostileFileError, InputError
from fsdeploy.faces.bounds import inflate
from fsdeploy.faces.pose import Centering

MAX_MASK_EDGE: Final = 4096
"""Largest edge of a stored mask that is read or written."""
CURRENT_VERSION: Final = 2.4
"""Version of the alignments data that this package writes."""


@dataclass(frozen=True)
class StoredMask:
    """A mask of one face as files keep it."""

    data: bytes
    """zlib stream of the raw (Z, Z) uint8 mask in C order: 0 background, 255 face."""
    affine_matrix: NDArray[np.float64]
    """(2, 3): frame pixels -> mask pixels."""
    interpolator: int
    """OpenCV flag that the writer proposed for pasting. Writers disagree on its meaning; nothing here uses it."""
    stored_size: int
    """Edge Z of the mask in pixels."""
    stored_centering: Centering = "face"
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of newer files, kept as they are."""

    def decompress(self) -> NDArray[np.uint8]:
        """(Z, Z) uint8.

        Raises:
            InputError: the stream is damaged or holds fewer pixels than it says.
            HostileFileError: it holds more.
        """
        count = self.stored_size**2
        pixels = inflate(self.data, count, "a stored mask")
        if len(pixels) != count:
            raise InputError(f"a stored mask holds {len(pixels)} of {count} pixels: extract the mask again")
        return np.frombuffer(pixels, np.uint8).reshape(self.stored_size, self.stored_size).copy()

    @classmethod
    def from_pixels(
        cls, pixels: NDArray[np.uint8], affine_matrix: NDArray[np.floating], centering: Centering
    ) -> StoredMask:
        """Pack a (Z, Z) uint8 mask whose pixels `affine_matrix` (2, 3) reaches from the frame.

        Raises:
            HostileFileError: the mask is larger than a reader would accept.
        """
        if pixels.ndim != 2 or pixels.shape[0] != pixels.shape[1] or pixels.shape[0] > MAX_MASK_EDGE:
            raise HostileFileError(f"a mask of shape {pixels.shape} cannot be stored: use a square of at most 4096 px")
        return cls(
            zlib.compress(np.ascontiguousarray(pixels, np.uint8).tobytes()),
            np.asarray(affine_matrix, np.float64)[:2],
            1,
            pixels.shape[0],
            centering,
        )


@dataclass(frozen=True)
class FaceRecord:
    """One face of one frame."""

    x: int
    """Left of the detector's box in the frame; may be negative."""
    y: int
    """Top of the box."""
    w: int
    h: int
    landmarks: NDArray[np.float32]
    """(n, 2) frame pixels; n is 4, 51, 68 or 98."""
    masks: Mapping[str, StoredMask] = field(default_factory=dict)
    """Mask name -> mask; may be empty."""
    identity: Mapping[str, list[float]] = field(default_factory=dict)
    """Embedding name -> values. Not used by training."""
    thumb: bytes | None = None
    """JPEG of the head-centred face, 96 px; only in alignments files."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of newer or older files (such as `hash`), kept as they are."""


@dataclass(frozen=True)
class FaceSource:
    """Where a face image comes from."""

    alignments_version: float = CURRENT_VERSION
    """1.0 marks an image that is legacy-centred; 2.0 and later are head-centred."""
    original_filename: str = ""
    """File name at extraction."""
    face_index: int = 0
    """Position of the face in its frame."""
    source_filename: str = ""
    """Base name of the frame."""
    source_is_video: bool = False
    source_frame_dims: tuple[int, int] | None = None
    """(height, width) of the frame; None in older files."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stored_centering(self) -> Centering:
        """Centering of the image's pixels."""
        return "legacy" if self.alignments_version < 2.0 else "head"


@dataclass(frozen=True)
class FaceHeader:
    """Everything that a face PNG says about itself."""

    face: FaceRecord
    source: FaceSource
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Top-level keys of newer files, kept as they are."""
