"""Runs the exported files on scenes that were not trained on: the three figures and the contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.demo.figures import Figures, judge
from fsdeploy.demo.render import Drawing
from fsdeploy.demo.sheet import contact_sheet
from fsdeploy.faces.aligned import AlignedFace, align_many, warp_crop
from fsdeploy.faces.geometry import Centering
from fsdeploy.faces.masks import landmark_mask
from fsdeploy.runtime import Swapper
from fsdeploy.runtime.metadata import SwapMetadata

Image = NDArray[np.uint8]
Pair = tuple[Drawing, Drawing]

_SHEET_COLUMNS = 8
_TILE = 128
_TILE_COVERAGE = 0.85


def judge_swapper(a2b: Path, pairs: Sequence[Pair]) -> Figures:
    """The three figures of an exported A to B file; `pairs` are scenes drawn as A and as B."""
    swapper = Swapper(a2b)
    facts = swapper.metadata
    sources = _crops([a for a, _ in pairs], swapper.crop_size, facts)
    targets = _crops([b for _, b in pairs], swapper.face_size, facts)
    masks = _crops([b for _, b in pairs], swapper.face_size, facts, masks=True)
    swaps, _ = swapper.swap(sources)
    untouched = sources
    if swapper.crop_size != swapper.face_size:
        untouched = _crops([a for a, _ in pairs], swapper.face_size, facts)
    return judge(_unit(untouched), swaps, _unit(targets), _unit(masks))


def draw_sheet(a2b: Path, b2a: Path, pairs: Sequence[Pair]) -> Image:
    """Six rows: A, A to A, A to B, B, B to B, B to A.

    The A to B file holds decoder B and the B to A file decoder A, so the two files fill all four rows of outputs. An
    output is shown inside the landmarks' mask over its input, colours untouched.
    """
    to_b, to_a = Swapper(a2b), Swapper(b2a)
    shown = pairs[:_SHEET_COLUMNS]
    rows: list[tuple[str, list[Image]]] = []
    for letter, drawings in (("A", [a for a, _ in shown]), ("B", [b for _, b in shown])):
        rows.append((letter, [_tile(drawing.frame, _align(drawing)) for drawing in drawings]))
        own, other = (to_a, to_b) if letter == "A" else (to_b, to_a)
        rows.append((f"{letter} to {letter}", _pasted(own, drawings)))
        rows.append((f"{letter} to {'B' if letter == 'A' else 'A'}", _pasted(other, drawings)))
    return contact_sheet(rows)


def _align(drawing: Drawing) -> AlignedFace:
    return AlignedFace.from_landmarks(drawing.landmarks)


def _crops(drawings: Sequence[Drawing], size: int, facts: SwapMetadata, *, masks: bool = False) -> Image:
    """(N, size, size[, 3]) crops as training saw them."""
    faces = align_many([drawing.landmarks for drawing in drawings])
    return np.stack(
        [
            warp_crop(
                drawing.mask if masks else drawing.frame,
                _crop_matrix(face, size, facts),
                size,
            )
            for drawing, face in zip(drawings, faces, strict=True)
        ]
    )


def _crop_matrix(face: AlignedFace, size: int, facts: SwapMetadata) -> NDArray[np.float64]:
    return face.crop_matrix(size, cast(Centering, facts.centering), facts.coverage, facts.vertical_offset)


def _unit(images: Image) -> NDArray[np.float32]:
    return images.astype(np.float32) / np.float32(255)


def _tile(frame: Image, face: AlignedFace) -> Image:
    return face.crop(frame, _TILE, "face", _TILE_COVERAGE)


def _pasted(swapper: Swapper, drawings: Sequence[Drawing]) -> list[Image]:
    """Each output inside its face's landmark mask, over the crop that went in."""
    facts, size = swapper.metadata, swapper.face_size
    outputs, _ = swapper.swap(_crops(drawings, swapper.crop_size, facts))
    tiles = []
    for drawing, output in zip(drawings, outputs, strict=True):
        face = _align(drawing)
        matrix = _crop_matrix(face, size, facts)
        # Output pixel -> frame -> tile pixel, in one map.
        back = np.linalg.inv(np.vstack([matrix, (0.0, 0.0, 1.0)]))
        to_tile = face.crop_matrix(_TILE, "face", _TILE_COVERAGE) @ back
        laid = cv2.warpAffine(output, to_tile, (_TILE, _TILE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        points = face.aligned_landmarks(_TILE, "face", _TILE_COVERAGE)
        mask = landmark_mask("extended", points, _TILE, dilation=-2.0, blur_kernel=9)[..., None] / np.float32(255)
        under = _tile(drawing.frame, face).astype(np.float32)
        tiles.append(np.round(under * (1.0 - mask) + np.clip(laid, 0.0, 1.0) * 255.0 * mask).astype(np.uint8))
    return tiles
