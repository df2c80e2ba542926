"""Bringing pictures to the output's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2


@dataclass(frozen=True)
class Sizing:
    """How pictures of a source become pictures of an output. Sizes are (width, height)."""

    source: tuple[int, int]
    output: tuple[int, int]
    scale: float
    one_size: bool
    """True: pictures of another size than the source's are fitted into the output's, with black around them."""

    def __call__(self, image: Any) -> Any:
        """The picture (H, W) or (H, W, C), uint8 or uint16, at output size; the same array where nothing changes."""
        height, width = image.shape[:2]
        if (width, height) == self.source or not self.one_size:
            return resized(image, (max(2, round(width * self.scale)), max(2, round(height * self.scale))))
        factor = min(self.output[0] / width, self.output[1] / height)
        small = resized(image, (max(1, round(width * factor)), max(1, round(height * factor))))
        left, top = (self.output[0] - small.shape[1]) // 2, (self.output[1] - small.shape[0]) // 2
        right, bottom = self.output[0] - small.shape[1] - left, self.output[1] - small.shape[0] - top
        return cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)


def resized(image: Any, size: tuple[int, int]) -> Any:
    """Enlarged by cubic interpolation, shrunk by averaging."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    way = cv2.INTER_CUBIC if size[0] > image.shape[1] else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=way)
