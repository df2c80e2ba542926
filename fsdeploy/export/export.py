"""`export_model`: from a model folder to a file that was compared with the model before it got its name."""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.export import parity, readback
from fsdeploy.export.dfm import dfm_target
from fsdeploy.export.frame import FRAME, LANDMARKS, MATRIX, SWAPPED, frame_graph, mask_kind
from fsdeploy.export.frame_parity import compare_frames
from fsdeploy.export.frame_stand_in import stand_in
from fsdeploy.export.graph import BATCH, Graph, Port, trace
from fsdeploy.export.manifest import manifest_path, manifest_text
from fsdeploy.export.metadata import describe, direction_name
from fsdeploy.export.onnxwriter import set_metadata, write_graph
from fsdeploy.export.parity import BATCHES, Parity, batches
from fsdeploy.export.pictures import read_pictures
from fsdeploy.export.precision import apply
from fsdeploy.export.settings import ExportSettings
from fsdeploy.export.target import Target, face_target, pixel_target
from fsdeploy.export.triton import config_text, new_repository
from fsdeploy.files import atomic_path, sha256, write_text
from fsdeploy.model.base import ModelBase
from fsdeploy.model.folder import load_model
from fsdeploy.model.inference import Inference
from fsdeploy.model.info import ModelInfo
from fsdeploy.runtime.metadata import SwapMetadata

_PIXEL_ATOL = 1.001 / 255
_LEAST_INPUTS = 3
"""Inputs that every output is compared on, of each kind, at least; rule C17 asks for as many."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how close it is to the model."""

    path: Path
    manifest: Path
    """What is in the file and how it was proven, as JSON."""
    sha256: str
    opset: int
    ir_version: int
    megabytes: float
    """Size in units of 10^6 bytes."""
    parity: tuple[Parity, ...]
    metadata: SwapMetadata
    seconds: float

    @property
    def max_difference(self) -> float:
        """Largest difference from the model over all outputs and inputs, on a scale of 0..1."""
        return max(entry.max_difference for entry in self.parity)

    @property
    def psnr_db(self) -> float:
        """Smallest PSNR against the model over all outputs; on real faces where there were some, else on noise."""
        return min(entry.psnr_db for entry in _most_real(self.parity))


def export_model(
    model_dir: Path,
    output: Path,
    swap_sides: bool = False,
    opset: int = 17,
    atol: float = 1e-4,
    *,
    settings: ExportSettings | None = None,
    force: bool = False,
) -> ExportReport:
    """Export one direction of a model folder.

    Args:
        model_dir: a model folder.
        output: the file to write (for the Triton format a folder).
        swap_sides: False: faces of A get B's face ("a2b"); True: the mirror ("b2a").
        opset: ONNX operator set, 11 to 20; 17 runs everywhere.
        atol: largest accepted difference from the torch model, values 0..1. Other precisions than fp32 go by PSNR.
        settings: format, precision and so on; `opset` and `atol` are then taken from it.
        force: replace an existing file.

    Returns:
        The report; the file exists only when everything in it was within tolerance.

    Raises:
        InputError: wishes that contradict each other, an existing output, an opset that the model cannot meet.
        CorruptModelError, UnknownModelError: the model folder cannot be loaded.
        CheckFailedError: the file differs from the model, or is not what was asked for; nothing is left behind.
    """
    wishes = settings or ExportSettings(opset=opset, atol=atol)
    wishes.check()
    started = time.monotonic()
    if wishes.format == "triton":
        return _export_triton(model_dir, output, swap_sides, wishes, force, started)
    for path in (output, manifest_path(output)):
        if path.is_dir():
            raise InputError(f"{path} is a folder: name a file to write with -o")
        if path.exists() and not force:
            raise InputError(f"{path} exists already: choose another name or pass --force to replace it")
    prepared = _prepare(model_dir, swap_sides, wishes)
    # The manifest gets its name after the file: a rename that fails leaves an earlier pair as it was.
    with (
        atomic_path(manifest_path(output), overwrite=force) as manifest,
        atomic_path(output, overwrite=force) as temporary,
    ):
        proven = write_frame(prepared, temporary, wishes) if wishes.whole_frame else _write(prepared, temporary, wishes)
        digest = sha256(temporary)
        manifest.write_text(_manifest(temporary, output.name, digest, proven), encoding="utf-8")
    return _report(output, output, digest, proven, started)


