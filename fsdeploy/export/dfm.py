"""The `.dfm` format of FaceFusion, DeepFaceLive and VisoMaster: their crop in, their picture and two masks out.

The app's crop shows another part of the face than the model was trained on. The adapter cuts the training window out of
it, resizes it, and puts the result back. All of it is linear and fixed, so it is two matrix products with constants:
no Pad, Resize or Slice operator that some runtime would lack or compute differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fsdeploy.errors import InputError
from fsdeploy.export.graph import BATCH, Port
from fsdeploy.export.settings import Crop, Mask
from fsdeploy.export.target import Target
from fsdeploy.model.info import ModelInfo
from fsdeploy.runtime.geometry import face_ellipse, frontal_crop
from fsdeploy.runtime.mask import ellipse_mask

SIZE = 224
"""Default edge of the app's crop."""

CROPS: dict[str, tuple[float, tuple[float, float]]] = {
    "facefusion": (1.9764, (0.5183, 0.4223)),
    "deepfacelive": (2.2, (0.5099, 0.42)),
    "dfl-whole-face": (2.1314, (0.5099, 0.43)),
}
"""Side and centre (x, y) of each app's crop in the mean-face frame."""


@dataclass(frozen=True)
class Window:
    """The square of the app's crop that a model was trained on, in whole pixels; may reach outside the crop."""

    x: int
    y: int
    edge: int


def training_crop(info: ModelInfo) -> tuple[float, tuple[float, float]]:
    """Side and centre of the crop that a model was trained on, in the mean-face frame, for a frontal face."""
    return frontal_crop(info.centering, info.coverage, info.vertical_offset)


def training_window(info: ModelInfo, crop: Crop, size: int) -> Window:
    """Where the training crop lies in an app's crop of `size` pixels.

    Raises:
        InputError: the crop shows so little that most of the training window is missing.
    """
    if crop == "none":
        return Window(0, 0, size)
    side, centre = training_crop(info)
    app_side, app_centre = CROPS[crop]
    x, y = (
        round(((own - app) / app_side + 0.5 - side / (2 * app_side)) * size)
        for own, app in zip(centre, app_centre, strict=True)
    )
    window = Window(x, y, round(side / app_side * size))
    if _padding(window, size) > size // 2:
        raise InputError(f"the crop of {crop} misses most of what the model was trained on: choose another --crop")
    return window


def _padding(window: Window, size: int) -> int:
    return max(0, -window.x, -window.y, window.x + window.edge - size, window.y + window.edge - size)


def sampling(source: int, target: int) -> NDArray[np.float64]:
    """(target, source) weights that resize a line, half-pixel centres, edges held.

    Enlarging interpolates linearly; shrinking averages over the area of each target pixel, as training does.
    """
    weights = np.zeros((target, source))
    ratio = source / target
    if ratio <= 1:
        position = np.clip((np.arange(target) + 0.5) * ratio - 0.5, 0, source - 1)
        low = np.minimum(np.floor(position).astype(int), max(source - 2, 0))
        high = np.minimum(low + 1, source - 1)
        np.add.at(weights, (np.arange(target), low), 1 - (position - low))
        np.add.at(weights, (np.arange(target), high), position - low)
        return weights
    starts = np.arange(target)[:, None] * ratio
    pixels = np.arange(source)[None, :]
    overlap = np.minimum(starts + ratio, pixels + 1) - np.maximum(starts, pixels)
    covered: NDArray[np.float64] = np.maximum(overlap, 0) / ratio
    return covered


def cutting(offset: int, edge: int, size: int, target: int) -> NDArray[np.float64]:
    """(target, size) weights: cut a window out of a line, border pixels repeated outside it, and resize it."""
    seen = np.clip(np.arange(offset, offset + edge), 0, size - 1)
    weights = np.zeros((target, size))
    np.add.at(weights.T, seen, sampling(edge, target).T)
    return weights


def placing(offset: int, edge: int, size: int, source: int) -> NDArray[np.float64]:
    """(size, source) weights: resize a line to the window and put it in place, zero outside."""
    weights = np.zeros((size, source))
    inside = np.arange(max(offset, 0), min(offset + edge, size))
    weights[inside] = sampling(source, edge)[inside - offset]
    return weights


