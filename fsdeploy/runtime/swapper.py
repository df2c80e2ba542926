"""Run an exported file: `Swapper("a2b.onnx")(frame, landmarks)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.runtime.geometry import FaceGeometry, face_geometry
from fsdeploy.runtime.mask import cut, ellipse_mask, feather, hull_mask, match_mean
from fsdeploy.runtime.metadata import SwapMetadata
from fsdeploy.runtime.onnxfile import scan
from fsdeploy.runtime.paste import crop_patch, paste_patch
from fsdeploy.runtime.providers import FIXED_BATCH
from fsdeploy.runtime.session import BoundSession

MaskKind = Literal["auto", "learned", "hull", "ellipse"]
_ENGINE_BATCHES = (1, 2, 4, 8, 16)

Crops = NDArray[np.uint8] | NDArray[np.float32]


class Swapper:
    """One direction of a swap model on onnxruntime.

    Example:
        >>> from fsdeploy.runtime import Swapper
        >>> swapper = Swapper("a2b.onnx")
        >>> swapped = swapper(frame, landmarks)

    Args:
        path: a file written by `fsdeploy export`, of any format but Triton's.
        providers: "auto", or execution providers in order of preference ("cuda", "cpu", ... or their full names).
        strict: refuse to run on anything but the first provider asked for.
        threads: threads within one operator on the CPU; None = onnxruntime's choice.
        batch: most faces per run.
        mask: what is blended when calling the swapper: the model's own mask, the outline of the landmarks, an ellipse;
            "auto" takes the model's own where it has one, else the outline. A whole-frame graph has its mask inside.
        match_color: shift the swapped face to the mean colour of the face that it replaces; a whole-frame graph does.
        binding: keep input and output buffers on the provider's device; None = on a GPU only.

    Raises:
        InputError: the file is missing, damaged, not fsdeploy's, or cannot be loaded; or it cannot meet an option.
        HostileFileError: the file refers to data outside its folder.
        ProviderUnavailableError: `strict` and the provider does not run here; or onnxruntime is broken.
    """

    metadata: SwapMetadata
    provider: str
    """Full name of the execution provider that the session really uses."""

    def __init__(
        self,
        path: str | Path,
        providers: str | Sequence[str] = "auto",
        strict: bool = False,
        threads: int | None = None,
        *,
        batch: int = 16,
        mask: MaskKind = "auto",
        match_color: bool = True,
        binding: bool | None = None,
    ) -> None:
        self.path = Path(path)
        outline = scan(self.path)
        self.metadata = SwapMetadata.from_props(outline.metadata, str(self.path))
        if outline.external:
            raise InputError(f"{self.path} keeps weights in {outline.external[0]}: export it again as one file")
        self.format = str(self.metadata.extra.get("format", "onnx"))
        self._check_options(mask, match_color)
        self._session = BoundSession(self.path, providers, strict, threads, binding)
        self.provider = self._session.provider
        self._check_borders()
        self._batch = self._session.fixed_batch or max(1, batch)
        self._mask = mask
        self._match_color = match_color

    def __repr__(self) -> str:
        meta = self.metadata
        return f"Swapper({self.path.name}: {meta.plugin} {meta.direction}, {meta.input_size} px, {self.provider})"

    @property
    def crop_size(self) -> int:
        """Edge of the crops that `swap` takes, in pixels."""
        return int(self.metadata.extra.get("crop_size", self.metadata.input_size))

    @property
    def face_size(self) -> int:
        """Edge of the faces that `swap` gives, in pixels."""
        return int(self.metadata.extra.get("face_size", self.metadata.output_size))

    def warm_up(self, batches: Sequence[int] = (1,)) -> None:
        """Run once per batch size on black faces, so that the first real call does not pay for set-up."""
        for size in batches:
            if self.format == "frame":
                self(np.zeros((64, 64, 3), np.uint8), frontal_landmarks(32.0, 32.0, 32.0))
            else:
                self.swap(np.zeros((size, self.crop_size, self.crop_size, 3), np.uint8))

    def swap(self, crops: Crops) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Swap aligned crops.

        Args:
            crops: (N, S, S, 3), BGR, uint8 (0..255) or float32 (0..1); S is `crop_size`.

        Returns:
            Faces (N, O, O, 3) float32 BGR 0..1 and masks (N, O, O) float32 0..1, None when the model has none.

        Raises:
            InputError: another shape or type; the file holds a whole-frame graph.
        """
        if self.format == "frame":
            raise InputError(f"{self.path} takes whole frames: call swapper(frame, landmarks)")
        size = self.crop_size
        self._check(crops, (None, size, size, 3), (np.uint8, np.float32), "crops")
        faces, masks = [], []
        for start in range(0, len(crops), self._batch):
            part = crops[start : start + self._batch]
            outputs = self._session.run([self._to_input(self._padded(part))])
            face, mask = self._from_outputs(outputs)
            faces.append(face[: len(part)])
            if mask is not None:
                masks.append(mask[: len(part)])
        if not faces:
            empty = np.zeros((0, self.face_size, self.face_size, 3), np.float32)
            return empty, empty[..., 0] if self.metadata.has_mask else None
        return np.concatenate(faces), np.concatenate(masks) if masks else None

    def __call__(self, frame: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Swap the faces of one frame: crop, swap, match colour, feather the mask, paste.

        Args:
            frame: (H, W, 3) uint8 BGR; not changed.
            landmarks: (68, 2) in frame pixels, or (F, 68, 2) for F faces; later faces lie over earlier ones.

        Returns:
            The finished frame, (H, W, 3) uint8.

        Raises:
            InputError: another shape or type, or landmarks that all coincide.
        """
        self._check(frame, (None, None, 3), (np.uint8,), "the frame")
        if not frame.size:
            raise InputError(f"the frame must have at least one pixel, got {frame.shape}")
        points = np.asarray(landmarks, np.float64)
        if points.shape[-2:] != (68, 2) or points.ndim not in (2, 3):
            raise InputError(f"landmarks must be (68, 2) or (F, 68, 2), got {points.shape}")
        points = points.reshape(-1, 68, 2)
        if not np.isfinite(points).all():
            raise InputError("landmarks must be finite numbers, got NaN or infinity")
        if not len(points):
            return frame.copy()
        if self.format == "frame":
            takes_matrix = self.metadata.extra.get("points") == "matrix"
            for face in points:
                wanted = face_geometry(face, self.metadata).matrix(self.metadata.input_size) if takes_matrix else face
                frame = self._run_frame(frame, wanted)
            return frame
        return self._swap_faces(frame, points)

    def _swap_faces(self, frame: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
        geometries = [face_geometry(face, self.metadata) for face in points]
        large = max(self.crop_size, self.face_size)
        crops = [crop_patch(frame, face.matrix(large), large) for face in geometries]
        faces, masks = self.swap(np.stack([shrunk(crop, self.crop_size) for crop in crops]))
        finished = frame.copy()
        for index, geometry in enumerate(geometries):
            mask = cut(self._mask_of(geometry, None if masks is None else masks[index]))
            face = faces[index]
            if self._match_color:
                reference = np.asarray(shrunk(crops[index], self.face_size), np.float32) / np.float32(255)
                face = match_mean(face, reference, mask)
            paste_patch(finished, np.clip(face, 0, 1), feather(mask), geometry.matrix(self.face_size))
        return finished

    def _mask_of(self, face: FaceGeometry, learned: NDArray[np.float32] | None) -> NDArray[np.float32]:
        if learned is not None and self._mask in ("auto", "learned"):
            return np.clip(learned, 0.0, 1.0)
        if self._mask == "ellipse":
            return ellipse_mask(self.face_size, *face.ellipse())
        return hull_mask(face.landmarks_in(self.face_size), self.face_size)

    def _run_frame(self, frame: NDArray[np.uint8], face: NDArray[np.float64]) -> NDArray[np.uint8]:
        finished: NDArray[np.uint8] = self._session.run([frame, face.astype(np.float32)])[0]
        return finished

    def _padded(self, crops: Crops) -> Crops:
        """Fill up to a batch size that the engine was, or will be, compiled for; the surplus is cut off again."""
        target = self._session.fixed_batch or len(crops)
        if not self._session.fixed_batch and self.provider in FIXED_BATCH:
            target = next((size for size in _ENGINE_BATCHES if size >= len(crops)), len(crops))
        if target == len(crops):
            return crops
        return np.concatenate([crops, np.repeat(crops[-1:], target - len(crops), axis=0)])

    def _to_input(self, crops: Crops) -> NDArray[Any]:
        if self.metadata.color_order == "rgb":
            crops = crops[..., ::-1]
        if self._session.input_type == np.uint8:
            crops = crops if crops.dtype == np.uint8 else np.rint(np.clip(crops, 0, 1) * 255).astype(np.uint8)
        elif crops.dtype == np.uint8:
            crops = crops.astype(np.float32) / np.float32(255)
        if self.metadata.layout == "NCHW":
            crops = crops.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(crops)

    def _from_outputs(self, outputs: list[NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        if self.format == "dfm":
            outputs = [outputs[1], outputs[2]]
        images = [_to_unit(entry) for entry in outputs]
        if self.metadata.layout == "NCHW":
            images = [entry.transpose(0, 2, 3, 1) for entry in images]
        face = images[0][..., ::-1] if self.metadata.color_order == "rgb" else images[0]
        return np.ascontiguousarray(face, np.float32), images[1][..., 0] if len(images) > 1 else None

    def _check_options(self, mask: MaskKind, match_color: bool) -> None:
        """Refuse what this file cannot do, rather than do something else."""
        inside = self.metadata.extra.get("mask")
        if self.format == "frame":
            if mask not in ("auto", inside):
                raise InputError(f"{self.path} blends by its {inside} mask: export it again with --mask {mask}")
            if not match_color:
                raise InputError(f"{self.path} matches the colour itself: export it without --graph frame")
        elif mask == "learned" and (not self.metadata.has_mask or inside not in (None, "learned")):
            raise InputError(f"{self.path} has no mask of its own: use mask='auto'")

    def _check_borders(self) -> None:
        """Refuse a file whose graph is not what its metadata says."""
        wanted: list[tuple[int | None, ...]]
        if self.format == "frame":
            wanted = [(None, None, 3)]
        else:
            size = self.face_size
            planes = [3, 1] if self.metadata.has_mask else [3]
            planes = [1, 3, 1] if self.format == "dfm" else planes
            channels_first = self.metadata.layout == "NCHW"
            wanted = [(None, c, size, size) if channels_first else (None, size, size, c) for c in planes]
        found = self._session.output_shapes
        fits = len(found) == len(wanted) and all(
            _fits(shape, edges) for shape, edges in zip(found, wanted, strict=True)
        )
        if not fits:
            raise InputError(f"{self.path} gives {found} where its metadata says {wanted}: export it again")

    def _check(self, array: Any, shape: tuple[int | None, ...], types: tuple[type, ...], what: str) -> None:
        wanted = "(" + ", ".join("N" if edge is None else str(edge) for edge in shape) + ")"
        kinds = " or ".join(np.dtype(kind).name for kind in types)
        if not isinstance(array, np.ndarray):
            raise InputError(f"{what} must be a numpy array {wanted} {kinds}, got {type(array).__name__}")
        fits = len(array.shape) == len(shape) and all(
            edge is None or edge == got for edge, got in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype.type not in types:
            raise InputError(f"{what} must be {wanted} {kinds}, got {array.shape} {array.dtype}")


def _fits(shape: Sequence[Any], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(
        edge is None or edge == got for edge, got in zip(wanted, shape, strict=True)
    )


def shrunk(crop: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A crop (S, S, 3) averaged down to (size, size, 3); itself where it has that size."""
    if crop.shape[0] == size:
        return crop
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def frontal_landmarks(width: float, x: float, y: float) -> NDArray[np.float64]:
    """(68, 2) landmarks of the mean face, `width` pixels wide about (x, y); the jaw follows an arc."""
    angle = np.arange(17) * np.pi / 16
    jaw = np.stack([0.5 - 0.62 * np.cos(angle), 0.2 + np.sin(angle)], axis=1)
    points: NDArray[np.float64] = (np.concatenate([jaw, MEAN_FACE]) - 0.5) * width + (x, y)
    return points


def _to_unit(values: NDArray[Any]) -> NDArray[np.float32]:
    """Outputs as float32 in 0..1."""
    full = np.float32(255 if values.dtype == np.uint8 else 1)
    return values.astype(np.float32, copy=False) / full
