"""The contact sheet: what goes in and what comes out, in both directions, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_LABEL_WIDTH = 96
_GAP = 4
_PAPER = (250, 250, 250)
_INK = (30, 30, 30)


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image]]]) -> Image:
    """Lay out one labelled row of equally large square images per entry; (H, W, 3) BGR.

    Raises:
        ValueError: no rows, or rows of different length or image size.
    """
    shapes = {image.shape for _, images in rows for image in images}
    if len(shapes) != 1 or len({len(images) for _, images in rows}) != 1:
        raise ValueError(f"a sheet needs rows of equal length and images of one size, got {sorted(shapes)}")
    edge = rows[0][1][0].shape[0]
    step = edge + _GAP
    height, width = _GAP + step * len(rows), _LABEL_WIDTH + step * len(rows[0][1])
    sheet = np.full((height, width, 3), _PAPER, np.uint8)
    for row, (label, images) in enumerate(rows):
        top = _GAP + row * step
        _write(sheet, label, top + edge // 2)
        for column, image in enumerate(images):
            left = _LABEL_WIDTH + column * step
            sheet[top : top + edge, left : left + edge] = image
    return sheet


def _write(sheet: Image, label: str, middle: int) -> None:
    scale, thickness = 0.6, 1
    (width, height), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    origin = ((_LABEL_WIDTH - width) // 2, middle + height // 2)
    cv2.putText(sheet, label, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, thickness, cv2.LINE_AA)
