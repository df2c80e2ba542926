"""`fsdeploy inspect`: what is this file or folder?"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fsdeploy.cli.json_output import json_text
from fsdeploy.errors import CorruptModelError, FsdeployError, InputError

Facts = dict[str, Any]
"""JSON values. A list of objects is shown as a table of its own."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PNG = b"\x89PNG\r\n\x1a\n"
_JSON_ONLY = ("config",)  # too long for a table


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON: everything, also what the table leaves out.")
def inspect(path: Path, as_json: bool) -> None:
    """Say what PATH is: a model folder, an exported ONNX file, safetensors, a face image, an alignments file.

    \b
    Examples:
      fsdeploy inspect my_model
      fsdeploy inspect a2b.onnx
      fsdeploy inspect faces_a/0001_0.png --json
    """
    facts = describe(path)
    if as_json:
        click.echo(json_text(facts))
    else:
        _print_tables(facts)


def describe(path: Path) -> Facts:
    """Everything known about a file or folder; "kind" says what it is.

    Raises:
        InputError: it does not exist, cannot be read, or is nothing that fsdeploy knows.
    """
    kind, reader = _recognise(path)
    return {"path": str(path), "kind": kind, **reader(path)}


def _recognise(path: Path) -> tuple[str, Callable[[Path], Facts]]:
    if path.is_dir():
        return "model folder", _model_folder
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}: name a model folder or a file") from error
    if start.startswith(_PNG):
        return "face image", _face
    if start.startswith((_HDF5, b"PK")):
        return "legacy model", _legacy
    if path.suffix.lower() in (".onnx", ".dfm"):
        return "ONNX model", _onnx
    if ".safetensors" in path.suffixes or start[8:] == b"{":
        return "safetensors", _safetensors
    if path.suffix.lower() == ".fsa":
        return "alignments", _alignments
    raise InputError(
        f"{path} is nothing that fsdeploy knows: inspect a model folder, .onnx, .safetensors, face .png or .fsa file"
    )


def _model_folder(folder: Path) -> Facts:
    from fsdeploy.model.backup import Backup
    from fsdeploy.model.folder import model_info, model_name_in
    from fsdeploy.model.saved_set import OURS, FileSet, find_saved_set

    name = model_name_in(folder)
    facts: Facts = {"plugin": name}
    try:
        found = FileSet(folder, name).find()
    except CorruptModelError as error:
        facts["damaged"] = str(error)
        found = find_saved_set(folder, name)
        facts["loads_from"] = str(found.weights)
    try:
        facts |= {key: value for key, value in dataclasses.asdict(model_info(folder)).items() if key != "name"}
        # A training may have saved once more since: all that is said here is of the set that was found.
        facts |= {"iterations": found.state["iterations"], "weights_sha256": found.weights_sha256}
    except FsdeployError as error:
        facts |= {"problem": str(error), "iterations": found.state["iterations"]}
    state, ours = found.state, found.state[OURS]
    facts |= {
        "lowest_avg_loss": state["lowest_avg_loss"],
        "lr_finder": state["lr_finder"],
        "written_by": f"fsdeploy {ours['version']}",
        "saved": _date(ours["saved"]),
        "files": [
            {"file": file, "megabytes": round(record["size"] / 1e6, 1), **_without(record, "size")}
            for file, record in ours["files"].items()
        ],
        "sessions": [
            {
                "session": int(number),
                "started": _date(entry.get("timestamp", 0)),
                **_without(entry, "timestamp", "config"),
            }
            for number, entry in sorted(state["sessions"].items(), key=lambda item: int(item[0]))
        ],
        "restore_points": [
            {**dataclasses.asdict(point), "saved": _date(point.saved)}
            for point in Backup(folder, name).restore_points()
        ],
        "config": state["config"],
    }
    return facts


def _onnx(path: Path) -> Facts:
    from fsdeploy.runtime.metadata import SwapMetadata
    from fsdeploy.runtime.onnxfile import scan

    outline = scan(path)
    facts: Facts = {
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "ir_version": outline.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in outline.opsets.items()},
        "external_files": list(outline.external),
        **_onnx_graph(path),
    }
    try:
        facts["fsdeploy"] = dataclasses.asdict(SwapMetadata.from_props(outline.metadata, str(path)))
    except InputError as error:
        facts |= {"note": str(error), "metadata": outline.metadata}
    return facts