def _export_triton(
    model_dir: Path, repository: Path, swap_sides: bool, wishes: ExportSettings, force: bool, started: float
) -> ExportReport:
    """Write `repository/<name>/` with config.pbtxt and version folder; the name is the model folder's and direction."""
    name = f"{model_dir.resolve().name}_{direction_name(swap_sides)}"
    with new_repository(repository, name, force) as folder:
        model = folder / "1" / "model.onnx"
        proven = _write(_prepare(model_dir, swap_sides, wishes), model, wishes)
        digest = sha256(model)
        write_text(manifest_path(model), _manifest(model, model.name, digest, proven))
        write_text(folder / "config.pbtxt", config_text(name, *proven.borders))
    return _report(repository, repository / name / "1" / "model.onnx", digest, proven, started)


@dataclass(frozen=True)
class Proven:
    """A file that was written and judged."""

    figures: list[Parity]
    metadata: SwapMetadata
    borders: tuple[tuple[Port, ...], tuple[Port, ...]]


def _manifest(path: Path, name: str, digest: str, proven: Proven) -> str:
    return manifest_text(name, digest, path.stat().st_size, *proven.borders, proven.figures, proven.metadata)


def _report(output: Path, model: Path, digest: str, proven: Proven, started: float) -> ExportReport:
    return ExportReport(
        path=output,
        manifest=manifest_path(model),
        sha256=digest,
        opset=proven.metadata.opset,
        ir_version=proven.metadata.ir_version,
        megabytes=model.stat().st_size / 1e6,
        parity=tuple(proven.figures),
        metadata=proven.metadata,
        seconds=time.monotonic() - started,
    )


@dataclass
class Prepared:
    """A traced direction, and what the torch model itself gave for the inputs that the file will be judged on."""

    graph: Graph
    info: ModelInfo
    metadata: SwapMetadata
    borders: tuple[tuple[Port, ...], tuple[Port, ...]]
    scale: float
    feeds: dict[str, list[NDArray[Any]]]
    expected: dict[str, list[list[NDArray[Any]]]]


def _prepare(model_dir: Path, swap_sides: bool, wishes: ExportSettings) -> Prepared:
    plugin = load_model(model_dir, predict=True)
    info = plugin.info()
    target = build_target(plugin, info, swap_sides, wishes)
    graph = trace(target.module, target.examples(), target.inputs, target.outputs, wishes.opset)
    graph.model.ir_version = readback.ir_for(wishes.opset)
    precision = wishes.precision or "fp32"
    metadata = describe(info, target, swap_sides, wishes.opset, graph.model.ir_version, precision)
    feeds = _feeds(target, wishes.faces, metadata)
    expected = {kind: [target.expect(feed) for feed in fed] for kind, fed in feeds.items()}
    graph = apply(graph, precision, feeds.get("faces", []))
    return Prepared(graph, info, metadata, (target.inputs, target.outputs), target.scale, feeds, expected)


def _write(prepared: Prepared, path: Path, wishes: ExportSettings) -> Proven:
    """Write the file, read it back, compare it. Releases the weights of `prepared` on the way."""
    set_metadata(prepared.graph.model, prepared.metadata.to_props())
    write_graph(prepared.graph, path)
    prepared.graph.weights = {}
    gc.collect()  # the torch weights too: the checks below load the file's own copy
    readback.read_back(path, wishes.opset, *prepared.borders)
    names = [port.name for port in prepared.borders[1]]
    figures = _compare(path, names, prepared.feeds, prepared.expected, prepared.scale)
    _judge(figures, wishes, exact_pixels=prepared.scale == 1.0)
    return Proven(figures, prepared.metadata, prepared.borders)


