"""Landmarks as plain text: JSON, JSON lines and CSV (docs/formats/landmarks.md)."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import FsdeployError, InputError
from fsdeploy.faces.records import FaceRecord

POINT_COUNTS = (4, 51, 68, 98)
ONLY_FRAME = ""
"""Key of the faces of a file that names no frame: they are those of the one frame there is."""
_MAX_TEXT = 1 << 30

Faces = dict[str, list[FaceRecord]]
"""Frame, as the file names it -> its faces in their order."""


def read_plain_landmarks(path: Path) -> Faces:
    """The faces of a landmarks file by frame.

    Raises:
        InputError: unknown kind of file, or an entry that is not as documented (names it).
    """
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise InputError(f"{path} is larger than 1 GiB: split it")
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: give .json, .jsonl or .csv") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    readers = {".json": _from_json, ".jsonl": _from_lines, ".csv": _from_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: landmarks are read from {', '.join(readers)}")
    try:
        return reader(text)
    except (FsdeployError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
            csv.Error) as error:  # fmt: skip
        raise InputError(f"{path} is not as docs/formats/landmarks.md describes ({error})") from error


def _from_json(text: str) -> Faces:
    data = json.loads(text)
    if isinstance(data, list):
        points = data and isinstance(data[0], list) and data[0] and isinstance(data[0][0], int | float)
        data = {ONLY_FRAME: [data] if points else data}
    frames = data["frames"] if isinstance(data, dict) and "frames" in data else data
    if not isinstance(frames, dict):
        raise InputError("the outermost value must be an object of frames")
    out = {}
    for key, faces in frames.items():
        if not isinstance(faces, list):
            raise InputError(f"frame '{key}' must hold a list of faces")
        where = f"frame '{key}', " if key else ""
        out[str(key)] = [_record(face, f"{where}face {number}") for number, face in enumerate(faces)]
    return out


def _from_lines(text: str) -> Faces:
    rows: dict[str, list[tuple[int, FaceRecord]]] = defaultdict(list)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        entry = json.loads(line)
        key = str(entry["key"] if "key" in entry else entry["frame"])
        try:
            face = int(entry.get("face", len(rows[key])))
        except (ValueError, OverflowError) as error:
            raise InputError(f"line {number}: 'face' must be a whole number from 0") from error
        rows[key].append((face, _record(entry, f"line {number}")))
    return _ordered(rows)


def _from_csv(text: str) -> Faces:
    rows: dict[str, list[tuple[int, FaceRecord]]] = defaultdict(list)
    for number, cells in enumerate(csv.reader(text.splitlines()), 1):
        if not cells or (number == 1 and cells[0].strip().lower() == "frame"):
            continue
        if len(cells) < 2:
            raise InputError(f"line {number} has one cell: frame, face and coordinates are needed")
        values = [float(cell) for cell in cells[2:]]
        points = np.asarray(values, np.float64)
        if len(points) % 2:
            raise InputError(f"line {number} has {len(points)} coordinates: an even number is needed")
        rows[cells[0].strip()].append((int(cells[1]), _face(points.reshape(-1, 2), f"line {number}")))
    return _ordered(rows)


def _ordered(rows: dict[str, list[tuple[int, FaceRecord]]]) -> Faces:
    return {key: [face for _, face in sorted(found, key=lambda e: e[0])] for key, found in rows.items()}


def _record(entry: Any, where: str) -> FaceRecord:
    points = entry if isinstance(entry, list) else entry.get("landmarks", entry.get("landmarks_2d"))
    if points is None:
        raise InputError(f"{where} has no 'landmarks'")
    try:
        return _face(np.asarray(points, np.float64), where)
    except OverflowError as error:
        raise InputError(f"{where} has coordinates that are no pixels") from error


def _face(points: NDArray[np.float64], where: str) -> FaceRecord:
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in POINT_COUNTS:
        raise InputError(f"{where} must have 68 points (x, y), has shape {points.shape}")
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise InputError(f"{where} has coordinates that are no pixels")
    left, top = np.floor(points.min(axis=0)).astype(int)
    right, bottom = np.ceil(points.max(axis=0)).astype(int)
    return FaceRecord(
        x=int(left),
        y=int(top),
        w=int(right - left),
        h=int(bottom - top),
        landmarks=points.astype(np.float32),
        masks={},
        identity={},
        thumb=None,
        extra={},
    )
