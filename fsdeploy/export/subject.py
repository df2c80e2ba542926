"""An exported file under examination: its outline, its graph, a session, and pictures to run it on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.export.dfm import CROPS
from fsdeploy.export.manifest import manifest_path
from fsdeploy.files import sha256
from fsdeploy.runtime.metadata import SwapMetadata
from fsdeploy.runtime.onnxfile import OnnxFile

App = Literal["facefusion", "deepfacelive", "visomaster", "onnxruntime"]
DFM_APPS: tuple[App, ...] = ("facefusion", "deepfacelive", "visomaster")
Status = Literal["pass", "fail", "warn", "skip"]
Outputs = list[NDArray[Any]]


@dataclass(frozen=True)
class Finding:
    """One rule applied to one file."""

    rule: str
    """"C1" to "C20", as docs/formats/dfm.md numbers them."""
    title: str
    status: Status
    """"fail": a consumer breaks. "warn": works at a cost. "skip": could not be judged."""
    detail: str


@dataclass
class Subject:
    """The file under examination: its outline, its graph, and a session where it loads."""

    path: Path
    apps: tuple[App, ...]
    outline: OnnxFile
    model: onnx.ModelProto
    metadata: SwapMetadata | None
    session: Any
    load_error: str
    faces: NDArray[np.uint8] | None

    @property
    def is_dfm(self) -> bool:
        """Judged by the rules of the dfm apps."""
        return self.apps != ("onnxruntime",)

    @property
    def takes_frames(self) -> bool:
        """A whole-frame graph."""
        return self.metadata is not None and self.metadata.extra.get("format") == "frame"

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        return list(self.model.graph.input)

    @property
    def outputs(self) -> list[onnx.ValueInfoProto]:
        return list(self.model.graph.output)

    def pictures(self, count: int) -> NDArray[np.float32]:
        """`count` pictures (N, R, R, 3) float32 BGR: real faces where there are some, else drawn ones."""
        edge = self.edge
        if self.faces is not None:
            picked = self.faces[np.arange(count) % len(self.faces)]
            return np.asarray(picked, np.float32) / np.float32(255)
        return np.stack([drawn_face(edge, seed, self.metadata) for seed in range(count)])

    @property
    def edge(self) -> int:
        """Edge of the input picture in pixels.

        Raises:
            InputError: the first input has no numeric square size.
        """
        borders = edges(self.inputs[0]) if self.inputs else ()
        sizes = [edge for edge in borders[1:] if isinstance(edge, int) and edge > 4]
        if len(sizes) != 2 or sizes[0] != sizes[1]:
            raise InputError(f"{self.path}: the first input is {borders}, not one of square pictures")
        return sizes[0]

    def run(self, pictures: NDArray[np.float32]) -> Outputs:
        """Outputs for pictures (N, R, R, 3) float32 BGR, the picture and masks as the file gives them."""
        entry = self.session.get_inputs()[0]
        wanted = entry.shape[0] if isinstance(entry.shape[0], int) else len(pictures)
        if len(pictures) < wanted:
            filled = np.concatenate([pictures, np.repeat(pictures[-1:], wanted - len(pictures), axis=0)])
            return [output[: len(pictures)] for output in self.run(filled)]
        feed: NDArray[Any] = pictures
        if entry.type == "tensor(uint8)":
            feed = np.rint(pictures * 255).astype(np.uint8)
        if entry.shape[1] == 3 and entry.shape[-1] != 3:
            feed = pictures.transpose(0, 3, 1, 2)
        feeds = {entry.name: np.ascontiguousarray(feed)}
        for other in self.session.get_inputs()[1:]:
            feeds[other.name] = np.ones([1], np.float32)
        return list(self.session.run(None, feeds))


def edges(entry: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Declared shape of a border: numbers, or names of free edges ("" for unknown ones)."""
    shape = entry.type.tensor_type.shape
    return tuple(edge.dim_value if edge.HasField("dim_value") else edge.dim_param for edge in shape.dim)


def manifest_parity(path: Path) -> tuple[float, int] | None:
    """Largest difference, and number of samples of the output with the fewest, that the manifest beside a file
    vouches for; None without one.

    Raises:
        InputError: the manifest is of another file, or damaged.
    """
    beside = manifest_path(path)
    if not beside.exists():
        return None
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))
        if values["sha256"] != sha256(path):
            raise InputError(f"{beside} describes another file: export again")
        figures = [entry for entry in values["parity"] if entry["inputs"] != "frames"]
        samples = Counter[str]()
        for entry in figures:
            samples[entry["output"]] += int(entry["samples"])
        return max(float(entry["max_difference"]) for entry in figures), min(samples.values())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{beside} is damaged ({error}): export again") from error


def drawn_face(edge: int, seed: int, metadata: SwapMetadata | None) -> NDArray[np.float32]:
    """A simple face (R, R, 3) float32 BGR 0..1 where the app's crop shows one: skin, eyes, brows, nose, mouth."""
    crop = (metadata.extra.get("crop") if metadata is not None else None) or {}
    side, centre = crop.get("side", CROPS["facefusion"][0]), crop.get("center", CROPS["facefusion"][1])
    rng = np.random.default_rng(seed)
    skin = rng.uniform([70, 100, 140], [150, 180, 230])
    image = np.full((edge, edge, 3), rng.uniform(30, 90, 3), np.float32)

    def at(x: float, y: float) -> tuple[int, int]:
        return round(((x - centre[0]) / side + 0.5) * edge), round(((y - centre[1]) / side + 0.5) * edge)

    def blob(x: float, y: float, half_x: float, half_y: float, shade: NDArray[np.float64]) -> None:
        axes = (max(1, round(half_x / side * edge)), max(1, round(half_y / side * edge)))
        cv2.ellipse(image, at(x, y), axes, 0, 0, 360, shade.tolist(), -1, cv2.LINE_AA)

    blob(0.5, 0.41, 0.6, 0.78, skin)
    for x in (0.235, 0.765):
        blob(x, 0.21, 0.11, 0.05, np.full(3, 225.0))
        blob(x, 0.21, 0.045, 0.045, skin * 0.2)
        blob(x, 0.05, 0.16, 0.03, skin * 0.4)
    blob(0.5, 0.5, 0.09, 0.05, skin * 0.8)
    blob(0.5, 0.8, 0.22, 0.07, skin * np.array([0.7, 0.6, 0.9]))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(0.5, edge / 150)) / 255, np.float32)
