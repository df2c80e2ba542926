"""The swap of one frame as pure functions: crop, mask, colour, paste. No state, no files, no threads.

Example:
    from fsdeploy.convert.settings import default_look
    from fsdeploy.convert.swap import swap_frame
    from fsdeploy.runtime import Swapper

    swapper, look = Swapper("a2b.onnx"), default_look()
    out = swap_frame(frame, records, swapper, look)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.convert.frame import Patch
from fsdeploy.convert.plugin import ColorPlugin, Float, MaskEdge, MaskInput, MaskSource, ScalingPlugin
from fsdeploy.errors import InputError
from fsdeploy.faces.aligned import AlignedFace, align_each
from fsdeploy.faces.geometry import Centering
from fsdeploy.faces.landmarks import to_68
from fsdeploy.faces.records import FaceRecord
from fsdeploy.runtime.geometry import FaceGeometry
from fsdeploy.runtime.metadata import SwapMetadata
from fsdeploy.runtime.paste import crop_patch, paste_patch, scale_of


class Model(Protocol):
    """What runs the network: a `fsdeploy.runtime.Swapper`, or anything like it."""

    metadata: SwapMetadata

    @property
    def crop_size(self) -> int:
        """Edge I of the crops that go in."""
        ...

    @property
    def face_size(self) -> int:
        """Edge O of the faces that come out."""
        ...

    def swap(self, crops: NDArray[np.uint8]) -> tuple[Float, Float | None]:
        """(n, I, I, 3) uint8 BGR -> (n, O, O, 3) float32 BGR 0..1 and (n, O, O) float32 masks or None."""
        ...


@dataclass(frozen=True)
class Look:
    """How swapped faces are put back into their frame: plugin instances, built once."""

    masks: tuple[tuple[str, MaskSource], ...]
    """The chain of mask sources by name: the first that a face has is used."""
    edge: MaskEdge
    color: ColorPlugin | None = None
    scaling: ScalingPlugin | None = None
    face_scale: float = 0.0
    """Percent that the pasted face is enlarged by (negative: shrunk), about the centre of its patch."""
    original_paste: bool = False
    """Blend as the original program did: the mask counts twice, faces in list order."""


@dataclass(frozen=True)
class CroppedFace:
    """A face cut out of its frame, ready for the model."""

    record: FaceRecord
    aligned: AlignedFace
    matrix: NDArray[np.float64]
    """(2, 3) frame pixels to patch pixels at the model's output size."""
    reference: NDArray[np.uint8]
    """(O, O, 3) uint8 BGR at the model's output size."""
    feed: NDArray[np.uint8]
    """(I, I, 3) uint8 BGR at the model's input size."""


@dataclass(frozen=True)
class Blended:
    """A frame with its swapped faces."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8 BGR."""
    alpha: NDArray[np.uint8] | None
    """(H, W) merged opacity of the faces, if asked for."""
    patches: tuple[Patch, ...]
    """Faces before the paste, if asked for."""
    notes: tuple[str, ...]
    """Masks that had to be replaced by another."""


Alignment = AlignedFace | InputError
"""A face's alignment, or why it has none."""


def align_records(records: Sequence[FaceRecord]) -> list[Alignment]:
    """Align faces, of one frame or of many, in one batched solve. A bad face costs only itself."""
    return align_each([np.asarray(to_68(record.landmarks), np.float64) for record in records])


def crop_faces(
    frame: NDArray[np.uint8],
    records: Sequence[FaceRecord],
    model: Model,
    alignments: Sequence[Alignment] | None = None,
) -> list[CroppedFace]:
    """Cut every face of a frame as training saw it: one warp at the larger size, averaged down to the smaller.

    Args:
        alignments: of the records, where they are known already.

    Raises:
        InputError: landmarks that no face can have (all on one point, or not finite).
    """
    found = align_records(records) if alignments is None else alignments
    for alignment in found:
        if isinstance(alignment, InputError):
            raise alignment
    return [
        _crop(frame, record, aligned, model)
        for record, aligned in zip(records, found, strict=True)
        if isinstance(aligned, AlignedFace)
    ]


def _crop(frame: NDArray[np.uint8], record: FaceRecord, aligned: AlignedFace, model: Model) -> CroppedFace:
    geometry = FaceGeometry(aligned, model.metadata)
    large = max(model.crop_size, model.face_size)
    crop = crop_patch(frame, geometry.matrix(large), large)

    def at(size: int) -> NDArray[np.uint8]:
        return crop if size == large else np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA))

    return CroppedFace(record, aligned, geometry.matrix(model.face_size), at(model.face_size), at(model.crop_size))