class DfmGraph(nn.Module):
    """`in_face:0` (N, R, R, 3) -> mask of the person in the video, picture, mask of the new face; all NHWC, BGR, 0..1.

    Args:
        inference: the exported direction.
        own: the direction back to the input's own person, whose mask is output 0; None to use `inference`'s for both.
        constant: (R, R) mask for a model without one of its own, None to use the model's.
    """

    cut_y: Tensor
    cut_x: Tensor
    put_y: Tensor
    put_x: Tensor
    outside: Tensor
    constant: Tensor | None

    def __init__(
        self,
        inference: nn.Module,
        own: nn.Module | None,
        info: ModelInfo,
        window: Window,
        size: int,
        constant: NDArray[np.float32] | None,
    ) -> None:
        super().__init__()
        self.inference, self.own = inference, own
        self.reverse = info.color_order == "rgb"
        source = info.output_size
        cut = {axis: cutting(start, window.edge, size, info.input_size) for axis, start in _axes(window)}
        put = {axis: placing(start, window.edge, size, source) for axis, start in _axes(window)}
        self.register_buffer("cut_y", _tensor(cut["y"]))
        self.register_buffer("cut_x", _tensor(cut["x"].T))
        self.register_buffer("put_y", _tensor(put["y"]))
        self.register_buffer("put_x", _tensor(put["x"].T))
        inside = np.outer(put["y"].any(axis=1), put["x"].any(axis=1))
        self.register_buffer("outside", _tensor(1.0 - inside)[None, None])
        self.register_buffer("constant", None if constant is None else torch.from_numpy(constant)[None, None])

    def forward(self, in_face: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        planes = in_face.permute(0, 3, 1, 2)
        if self.reverse:
            planes = planes.flip(1)
        face = self.cut_y @ planes @ self.cut_x  # (N, 3, S, S)
        swap, *mask = self.inference(face)
        picture = self._place(swap) + planes * self.outside
        if self.constant is not None:
            new = old = planes[:, :1] * 0 + self.constant
        else:
            new = self._place(mask[0])
            old = new if self.own is None else self._place(self.own(face)[1])
        if self.reverse:
            picture = picture.flip(1)
        return tuple(image.clamp(0, 1).permute(0, 2, 3, 1) for image in (old, picture, new))  # type: ignore[return-value]

    def _place(self, image: Tensor) -> Tensor:
        return self.put_y @ image @ self.put_x


def _axes(window: Window) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("y", window.y), ("x", window.x)


def _tensor(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def constant_mask(kind: Mask, info: ModelInfo, crop: Crop, window: Window, size: int) -> NDArray[np.float32]:
    """(R, R) mask for a model that has none: an ellipse around the face, or ones; zero outside the window."""
    side, centre = training_crop(info) if crop == "none" else CROPS[crop]
    mask = np.ones((size, size), np.float32)
    if kind != "ones":
        mask = ellipse_mask(size, *face_ellipse(side, centre))
    edge = 0 if kind == "ones" else 1
    seen = np.zeros((size, size), np.float32)
    rows = slice(max(window.y, edge), max(0, min(window.y + window.edge, size - edge)))
    columns = slice(max(window.x, edge), max(0, min(window.x + window.edge, size - edge)))
    seen[rows, columns] = 1
    return mask * seen


def dfm_target(
    inference: nn.Module,
    own: nn.Module,
    info: ModelInfo,
    size: int | None,
    crop: Crop | None,
    mask: Mask | None,
    batch: int | None,
) -> Target:
    """The `.dfm` format around one direction.

    Raises:
        InputError: a learned mask is asked for and the model has none.
    """
    edge, app, kind = size or SIZE, crop or "facefusion", mask or "auto"
    if kind == "learned" and not info.has_mask:
        raise InputError("--mask learned: this model learned no mask; train with learn_mask or choose --mask ellipse")
    if kind == "auto":
        kind = "learned" if info.has_mask else "ellipse"
    window = training_window(info, app, edge)
    constant = None if kind == "learned" else constant_mask(kind, info, app, window, edge)
    module = DfmGraph(inference, own if kind == "learned" else None, info, window, edge, constant).eval()
    first: int | str = BATCH if batch is None else batch
    side, centre = training_crop(info) if app == "none" else CROPS[app]
    extra = {
        "format": "dfm",
        "io": "float",
        "crop": {"name": app, "side": side, "center": list(centre)},
        "crop_size": edge,
        "face_size": edge,
        "mask": kind,
        "window": [window.x, window.y, window.edge],
    }
    shape = (first, edge, edge)
    outputs = (
        Port("out_face_mask:0", (*shape, 1)),
        Port("out_celeb_face:0", (*shape, 3)),
        Port("out_celeb_face_mask:0", (*shape, 1)),
    )
    return Target(module, (Port("in_face:0", (*shape, 3)),), outputs, "NHWC", "bgr", True, extra)