def _onnx_graph(path: Path) -> Facts:
    """Borders and number of nodes of an ONNX file whose outline is sound."""
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
        own = {tensor.name for tensor in graph.initializer}
        tensors = [
            {"direction": direction, **_value_info(value)}
            for direction, values in (("input", graph.input), ("output", graph.output))
            for value in values
            if value.name not in own
        ]
    except Exception as error:  # protobuf's own, and the one below
        raise InputError(f"{path} is damaged inside its graph: export it again, or restore a good copy") from error
    return {"tensors": tensors, "nodes": len(graph.node)}


def _value_info(value: Any) -> Facts:
    import onnx

    tensor = value.type.tensor_type
    shape = [entry.dim_param or entry.dim_value for entry in tensor.shape.dim]
    types = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    texts = (value.name, *(entry.dim_param for entry in tensor.shape.dim))
    if not all(isinstance(text, str) for text in texts):  # protobuf gives the bytes of what is no text
        raise UnicodeError("a name in the graph is no text")
    return {"name": value.name, "type": types.get(tensor.elem_type, f"unknown ({tensor.elem_type})"), "shape": shape}


def _safetensors(path: Path) -> Facts:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            tensors = [
                {"name": name, "type": part.get_dtype(), "shape": part.get_shape()} for name, part in slices.items()
            ]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}: restore a good copy") from error
    values = {key: _json_or_text(text) for key, text in metadata.items()}
    ours = values.pop("fsdeploy", {})
    config = ours.pop("config", {}) if isinstance(ours, dict) else {}
    return {
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "fsdeploy": ours,
        "config": config,
        "values": sum(_product(tensor["shape"]) for tensor in tensors),
        "metadata": values,
        "tensors": tensors,
    }


def _face(path: Path) -> Facts:
    from fsdeploy.faces.png import read_face

    image, header = read_face(path)
    face, source = header.face, header.source
    return {
        "image_size": image.shape[0],
        "centering": source.stored_centering,
        "frame": source.source_filename,
        "frame_is_video": source.source_is_video,
        "frame_size": None if source.source_frame_dims is None else list(source.source_frame_dims[::-1]),
        "face_index": source.face_index,
        "extracted_as": source.original_filename,
        "box": [face.x, face.y, face.w, face.h],
        "landmarks": len(face.landmarks),
        "alignments_version": source.alignments_version,
        "identity": {name: len(values) for name, values in face.identity.items()},
        "masks": [
            {"mask": name, "size": mask.stored_size, "centering": mask.stored_centering}
            for name, mask in face.masks.items()
        ],
    }


def _alignments(path: Path) -> Facts:
    from collections import Counter

    from fsdeploy.faces.alignments import read_alignments

    alignments = read_alignments(path)
    faces = [face for found in alignments.frames.values() for face in found]
    return {
        "version": alignments.version,
        "frames": len(alignments.frames),
        "frames_without_face": sum(not found for found in alignments.frames.values()),
        "faces": len(faces),
        "landmarks": {str(count): number for count, number in Counter(len(face.landmarks) for face in faces).items()},
        "masks": dict(Counter(name for face in faces for name in face.masks)),
        "skipped": list(alignments.skipped),
    }


def _legacy(path: Path) -> Facts:
    from fsdeploy.model.migration import find_converter

    found = find_converter(path).look(path)
    following = {"next": f"turn it into a model folder: fsdeploy migrate {path}"} if found.is_model else {}
    return {"format": found.format, **found.facts, **following}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _no_json(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_json(text)


def _product(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _without(entry: Facts, *keys: str) -> Facts:
    return {key: value for key, value in entry.items() if key not in keys}


def _print_tables(facts: Facts) -> None:
    from rich.table import Table

    from fsdeploy.terminal import console

    screen = console()
    summary = Table(show_header=False, box=None, pad_edge=False)
    tables = {key: value for key, value in facts.items() if value and _is_table(value)}
    for key, value in facts.items():
        if key in tables or key in _JSON_ONLY or value in (None, "", [], {}):
            continue
        for name, entry in _flat(key, value):
            summary.add_row(name.replace("_", " "), _shown(entry))
    screen.print(summary)
    for key, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = Table(*columns, title=key.replace("_", " "), title_justify="left")
        for row in rows:
            table.add_row(*(_shown(row.get(column, "")) for column in columns))
        screen.print(table)


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(key, value)]
    return [(name if key == "fsdeploy" else f"{key} {name}", entry) for name, entry in value.items()]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)) and len(value) > 16:
        return f"{len(value)} values"
    return value if isinstance(value, str) else json.dumps(value)
