"""What an exported file says about itself: the `metadata_props` of every ONNX that fsdeploy writes.

Every property name starts with `fsdeploy.`; values are JSON. docs/formats/onnx-metadata.md documents each of them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsdeploy.errors import InputError

FORMAT_VERSION = 1
_PREFIX = "fsdeploy."


@dataclass(frozen=True)
class SwapMetadata:
    """The facts that an embedder needs and would otherwise guess."""

    direction: str
    """"a2b": a face of A goes in, B's face in A's pose comes out. "b2a" is the mirror."""
    plugin: str
    """Model plugin name, for example "original"."""
    input_size: int
    """Edge of the square input face in pixels."""
    output_size: int
    """Edge of the square output face in pixels."""
    color_order: str
    """"bgr" or "rgb", of input and output."""
    layout: str
    """"NCHW" or "NHWC", of every image tensor."""
    value_range: tuple[float, float]
    """(0.0, 1.0) for float tensors, (0.0, 255.0) for uint8."""
    centering: str
    """"face", "head" or "legacy": how the crop was centred in training."""
    coverage: float
    """Share of the centred face that was trained on, 0.625 to 1.0."""
    vertical_offset: float
    """Shift of the crop as a share of its core, -0.25 to 0.25; positive moves the face down."""
    has_mask: bool
    """True when the second output is the model's own mask."""
    iterations: int
    """Training iterations of the weights."""
    opset: int
    ir_version: int
    producer_version: str
    """Version of fsdeploy that wrote the file."""
    weights_sha256: str
    """Digest of the safetensors file that the graph was cut from."""
    mean_face: tuple[tuple[float, float], ...]
    """The 51 mean points (x, y) in 0..1 that landmarks 17..67 are aligned to."""
    provenance: str
    """Plain sentence: that outputs are synthetic and how they are to be labelled (IPTC digital source type)."""
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Anything a format adds (crop adapter, precision, ...); kept as it is."""
    format_version: int = FORMAT_VERSION

    def check(self) -> None:
        """Hold every value that code relies on to its type and range.

        Raises:
            ValueError: the first that is neither, by name.
        """
        if not isinstance(self.extra, Mapping):
            raise ValueError("extra is no object")
        crop = self.extra.get("crop", {})
        sound = {
            "direction": self.direction in ("a2b", "b2a"),
            "input_size": _is_edge(self.input_size),
            "output_size": _is_edge(self.output_size),
            "color_order": self.color_order in ("bgr", "rgb"),
            "layout": self.layout in ("NCHW", "NHWC"),
            "value_range": len(self.value_range) == 2,
            "centering": self.centering in ("face", "head", "legacy"),
            "coverage": _is_number(self.coverage) and 0 < self.coverage <= 2,
            "vertical_offset": _is_number(self.vertical_offset) and abs(self.vertical_offset) <= 1,
            "has_mask": isinstance(self.has_mask, bool),
            "mean_face": len(self.mean_face) == 51,
            "extra": isinstance(crop, Mapping) and _is_crop(crop),
            "extra.crop_size": _is_edge(self.extra.get("crop_size", 1)),
            "extra.face_size": _is_edge(self.extra.get("face_size", 1)),
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise ValueError(f"{name} is out of range")

    def to_props(self) -> dict[str, str]:
        """Property name -> JSON text, sorted by name."""
        values = dataclasses.asdict(self)
        return {_PREFIX + name: json.dumps(values[name], sort_keys=True) for name in sorted(values)}

    @classmethod
    def from_props(cls, props: Mapping[str, str], source: str) -> SwapMetadata:
        """Read the properties of a file named `source`.

        Raises:
            InputError: not written by fsdeploy, or by a newer format, or damaged.
        """
        found = {name[len(_PREFIX) :]: text for name, text in props.items() if name.startswith(_PREFIX)}
        if not found:
            raise InputError(f"{source} has no fsdeploy metadata: export it with 'fsdeploy export'")
        try:
            values = {name: json.loads(text) for name, text in found.items()}
            if values["format_version"] > FORMAT_VERSION:
                raise InputError(f"{source} was written by a newer fsdeploy ({found.get('producer_version')}): upgrade")
            values["value_range"] = tuple(values["value_range"])
            values["mean_face"] = tuple((float(x), float(y)) for x, y in values["mean_face"])
            names = {entry.name for entry in dataclasses.fields(cls)}
            read = cls(**{name: value for name, value in values.items() if name in names})
            read.check()
            return read
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{source} has damaged fsdeploy metadata ({error}): export it again") from error


def _is_edge(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 8192


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_crop(crop: Mapping[str, Any]) -> bool:
    if not crop:
        return True
    centre = crop.get("center")
    numbers = isinstance(centre, (list, tuple)) and len(centre) == 2 and all(_is_number(value) for value in centre)
    return numbers and _is_number(crop.get("side")) and crop["side"] > 0 and isinstance(crop.get("name"), str)
