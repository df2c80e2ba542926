"""Cut a face out of a frame and put it back: the two warps that every user of an exported model needs.

A patch is a square picture of S x S pixels; its `matrix` (2, 3) maps frame pixels to patch pixels, pixel centres at
integers in both. Only the face's own region of the frame is ever touched or converted to float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Warped:
    """A patch in its frame."""

    x: int
    y: int
    """Top-left pixel of the region in the frame."""
    alpha: NDArray[np.float32]
    """(h, w) opacity of the patch in that region, 0..1."""
    colour: NDArray[np.float32]
    """(h, w, 3) premultiplied colour, 0..`alpha`."""


def scale_of(matrix: NDArray[np.float64]) -> float:
    """Patch pixels per frame pixel of a similarity (2, 3)."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def resized_matrix(matrix: NDArray[np.float64], old: float, new: float) -> NDArray[np.float64]:
    """The matrix of the same patch resized from edge `old` to edge `new`, pixel centres at integers."""
    k = new / old
    out = matrix * k
    out[:, 2] += (k - 1.0) / 2.0
    return out


def crop_patch(frame: Pixels, matrix: NDArray[np.float64], size: int) -> Pixels:
    """Cut a patch of `size` pixels out of a frame (H, W) or (H, W, C); same type, zeros outside the frame.

    A face that is shrunk to less than half is averaged first: OpenCV's warp takes single samples and would alias.
    """
    matrix = np.asarray(matrix, np.float64)
    scale = scale_of(matrix)
    if scale < 0.5:
        frame, matrix = _shrunk_region(frame, matrix, size, 1 << int(np.floor(np.log2(1.0 / scale))))
    flags = cv2.INTER_CUBIC if scale >= 1.0 else cv2.INTER_LINEAR
    return cv2.warpAffine(frame, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def _shrunk_region(
    frame: Pixels, matrix: NDArray[np.float64], size: int, factor: int
) -> tuple[Pixels, NDArray[np.float64]]:
    """The part of the frame that the patch sees, averaged by a whole factor, and the matrix that fits it."""
    height, width = frame.shape[:2]
    corners = _to_frame(matrix, np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64))
    low = np.floor(corners.min(axis=0)).astype(int) - 2 * factor
    high = np.ceil(corners.max(axis=0)).astype(int) + 2 * factor
    x0, y0 = np.clip(low, 0, (width - 1, height - 1))
    x1, y1 = np.clip(high, (x0 + 1, y0 + 1), (width, height))
    region = frame[y0:y1, x0:x1]
    pad_y, pad_x = -region.shape[0] % factor, -region.shape[1] % factor
    region = cv2.copyMakeBorder(region, 0, pad_y, 0, pad_x, cv2.BORDER_CONSTANT, value=0)
    small = cv2.resize(region, (region.shape[1] // factor, region.shape[0] // factor), interpolation=cv2.INTER_AREA)
    fitted = matrix.copy()
    fitted[:, :2] *= factor
    fitted[:, 2] += matrix[:, :2] @ (np.array([x0, y0]) + (factor - 1) / 2.0)
    return small, fitted


def paste_patch(frame: Pixels, patch: Pixels, alpha: NDArray[np.float32], matrix: NDArray[np.float64]) -> Warped | None:
    """Blend a patch into `frame` in place, once, in the face's region only.

    The patch is premultiplied before the warp and its opacity clamped after it, so it ends without a dark fringe.

    Args:
        frame: (H, W, 3) uint8 or uint16, changed in place.
        patch: (S, S, 3) float32, 0..1, same channel order as the frame.
        alpha: (S, S) float32, 0..1.
        matrix: (2, 3) frame pixels to patch pixels.

    Returns:
        Where it landed, or None when nothing of it is visible.
    """
    warped = warp_patch((frame.shape[0], frame.shape[1]), patch, alpha, matrix)
    if warped is None:
        return None
    height, width = warped.alpha.shape
    region = frame[warped.y : warped.y + height, warped.x : warped.x + width]
    # OpenCV's arithmetic: a third of numpy's time, and it rounds and saturates as it converts.
    behind = cv2.multiply(region, cv2.merge([1.0 - warped.alpha] * 3), dtype=cv2.CV_32F)
    depth, top = (cv2.CV_16U, 65535.0) if frame.dtype == np.uint16 else (cv2.CV_8U, 255.0)
    region[...] = cv2.addWeighted(behind, 1.0, warped.colour, top, 0.0, dtype=depth)
    return warped


def warp_patch(
    shape: tuple[int, int], patch: Pixels, alpha: NDArray[np.float32], matrix: NDArray[np.float64]
) -> Warped | None:
    """Warp the opaque part of a patch into a frame of `shape` (height, width), without blending it.

    Args:
        patch, alpha, matrix: as of `paste_patch`.

    Returns:
        None when nothing of it is visible.
    """
    height, width = shape
    matrix = np.asarray(matrix, np.float64)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not rows.size:
        return None
    left, top, right, bottom = columns[0] - 1.5, rows[0] - 1.5, columns[-1] + 1.5, rows[-1] + 1.5
    corners = _to_frame(matrix, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width, height))
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, (width, height))
    if x1 <= x0 or y1 <= y0:
        return None
    premultiplied, matrix = _prepared(patch, alpha, matrix, (columns[0], rows[0], columns[-1], rows[-1]))
    matrix[:, 2] += matrix[:, :2] @ np.array([x0, y0], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    region = (int(x1 - x0), int(y1 - y0))
    warped = cv2.warpAffine(premultiplied, matrix, region, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    opacity = np.asarray(cv2.extractChannel(warped, 3), np.float32)
    np.clip(opacity, 0.0, 1.0, out=opacity)
    colour = np.asarray(cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), np.float32)
    np.maximum(np.asarray(cv2.min(colour, cv2.merge([opacity] * 3))), 0.0, out=colour)
    return Warped(int(x0), int(y0), opacity, colour)


def _prepared(
    patch: Pixels, alpha: NDArray[np.float32], matrix: NDArray[np.float64], visible: tuple[int, int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The visible part of a patch, premultiplied (h, w, 4), at the resolution that a linear warp samples well.

    A patch that is shrunk is averaged down to the frame's resolution. Any other is doubled by cubic interpolation: then
    linear samples are as sharp as cubic ones, and several times quicker.
    """
    size, scale = patch.shape[0], scale_of(matrix)
    left, top = max(0, visible[0] - 4), max(0, visible[1] - 4)
    right, bottom = min(size, visible[2] + 5), min(size, visible[3] + 5)
    opacity = np.ascontiguousarray(alpha[top:bottom, left:right], np.float32)
    colour = np.ascontiguousarray(patch[top:bottom, left:right], np.float32)
    part = cv2.merge([cv2.multiply(colour, cv2.merge([opacity] * 3)), opacity])
    if scale > 1.25:
        edge = max(1, round(size / scale))
        part, x, y = _averaged(part, left, top, size, edge)
    else:
        edge, x, y = 2 * size, 2 * left, 2 * top
        part = cv2.resize(part, (2 * (right - left), 2 * (bottom - top)), interpolation=cv2.INTER_CUBIC)
    # Cubic interpolation overshoots at steep edges; colour goes down with the opacity, or flat areas would light up.
    part = np.divide(part, np.maximum(part[..., 3:], 1.0))
    fitted = resized_matrix(matrix, size, edge)
    fitted[:, 2] -= (x, y)
    return np.asarray(part, np.float32), fitted


def _averaged(part: Pixels, left: int, top: int, size: int, edge: int) -> tuple[Pixels, int, int]:
    """A part of a patch averaged down to `edge` pixels for the whole patch, and its place (x, y) there.

    The grid is the whole patch's, wherever the part begins: else what a face looks like would depend on how much of it
    the mask shows, and a graph without a mask's bounds (fsdeploy/export/frame.py) could not be equal.
    """
    height, width = part.shape[:2]
    x, right = left * edge // size, -(-(left + width) * edge // size)
    y, bottom = top * edge // size, -(-(top + height) * edge // size)
    # One axis after the other: less is padded, and areas are separable.
    wide = cv2.copyMakeBorder(part, 0, 0, left, size - left - width, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    narrow = cv2.resize(wide, (edge, height), interpolation=cv2.INTER_AREA)[:, x:right]
    high = cv2.copyMakeBorder(narrow, top, size - top - height, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    return cv2.resize(high, (right - x, edge), interpolation=cv2.INTER_AREA)[y:bottom], x, y


def _to_frame(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Patch points (n, 2) to frame points."""
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
