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
from functools import partial
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.convert.contract import called, checked, checked_pair
from fsdeploy.convert.frame import Patch, Pixels
from fsdeploy.convert.plugin import ColorPlugin, Float, MaskEdge, MaskInput, MaskSource, ScalingPlugin
from fsdeploy.errors import FsdeployError, InputError, PluginError
from fsdeploy.faces.aligned import AlignedFace, align_each
from fsdeploy.faces.geometry import Centering
from fsdeploy.faces.landmarks import to_68
from fsdeploy.faces.records import FaceRecord
from fsdeploy.runtime.geometry import FaceGeometry
from fsdeploy.runtime.metadata import SwapMetadata
from fsdeploy.runtime.paste import crop_patch, paste_patch, scale_of, warp_patch
from fsdeploy.runtime.swapper import frontal_landmarks


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

    def swap(self, crops: NDArray[np.uint8] | Float) -> tuple[Float, Float | None]:
        """(n, I, I, 3) BGR, uint8 or float32 0..1 -> (n, O, O, 3) float32 BGR 0..1, and (n, O, O) masks or None."""
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
    reference: Pixels
    """(O, O, 3) BGR at the model's output size."""
    feed: NDArray[np.uint8] | Float
    """(I, I, 3) BGR, uint8 or float32 0..1, at the model's input size."""


@dataclass(frozen=True)
class Blended:
    """A frame with its swapped faces."""

    image: Pixels
    """(H, W, 3) BGR, as the frame: the finished frame; with `alpha`, the faces' own straight colour where they are."""
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
    frame: Pixels,
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


def _crop(frame: Pixels, record: FaceRecord, aligned: AlignedFace, model: Model) -> CroppedFace:
    geometry = FaceGeometry(aligned, model.metadata)
    large = max(model.crop_size, model.face_size)
    crop = crop_patch(frame, geometry.matrix(large), large)

    def at(size: int) -> Any:
        return crop if size == large else np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA))

    feed = at(model.crop_size)
    if feed.dtype == np.uint16:
        feed = as_float(feed)
    return CroppedFace(record, aligned, geometry.matrix(model.face_size), at(model.face_size), feed)


