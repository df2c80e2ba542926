"""Bringing pictures to the output's size, and upright where the output cannot say that it is to be shown turned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2

from fsdeploy.convert.frame import SourceInfo

_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


@dataclass(frozen=True)
class Sizing:
    """How pictures of a source become pictures of an output. Sizes are (width, height)."""

    source: tuple[int, int]
    output: tuple[int, int]
    scale: float
    one_size: bool
    """True: pictures of another size than the source's are fitted into the output's, with black around them."""
    quarters: int = 0
    """Quarter turns, counterclockwise, that follow: 0 to 3."""

    def __call__(self, image: Any) -> Any:
        """The picture (H, W) or (H, W, C), uint8 or uint16, at output size; the same array where nothing changes."""
        fitted = self._fitted(image)
        return cv2.rotate(fitted, _TURNS[self.quarters]) if self.quarters else fitted

    def _fitted(self, image: Any) -> Any:
        height, width = image.shape[:2]
        if (width, height) == self.source or not self.one_size:
            return resized(image, (max(2, round(width * self.scale)), max(2, round(height * self.scale))))
        factor = min(self.output[0] / width, self.output[1] / height)
        small = resized(image, (max(1, round(width * factor)), max(1, round(height * factor))))
        left, top = (self.output[0] - small.shape[1]) // 2, (self.output[1] - small.shape[0]) // 2
        right, bottom = self.output[0] - small.shape[1] - left, self.output[1] - small.shape[0] - top
        return cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)


def quarter_turns(degrees: int) -> int | None:
    """Counterclockwise quarter turns (0 to 3) that a display matrix asks for; None for an angle between them."""
    quarters = round(degrees / 90)
    # Matrices are written in fixed point, so a quarter turn may be read as 89 degrees.
    return quarters % 4 if abs(degrees - 90 * quarters) <= 1 else None


def turned(info: SourceInfo, quarters: int) -> SourceInfo:
    """A source as its pictures are after counterclockwise quarter turns: nothing is left for a display matrix to do."""
    if not quarters:
        return info
    if quarters % 2 == 0:
        return replace(info, rotation=0)
    aspect = 1 / info.sample_aspect if info.sample_aspect else None
    return replace(info, rotation=0, width=info.height, height=info.width, sample_aspect=aspect)


def resized(image: Any, size: tuple[int, int]) -> Any:
    """Enlarged by cubic interpolation, shrunk by averaging."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    way = cv2.INTER_CUBIC if size[0] > image.shape[1] else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=way)