def make_patch(
    face: CroppedFace, swapped: Float, predicted: Float | None, model: Model, look: Look, frame_width: int
) -> tuple[Patch, str | None]:
    """Mask, colour and sharpen one swapped face in patch space.

    Args:
        swapped: (O, O, 3) float32 BGR 0..1 as the model gave it.
        predicted: (O, O) float32 mask of the model, or None.

    Returns:
        The patch, and a note when another mask than the first of the chain was used.

    Raises:
        InputError: the face has none of the masks.
    """
    size, metadata = model.face_size, model.metadata
    drawn = face.matrix[:, :2] @ np.asarray(face.aligned.landmarks, np.float64).T + face.matrix[:, 2:]
    request = MaskInput(
        size, drawn.T, face.record, face.aligned, predicted,
        cast(Centering, metadata.centering), metadata.coverage, metadata.vertical_offset,
    )  # fmt: skip
    name, mask = _first_mask(look, request)
    raw, final = look.edge(np.clip(mask, 0.0, 1.0), name != "none")
    if look.color is not None:
        swapped = look.color(face.reference.astype(np.float32) / np.float32(255.0), swapped, raw)
    if look.scaling is not None:
        swapped = look.scaling(swapped, frame_width / 100.0 * scale_of(face.matrix))
    pixels = np.empty((size, size, 4), np.float32)
    np.clip(swapped, 0.0, 1.0, out=pixels[..., :3])
    pixels[..., 3] = final
    wanted = look.masks[0][0]
    note = None if name == wanted else f"no mask '{wanted}' for a face: '{name}' was used"
    return Patch(pixels, _scaled_about_centre(face.matrix, size, look.face_scale)), note


def _first_mask(look: Look, request: MaskInput) -> tuple[str, Float]:
    for name, source in look.masks:
        mask = source(request)
        if mask is not None:
            return name, mask
    raise InputError(f"a face has none of the masks {', '.join(name for name, _ in look.masks)}: choose another --mask")


def _scaled_about_centre(matrix: NDArray[np.float64], size: int, percent: float) -> NDArray[np.float64]:
    factor = 1.0 - percent / 100.0
    scaled = matrix * factor
    scaled[:, 2] += (1.0 - factor) * (size - 1) / 2.0
    return scaled


def blend_faces(
    frame: NDArray[np.uint8],
    faces: Sequence[CroppedFace],
    swapped: Float,
    predicted: Float | None,
    model: Model,
    look: Look,
    *,
    want_alpha: bool = False,
    want_patches: bool = False,
) -> Blended:
    """Put swapped faces back into a copy of their frame, the nearest (largest) last.

    Args:
        frame: (H, W, 3) uint8 BGR; left as it is.
        swapped: (n, O, O, 3) float32 BGR 0..1, one per face.
        predicted: (n, O, O) float32 masks of the model, or None.
    """
    made, notes = [], []
    for number, face in enumerate(faces):
        mask = None if predicted is None else predicted[number]
        patch, note = make_patch(face, swapped[number], mask, model, look, frame.shape[1])
        made.append(patch)
        notes += [note] if note else []
    if want_patches:
        return Blended(frame, None, tuple(made), tuple(notes))
    image = frame.copy()
    merged = np.zeros(frame.shape[:2], np.float32) if want_alpha else None
    order = range(len(made)) if look.original_paste else sorted(range(len(made)), key=lambda i: _eye_distance(faces[i]))
    for number in order:
        opacity = made[number].pixels[..., 3]
        pasted = paste_patch(
            image, made[number].pixels[..., :3], opacity * opacity if look.original_paste else opacity,
            made[number].matrix,
        )  # fmt: skip
        if pasted is not None and merged is not None:
            height, width = pasted.alpha.shape
            region = merged[pasted.y : pasted.y + height, pasted.x : pasted.x + width]
            region += pasted.alpha * (1.0 - region)
    alpha = None if merged is None else np.rint(merged * 255.0).astype(np.uint8)
    return Blended(image, alpha, (), tuple(notes))


def _eye_distance(face: CroppedFace) -> float:
    points = np.asarray(face.aligned.landmarks)
    if len(points) != 68:
        return 1.0 / scale_of(face.matrix)
    return float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0)))


def swap_frame(frame: NDArray[np.uint8], records: Sequence[FaceRecord], model: Model, look: Look) -> NDArray[np.uint8]:
    """Swap every face of one frame.

    Args:
        frame: (H, W, 3) uint8 BGR; left as it is.
        records: the faces with their landmarks in frame pixels.
        model: a `fsdeploy.runtime.Swapper`, or anything like it.

    Returns:
        (H, W, 3) uint8 BGR. The same pixels where no face was pasted.
    """
    faces = crop_faces(frame, records, model)
    if not faces:
        return frame.copy()
    swapped, predicted = model.swap(np.stack([face.feed for face in faces]))
    return blend_faces(frame, faces, swapped, predicted, model, look).image
