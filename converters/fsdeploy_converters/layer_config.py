"""Typed, bounded access to a layer's configuration, and the sizes that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from fsdeploy.model.graph.description import Operation
from fsdeploy_converters import limits
from fsdeploy_converters.errors import damaged, hostile, shown, unsupported
from fsdeploy_converters.layout import AS_STORED, Layout

Shape = tuple[int, ...]
"""Without the batch, in the file's order: (H, W, C), (T, D) or (D,)."""


class Dialect(Enum):
    """Whose arithmetic a file was trained with, where that changed."""

    KERAS1 = "standalone Keras 2.2 on TensorFlow 1"
    KERAS2 = "Keras 2 on TensorFlow 2"
    KERAS3 = "Keras 3 on torch"


@dataclass(frozen=True)
class Weight:
    """One variable of a layer, in the file's order of creation."""

    kind: str
    shape: Shape
    target: str
    """Parameter or buffer below the layer's module: "weight", "query.bias"; "" when torch has no use for it."""
    layout: Layout = AS_STORED
    learned: bool = True
    """False for statistics and constants."""
    place: str = ""
    """Group below the layer's own, for parts of a compound layer."""
    part: int = 0
    """Which of the translation's operations it belongs to."""


@dataclass(frozen=True)
class Translation:
    """A layer as operations that run one after the other, its variables, and the shape that comes out."""

    operations: tuple[tuple[str, Operation], ...]
    """Suffix of the part's name -> operation. The first takes the layer's inputs."""
    output: Shape
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True)
class LayerView:
    """A layer as a translator sees it."""

    class_name: str
    name: str
    config: Mapping[str, Any]
    shapes: tuple[Shape, ...]
    dialect: Dialect
    source: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[Any, ...] = ()
    recorded: Shape | None = None
    """Shape of the output as its consumers in the file tell it."""

    @property
    def shape(self) -> Shape:
        """Shape of the only, or first, input."""
        return self.shapes[0]

    def refuse(self, what: str) -> Exception:
        """The layer is not one that can be translated."""
        return unsupported(self.source, f"layer {shown(self.name)} ({self.class_name}): {what}")

    def image(self) -> tuple[int, int, int]:
        """(H, W, C) of the input."""
        if len(self.shape) != 3:
            raise damaged(self.source, f"layer {shown(self.name)} needs an image but gets {self.shape}")
        return (self.shape[0], self.shape[1], self.shape[2])

    def integer(self, key: str, most: int, default: int | None = None, least: int = 1) -> int:
        """A whole number in `least`..`most`."""
        value = self.config.get(key, default)
        return self._bounded(key, value, least, most)

    def _bounded(self, key: str, value: object, least: int, most: int) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise damaged(self.source, f"layer {shown(self.name)}: {key} is {shown(value)}")
        if not least <= value <= most:
            raise hostile(self.source, f"layer {shown(self.name)} claims {key} = {value}")
        return value

    def pair(self, key: str, most: int, default: int | None = None, least: int = 1) -> tuple[int, int]:
        """One whole number or two of them."""
        value = self.config.get(key, default)
        values = value if isinstance(value, list) and len(value) == 2 else [value, value]
        return (self._bounded(key, values[0], least, most), self._bounded(key, values[1], least, most))

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        return self.finite(key, self.config.get(key, default))

    def finite(self, key: str, value: object) -> float:
        """`value` if it is a finite number of sensible size."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
            raise damaged(self.source, f"layer {shown(self.name)}: {key} is {shown(value)}")
        return float(value)

    def numbers(self, key: str, value: object) -> float | list[float]:
        """A number, or one for each channel."""
        if isinstance(value, list):
            if len(value) != self.shape[-1]:
                raise damaged(self.source, f"layer {shown(self.name)}: {key} does not fit {self.shape}")
            return [self.finite(key, entry) for entry in value]
        return self.finite(key, value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.config.get(key, default)
        if type(value) is not bool:
            raise damaged(self.source, f"layer {shown(self.name)}: {key} is {shown(value)}")
        return value

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self.config.get(key, default)
        if value not in allowed:
            raise self.refuse(f"{key} {shown(value)} is not known")
        return str(value)

    def require_last_axis(self, key: str = "axis") -> None:
        """The layer must work on the last axis."""
        value = self.config.get(key, -1)
        axes = value if isinstance(value, list) else [value]
        if axes not in ([-1], [len(self.shape)]):
            raise self.refuse(f"{key} {shown(value)} is not the last axis")

    def require_channels_last(self) -> None:
        """Upstream files are always (N, H, W, C)."""
        if self.config.get("data_format") not in (None, "channels_last"):
            raise self.refuse("images that are not (H, W, channels)")

    def checked(self, shape: Shape) -> Shape:
        """`shape` if it is one that a tensor may have."""
        if any(n < 1 for n in shape) or math.prod(shape) > limits.ELEMENTS >> 3:
            raise hostile(self.source, f"layer {shown(self.name)} would give the shape {shape}")
        return shape


def same_pads(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros before and after an axis so that ceil(size / stride) places come out; the odd one goes behind."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def window(
    view: LayerView, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[list[int], tuple[int, int]]:
    """Pads (top, bottom, left, right) and output (H, W) of a sliding window under the layer's padding rule."""
    height, width, _ = view.image()
    if view.choice("padding", "valid", ("valid", "same")) == "same":
        pads = [
            *same_pads(height, kernel[0], stride[0], dilation[0]),
            *same_pads(width, kernel[1], stride[1], dilation[1]),
        ]
        return pads, (-(-height // stride[0]), -(-width // stride[1]))
    reach = [(kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)]
    return [0, 0, 0, 0], ((height - reach[0]) // stride[0] + 1, (width - reach[1]) // stride[1] + 1)


def one(name: str, output: Shape, **attributes: Any) -> Translation:
    return Translation((("", Operation(name, attributes)),), output)


def broadcast(view: LayerView) -> Shape:
    """The common shape of all inputs."""
    if len({len(shape) for shape in view.shapes}) != 1:
        raise damaged(view.source, f"layer {shown(view.name)} joins the shapes {view.shapes}")
    output = tuple(max(extents) for extents in zip(*view.shapes, strict=True))
    if any(n not in (1, output[axis]) for shape in view.shapes for axis, n in enumerate(shape)):
        raise damaged(view.source, f"layer {shown(view.name)} joins the shapes {view.shapes}")
    return output
