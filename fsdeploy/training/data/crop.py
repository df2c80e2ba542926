"""From a face file to what the model is trained on: the crop and its masks at the processing size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import InputError
from fsdeploy.faces.geometry import Centering, sub_crop
from fsdeploy.faces.masks import landmark_mask, stored_mask
from fsdeploy.images import read_image
from fsdeploy.training.data.cache import crop_digest
from fsdeploy.training.data.masks import DRAWN_MASKS, MaskName, mask_names
from fsdeploy.training.data.scan import SMALLEST_FACE, ScannedFace

_FORMAT = 1
"""Counts changes of what a crop looks like: kept crops of another number are not used."""


@dataclass(frozen=True)
class CropSpec:
    """Everything that decides what a face's crop looks like, apart from the face."""

    size: int
    """Edge P in pixels."""
    centering: Centering
    coverage: float
    """Share 0.625..1 of the centred face."""
    vertical_offset: float
    """Share -0.25..0.25; positive moves the face down."""
    masks: tuple[MaskName, ...]
    mask_type: str
    dilation: float
    """Percent of the mask's edge."""
    blur_kernel: int
    threshold: int
    """Percent."""

    @classmethod
    def from_options(cls, options: TrainingOptions, size: int) -> CropSpec:
        """The crops that a run with `options` trains on, at edge `size`."""
        face, mask = options.face, options.mask
        centering: Centering = face.centering  # type: ignore[assignment]
        return cls(
            size,
            centering,
            face.coverage / 100,
            face.vertical_offset / 100,
            mask_names(options),
            mask.mask_type,
            mask.mask_dilation,
            mask.mask_blur_kernel,
            mask.mask_threshold,
        )

    def at(self, size: int, coverage: float, masks: tuple[MaskName, ...]) -> CropSpec:
        """The same face at another size, coverage and with other masks."""
        return replace(self, size=size, coverage=coverage, masks=masks)

    def digest(self, face: ScannedFace) -> bytes:
        """16 bytes that change whenever the crop of this face may have changed."""
        return crop_digest(_FORMAT, cv2.__version__, self, face.path.name, face.file_size, face.changed)

    def cut(self, face: ScannedFace, image: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Crop of a face and its masks, as one row of bytes: (P, P, 3) BGR, then (masks, P, P); see `split`.

        Args:
            image: the decoded file, if it is at hand.

        Raises:
            InputError: the file has become unreadable, or its stored mask is damaged.
        """
        if image is None:
            image = read_image(face.path)
        if image.shape[0] != image.shape[1] or image.shape[0] < SMALLEST_FACE:
            raise InputError(
                f"{face.path} is now {image.shape[1]}x{image.shape[0]}, which is no face: extract it again"
            )
        stored: Centering = "legacy" if face.legacy else "head"
        colour = sub_crop(
            image, face.aligned.offsets, stored, self.centering, self.coverage, self.vertical_offset, self.size
        )
        parts = [colour.ravel()]
        parts.extend(self._mask(face, name).ravel() for name in self.masks)
        return np.concatenate(parts)

    def split(self, row: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Views (P, P, 3) BGR and (masks, P, P) of a row made by `cut`."""
        border = 3 * self.size**2
        edges = (self.size, self.size)
        return row[:border].reshape(*edges, 3), row[border:].reshape(len(self.masks), *edges)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row made by `cut`."""
        return (3 + len(self.masks)) * self.size**2

    def _mask(self, face: ScannedFace, name: MaskName) -> NDArray[np.uint8]:
        if name == "face" and self.mask_type not in DRAWN_MASKS:
            assert face.mask is not None
            return stored_mask(
                face.mask,
                dict(face.aligned.offsets),
                self.centering,
                self.coverage,
                self.vertical_offset,
                self.size,
                self.dilation,
                self.blur_kernel,
                self.threshold,
            )
        points = face.aligned.aligned_landmarks(self.size, self.centering, self.coverage, self.vertical_offset)
        if name != "face":
            return landmark_mask(name, points, self.size)
        kind = self.mask_type
        return landmark_mask(kind, points, self.size, self.dilation, self.blur_kernel)  # type: ignore[arg-type]
