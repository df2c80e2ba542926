"""What a format adds around a swap model: a torch module with named borders, and how pictures are fed to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fsdeploy.export.graph import BATCH, Port
from fsdeploy.export.parity import seeded_noise
from fsdeploy.model.info import ModelInfo


@dataclass(frozen=True)
class Target:
    """A module ready to be traced."""

    module: nn.Module
    """Returns one tensor per output."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layout: str
    """"NCHW" or "NHWC"."""
    color_order: str
    """"bgr" or "rgb" at the borders."""
    has_mask: bool
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def edge(self) -> int:
        """Edge of the input picture in pixels."""
        return int(self.inputs[0].shape[2])

    @property
    def scale(self) -> float:
        """Factor that brings output values to 0..1."""
        return 1 / 255 if self.outputs[0].dtype == "uint8" else 1.0

    def examples(self) -> list[Tensor]:
        """What to trace with: two faces where the batch is free."""
        return [torch.from_numpy(self.noise(2 if self.inputs[0].shape[0] == BATCH else self.batch, 0))]

    @property
    def batch(self) -> int:
        """Faces per run where fixed, else 1."""
        first = self.inputs[0].shape[0]
        return first if isinstance(first, int) else 1

    def noise(self, count: int, seed: int) -> NDArray[Any]:
        """Seeded noise as the input takes it."""
        shape = tuple(edge if isinstance(edge, int) else count for edge in self.inputs[0].shape)
        values = seeded_noise(shape, seed)
        return np.floor(values * 255.99).astype(np.uint8) if self.inputs[0].dtype == "uint8" else values

    def feed(self, pictures: NDArray[np.uint8]) -> NDArray[Any]:
        """Pictures (N, S, S, 3) uint8 BGR as the input takes them."""
        if self.color_order == "rgb":
            pictures = pictures[..., ::-1]
        values: NDArray[Any] = pictures if self.inputs[0].dtype == "uint8" else pictures.astype(np.float32) / 255
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values)

    def expect(self, feed: NDArray[Any]) -> list[NDArray[Any]]:
        """The module's own outputs for a feed."""
        with torch.inference_mode():
            return [output.numpy() for output in self.module(torch.from_numpy(feed))]


def face_target(module: nn.Module, info: ModelInfo, batch: int | None) -> Target:
    """The plain format: "face" (N, 3, S, S) float32 in; "swap" (N, 3, O, O) and, where learned, "mask" (N, 1, O, O)."""
    first: int | str = BATCH if batch is None else batch
    outputs = [Port("swap", (first, 3, info.output_size, info.output_size))]
    if info.has_mask:
        outputs.append(Port("mask", (first, 1, info.output_size, info.output_size)))
    face = Port("face", (first, 3, info.input_size, info.input_size))
    return Target(
        module, (face,), tuple(outputs), "NCHW", info.color_order, info.has_mask, {"format": "onnx", "io": "float"}
    )


class PixelIo(nn.Module):
    """A frame's own pixels in and out: (N, S, S, 3) uint8 BGR on both sides, masks (N, O, O, 1) uint8."""

    def __init__(self, inference: nn.Module, color_order: str) -> None:
        super().__init__()
        self.inference = inference
        self.reverse = color_order == "rgb"

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        planes = face.permute(0, 3, 1, 2).float() / 255
        swap, *mask = self.inference(planes.flip(1) if self.reverse else planes)
        images = [swap.flip(1) if self.reverse else swap, *mask]
        return tuple((image.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1) for image in images)


def pixel_target(module: nn.Module, info: ModelInfo, batch: int | None) -> Target:
    """`--io uint8`: "face" (N, S, S, 3) in; "swap" (N, O, O, 3), where learned "mask" (N, O, O, 1); uint8 BGR."""
    first: int | str = BATCH if batch is None else batch
    outputs = [Port("swap", (first, info.output_size, info.output_size, 3), "uint8")]
    if info.has_mask:
        outputs.append(Port("mask", (first, info.output_size, info.output_size, 1), "uint8"))
    face = Port("face", (first, info.input_size, info.input_size, 3), "uint8")
    wrapped = PixelIo(module, info.color_order).eval()
    extra = {"format": "onnx", "io": "uint8"}
    return Target(wrapped, (face,), tuple(outputs), "NHWC", "bgr", info.has_mask, extra)
