"""What can be asked of an export, and which formats take which wish."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from fsdeploy.errors import InputError

Format = Literal["onnx", "dfm", "triton"]
Precision = Literal["fp32", "fp16-storage", "fp16", "int8"]
Io = Literal["float", "uint8"]
GraphKind = Literal["face", "frame", "frame-matrix"]
Crop = Literal["none", "facefusion", "deepfacelive", "dfl-whole-face"]
Mask = Literal["auto", "learned", "hull", "ellipse", "ones"]

FLOORS: dict[str, float] = {"fp32": 80.0, "fp16-storage": 55.0, "fp16": 45.0, "int8": 30.0}
"""Default smallest PSNR in dB against the fp32 model."""

_TAKES: dict[str, frozenset[str]] = {
    "onnx": frozenset({"batch", "precision", "io", "graph", "mask"}),
    "dfm": frozenset({"batch", "precision", "size", "crop", "mask"}),
    "triton": frozenset({"precision", "io"}),
}
_LIMITED = ("batch", "precision", "io", "graph", "size", "crop", "mask")


@dataclass(frozen=True)
class ExportSettings:
    """One export. None = not asked for: the format's own choice."""

    format: Format = "onnx"
    opset: int = 17
    atol: float = 1e-4
    batch: int | None = None
    """Fixed number of faces per run; None = free."""
    precision: Precision | None = None
    io: Io | None = None
    graph: GraphKind | None = None
    size: int | None = None
    """dfm: edge R of the app's crop in pixels."""
    crop: Crop | None = None
    mask: Mask | None = None
    faces: Path | None = None
    """Folder of extracted faces to compare, calibrate and measure on."""
    floor: float | None = None
    """Smallest accepted PSNR in dB against fp32."""

    def check(self) -> None:
        """Refuse wishes that the format does not take, by name.

        Raises:
            InputError: the first such wish, or values that contradict each other.
        """
        given = {field.name for field in fields(self) if getattr(self, field.name) is not None}
        for name in _LIMITED:
            if name in given and name not in _TAKES[self.format]:
                formats = ", ".join(entry for entry, taken in _TAKES.items() if name in taken)
                raise InputError(f"--{name} is not for --format {self.format}: only for {formats}")
        if self.batch is not None and not 1 <= self.batch <= 1024:
            raise InputError(f"--batch must be 'dynamic' or 1..1024, got {self.batch}")
        if not self.atol > 0:
            raise InputError(f"--atol must be above 0, got {self.atol}")
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.whole_frame:
            if self.opset < 16:
                raise InputError("--graph frame needs --opset 16 or newer: GridSample came with 16")
            for name in ("io", "batch"):
                if getattr(self, name) is not None:
                    raise InputError(f"--{name} is not for --graph frame: it takes one uint8 frame")
            if self.mask == "ones":
                raise InputError("--mask ones is not for --graph frame: choose auto, learned, hull or ellipse")
        elif self.format == "onnx" and self.mask is not None:
            raise InputError(
                "--mask is for --graph frame and --format dfm: a plain face graph gives the model's own mask"
            )
        if self.format == "dfm":
            self._check_dfm()
        if self.precision == "int8" and self.opset < 13:
            raise InputError(f"--precision int8 needs --opset 13 or newer (one scale per channel), got {self.opset}")
        if self.precision in ("fp16", "int8") and self.faces is None:
            raise InputError(f"--precision {self.precision} needs --faces FOLDER to calibrate and measure on")

    def _check_dfm(self) -> None:
        if self.mask == "hull":
            raise InputError("--mask hull is not for --format dfm: the apps give the file no landmarks")
        if self.size is not None and (not 64 <= self.size <= 1024 or self.size % 16):
            raise InputError(f"--size must be a multiple of 16 in 64..1024 (224 or more is best), got {self.size}")

    @property
    def whole_frame(self) -> bool:
        """True for a graph that takes and gives whole frames."""
        return self.graph in ("frame", "frame-matrix")

    @property
    def least_psnr(self) -> float:
        return FLOORS[self.precision or "fp32"] if self.floor is None else self.floor