def write_frame(prepared: Prepared, path: Path, wishes: ExportSettings) -> Proven:
    """Write a whole-frame graph: the face graph is proven first, then the frame graph against the numpy paste."""
    from_matrix = wishes.graph == "frame-matrix"
    kind = mask_kind(prepared.info, wishes.mask, from_matrix)
    points = MATRIX if from_matrix else LANDMARKS
    extra = {**prepared.metadata.extra, "format": "frame", "io": "uint8", "mask": kind, "points": points.name}
    metadata = replace(
        prepared.metadata, extra=extra, color_order="bgr", layout="NHWC", value_range=(0.0, 255.0), has_mask=False
    )  # fmt: skip

    def write_whole(face: Graph, target: Path) -> None:
        whole = frame_graph(face, prepared.info, kind, from_matrix)
        set_metadata(whole.model, metadata.to_props())
        write_graph(whole, target)

    write_whole(prepared.graph, path)
    borders = ((FRAME, points), (SWAPPED,))
    readback.read_back(path, wishes.opset, *borders)
    with tempfile.TemporaryDirectory() as folder:
        face = Path(folder) / "face.onnx"
        figures = _write(prepared, face, wishes).figures
        found = compare_frames(path, face, kind)
        figures.append(found.parity)
        if not found.is_telling:
            known, known_whole = stand_in(prepared.graph, prepared.info), Path(folder) / "known_frame.onnx"
            write_whole(known, known_whole)
            set_metadata(known.model, prepared.metadata.to_props())
            write_graph(known, Path(folder) / "known.onnx")
            figures.append(compare_frames(known_whole, Path(folder) / "known.onnx", kind).parity)
    return Proven(figures, metadata, borders)


def build_target(plugin: ModelBase, info: ModelInfo, swap_sides: bool, wishes: ExportSettings) -> Target:
    """The module that a format traces."""
    inference = Inference(plugin, swap_sides)
    if wishes.format == "dfm":
        own = Inference(plugin, not swap_sides)
        return dfm_target(inference, own, info, wishes.size, wishes.crop, wishes.mask, wishes.batch)
    if wishes.io == "uint8":
        return pixel_target(inference, info, wishes.batch)
    return face_target(inference, info, wishes.batch)


def _feeds(target: Target, faces: Path | None, metadata: SwapMetadata) -> dict[str, list[NDArray[Any]]]:
    """Inputs to compare on, by kind: seeded noise, and real faces where a folder is given."""
    free = target.inputs[0].shape[0] == BATCH
    sizes = BATCHES if free else (target.batch,) * max(2, math.ceil(_LEAST_INPUTS / target.batch))
    feeds = {"noise": [target.noise(size, seed) for seed, size in enumerate(sizes)]}
    if faces is not None:
        pictures = target.feed(read_pictures(faces, metadata, target.edge))
        rest = max(0, len(pictures) - sum(sizes))
        more = (8,) * (rest // 8) if free else (target.batch,) * (rest // target.batch)
        feeds["faces"] = batches(pictures, (*sizes, *more))
    return feeds


def _compare(
    path: Path,
    names: Sequence[str],
    feeds: dict[str, list[NDArray[Any]]],
    expected: dict[str, list[list[NDArray[Any]]]],
    scale: float,
) -> list[Parity]:
    figures = []
    for kind, fed in feeds.items():
        pairs = zip(expected[kind], parity.run_file(path, fed), strict=True)
        figures += parity.compare(names, kind, pairs, scale)
    return figures


def _judge(figures: Sequence[Parity], wishes: ExportSettings, exact_pixels: bool) -> None:
    precise = (wishes.precision or "fp32") == "fp32"
    limit = wishes.atol if exact_pixels else max(wishes.atol, _PIXEL_ATOL)
    for entry in figures if precise else _most_real(figures):
        where = f"output '{entry.output}' on {entry.inputs}"
        if precise and not entry.max_difference <= limit:
            raise CheckFailedError(
                f"{where} differs from the model by {entry.max_difference:.3g}, above the tolerance of {limit:.3g}: "
                "no file was written; raise --atol only if you know why"
            )
        if not precise and not (entry.psnr_db >= wishes.least_psnr and math.isfinite(entry.max_difference)):
            raise CheckFailedError(
                f"{where} has {entry.psnr_db:.1f} dB against fp32, below the floor of {wishes.least_psnr:.1f} dB: "
                "no file was written; choose a higher precision or a lower --floor"
            )


def _most_real(figures: Sequence[Parity]) -> list[Parity]:
    """The figures on real faces where there are some: quantised ranges are not made for noise."""
    return [entry for entry in figures if entry.inputs == "faces"] or list(figures)