def as_float(picture: Pixels) -> Float:
    """float32 0..1."""
    return np.asarray(picture * np.float32(1.0 / np.iinfo(picture.dtype).max), np.float32)


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
        PluginError: a plugin fails, or returns something else than its base class says.
    """
    size, metadata = model.face_size, model.metadata
    drawn = face.matrix[:, :2] @ np.asarray(face.aligned.landmarks, np.float64).T + face.matrix[:, 2:]
    request = MaskInput(
        size, drawn.T, face.record, face.aligned, predicted,
        cast(Centering, metadata.centering), metadata.coverage, metadata.vertical_offset,
    )  # fmt: skip
    name, mask = _first_mask(look, request)
    raw, final = checked_pair("mask edge", look.edge, (size, size), partial(look.edge, mask, name != "none"))
    if look.color is not None:
        coloured = partial(look.color, as_float(face.reference), swapped, raw)
        swapped = checked("color", look.color, (size, size, 3), coloured)
    if look.scaling is not None:
        scaled = partial(look.scaling, swapped, frame_width / 100.0 * scale_of(face.matrix))
        swapped = checked("scaling", look.scaling, (size, size, 3), scaled)
    pixels = np.empty((size, size, 4), np.float32)
    np.clip(swapped, 0.0, 1.0, out=pixels[..., :3])
    pixels[..., 3] = final
    wanted = look.masks[0][0]
    note = None if name == wanted else f"no mask '{wanted}' for a face: '{name}' was used"
    return Patch(pixels, _scaled_about_centre(face.matrix, size, look.face_scale)), note


def _first_mask(look: Look, request: MaskInput) -> tuple[str, Float]:
    for name, source in look.masks:
        mask = called("mask", source, partial(source, request))
        if mask is not None:
            mask = checked("mask", source, (request.size, request.size), partial(np.clip, mask, 0.0, 1.0))
            return name, mask
    raise InputError(f"a face has none of the masks {', '.join(name for name, _ in look.masks)}: choose another --mask")


def _scaled_about_centre(matrix: NDArray[np.float64], size: int, percent: float) -> NDArray[np.float64]:
    factor = 1.0 - percent / 100.0
    scaled = matrix * factor
    scaled[:, 2] += (1.0 - factor) * (size - 1) / 2.0
    return scaled


def try_look(look: Look, model: Model) -> None:
    """Make the patch of one drawn face, so that a plugin that cannot work is found before the first frame.

    Raises:
        PluginError: a plugin fails, or returns something else than its base class says.
    """
    ramp = np.linspace(40, 215, 128).astype(np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(128)), axis=-1)
    landmarks = frontal_landmarks(64.0, 64.0, 64.0).astype(np.float32)
    (face,) = crop_faces(frame, [FaceRecord(32, 32, 64, 64, landmarks, {}, {}, None, {})], model)
    size = model.face_size
    predicted = np.ones((size, size), np.float32) if model.metadata.has_mask else None
    try:
        make_patch(face, as_float(face.reference), predicted, model, look, frame.shape[1])
    except PluginError:
        raise
    except FsdeployError:
        return  # a drawn face need not have what a look asks of real ones


def blend_faces(
    frame: Pixels,
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
        frame: (H, W, 3) BGR, uint8 or uint16; left as it is.
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
    order = range(len(made)) if look.original_paste else sorted(range(len(made)), key=lambda i: _eye_distance(faces[i]))
    ordered = [made[number] for number in order]
    if look.original_paste:
        ordered = [_counted_twice(patch) for patch in ordered]
    if want_alpha:
        image, alpha = _cut_out(frame, ordered)
        return Blended(image, alpha, (), tuple(notes))
    image = frame.copy()
    for patch in ordered:
        paste_patch(image, patch.pixels[..., :3], patch.pixels[..., 3], patch.matrix)
    return Blended(image, None, (), tuple(notes))


def _counted_twice(patch: Patch) -> Patch:
    """The patch with the weight that the original program gives it."""
    pixels = patch.pixels.copy()
    pixels[..., 3] *= pixels[..., 3]
    return Patch(pixels, patch.matrix)


def _cut_out(frame: Pixels, patches: Sequence[Patch]) -> tuple[Pixels, NDArray[np.uint8]]:
    """Faces alone: straight colour (H, W, 3), the frame's own where there is no face, and merged opacity (H, W).

    Laying the result over the frame by its alpha gives exactly what pasting gives; the background is not in it.
    """
    image, alpha = frame.copy(), np.zeros(frame.shape[:2], np.uint8)
    shape = (frame.shape[0], frame.shape[1])
    warped = [warp_patch(shape, patch.pixels[..., :3], patch.pixels[..., 3], patch.matrix) for patch in patches]
    visible = [entry for entry in warped if entry is not None]
    if not visible:
        return image, alpha
    x0, y0 = min(entry.x for entry in visible), min(entry.y for entry in visible)
    x1 = max(entry.x + entry.alpha.shape[1] for entry in visible)
    y1 = max(entry.y + entry.alpha.shape[0] for entry in visible)
    merged = np.zeros((y1 - y0, x1 - x0, 4), np.float32)
    for entry in visible:
        height, width = entry.alpha.shape
        region = merged[entry.y - y0 : entry.y - y0 + height, entry.x - x0 : entry.x - x0 + width]
        region *= (1.0 - entry.alpha)[..., None]
        region[..., :3] += entry.colour
        region[..., 3] += entry.alpha
    opacity = merged[..., 3:]
    shown = opacity > 1.0 / 512.0
    straight = np.clip(merged[..., :3] / np.maximum(opacity, 1.0 / 512.0), 0.0, 1.0) * np.iinfo(frame.dtype).max
    part = image[y0:y1, x0:x1]
    part[...] = np.where(shown, np.rint(straight), part)
    alpha[y0:y1, x0:x1] = np.rint(opacity[..., 0] * 255.0)
    return image, alpha


def _eye_distance(face: CroppedFace) -> float:
    points = np.asarray(face.aligned.landmarks)
    if len(points) != 68:
        return 1.0 / scale_of(face.matrix)
    return float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0)))


def swap_frame(frame: Pixels, records: Sequence[FaceRecord], model: Model, look: Look) -> Pixels:
    """Swap every face of one frame.

    Args:
        frame: (H, W, 3) BGR, uint8 or uint16; left as it is.
        records: the faces with their landmarks in frame pixels.
        model: a `fsdeploy.runtime.Swapper`, or anything like it.

    Returns:
        (H, W, 3) BGR of the same type. The same pixels where no face was pasted.
    """
    faces = crop_faces(frame, records, model)
    if not faces:
        return frame.copy()
    feeds: Any = np.stack([face.feed for face in faces])
    swapped, predicted = model.swap(feeds)
    return blend_faces(frame, faces, swapped, predicted, model, look).image
