"""Which faces are in which frame: alignments files, folders of extracted faces, plain JSON and CSV.

All of them are read only. docs/formats/landmarks.md documents the plain formats.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.convert.frame import Frame
from fsdeploy.errors import FsdeployError, InputError, NotAFaceError
from fsdeploy.faces.alignments import read_alignments
from fsdeploy.faces.png import read_header
from fsdeploy.faces.records import FaceRecord

logger = logging.getLogger(__name__)

POINT_COUNTS = (4, 51, 68, 98)
_MAX_TEXT = 1 << 30


@dataclass
class FaceIndex:
    """Faces by frame. Built once, asked for every frame."""

    source: Path
    frames: dict[str, list[FaceRecord]]
    """Frame key (file name) or frame index as text -> faces in their order."""
    by_index: bool = False
    """True when the keys are frame indices from 0, not names."""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Frame key -> (height, width) that the landmarks were found in, where known."""
    used: set[str] = field(default_factory=set)
    """Keys that a frame asked for and found."""

    def __post_init__(self) -> None:
        self._by_stem: dict[str, str] = {}
        for key in self.frames:
            self._by_stem.setdefault(_stem(key), key)

    def find(self, frame: Frame) -> str | None:
        """The key of the frame's record, by full name, else by name without extension; None if there is none."""
        if self.by_index:
            key: str | None = str(frame.index)
            return key if key in self.frames else None
        if frame.key in self.frames:
            return frame.key
        return self._by_stem.get(_stem(frame.key))

    def faces(self, frame: Frame) -> list[FaceRecord]:
        """Faces of a frame, [] where there are none.

        Raises:
            InputError: the landmarks were found in frames of another size.
        """
        key = self.find(frame)
        if key is None:
            return []
        self.used.add(key)
        size = self.sizes.get(key)
        if size is not None and frame.image is not None and size != frame.image.shape[:2]:
            raise InputError(
                f"{self.source}: the landmarks of {frame.key} were found at {size[1]}x{size[0]}, the frame is "
                f"{frame.image.shape[1]}x{frame.image.shape[0]}: use the frames that the faces were extracted from"
            )
        return self.frames[key]

    def check_names(self, keys: Iterable[str], source: Path) -> None:
        """Refuse landmarks of which none belongs to the source.

        Raises:
            InputError: no key matches any of `keys`.
        """
        if self.by_index:
            return
        stems = set(self._by_stem)
        if not any(_stem(key) in stems for key in keys):
            example = next(iter(self.frames), "nothing")
            raise InputError(
                f"{self.source} belongs to other frames than {source} (it names '{example}'): "
                "give the landmarks of this input, or rename the input as it was when they were made"
            )

    def keep_only(self, chosen: FaceIndex, positions: Mapping[str, set[int]]) -> None:
        """Drop every face whose (frame, position) is not in `positions`, keyed by frame stem of `chosen`."""
        for key, faces in self.frames.items():
            wanted = positions.get(_stem(key), set())
            self.frames[key] = [face for number, face in enumerate(faces) if number in wanted]
        kept = sum(map(len, self.frames.values()))
        if not kept:
            raise InputError(f"no face of {chosen.source} occurs in {self.source}: they belong to different frames")

    def unused(
        self,
    ) -> list[str]:
        """Keys with faces that no frame asked for."""
        return sorted(key for key, faces in self.frames.items() if faces and key not in self.used)

    @property
    def face_count(self) -> int:
        return sum(map(len, self.frames.values()))


def _stem(key: str) -> str:
    return Path(key).stem


def load_faces(
    source: Path, alignments: Path | None = None, faces: Path | None = None, landmarks: Path | None = None
) -> FaceIndex:
    """The faces of an input.

    `alignments` (.fsa) with `faces` (a folder of extracted faces): only faces that are still in the folder are kept.
    `faces` alone drives the conversion by itself, as does `landmarks` (.json, .jsonl or .csv). With none of them the
    alignments file beside the source is taken.

    Raises:
        InputError: nothing given and nothing found, or unreadable.
    """
    if landmarks is not None:
        if alignments is not None or faces is not None:
            raise InputError("give either --landmarks or --alignments/--faces, not both")
        return read_landmarks(landmarks)
    if alignments is None and faces is None:
        alignments = default_alignments(source)
        if not alignments.exists():
            raise InputError(
                f"no faces are known for {source}: give --faces (folder of extracted faces), --alignments (.fsa) or "
                f"--landmarks (.json/.csv); {alignments} does not exist"
            )
    if alignments is None:
        assert faces is not None
        return read_face_folder(faces)[0]
    index = FaceIndex(alignments, dict(read_alignments(alignments).frames))
    if faces is not None:
        chosen, positions = read_face_folder(faces)
        index.keep_only(chosen, positions)
    return index


def default_alignments(source: Path) -> Path:
    """Where an alignments file lies beside its source."""
    if source.is_dir():
        return source / "alignments.fsa"
    return source.with_name(f"{source.stem}_alignments.fsa")


def read_face_folder(folder: Path) -> tuple[FaceIndex, dict[str, set[int]]]:
    """Faces of a folder of extracted PNGs by source frame, and their positions in it (frame stem -> face indices).

    Raises:
        InputError: the folder is missing or holds no extracted face.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the folder of extracted faces")
    grouped: dict[str, list[tuple[int, FaceRecord]]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    passed_over = 0
    for path in sorted(folder.glob("*.png")):
        try:
            header = read_header(path)
        except NotAFaceError:
            passed_over += 1
            continue
        origin = header.source
        grouped[origin.source_filename].append((origin.face_index, header.face))
        if origin.source_frame_dims is not None:
            height, width = origin.source_frame_dims
            sizes[origin.source_filename] = (int(height), int(width))
    if passed_over:
        logger.warning("%s: %d images without face data were passed over", folder, passed_over)
    if not grouped:
        raise InputError(f"{folder} holds no extracted faces: give the folder that 'extract' wrote, with PNG headers")
    frames = {key: [face for _, face in sorted(found, key=lambda e: e[0])] for key, found in grouped.items()}
    positions: dict[str, set[int]] = defaultdict(set)
    for key, found in grouped.items():
        positions[_stem(key)].update(number for number, _ in found)
    return FaceIndex(folder, frames, sizes=sizes), dict(positions)


def read_landmarks(path: Path) -> FaceIndex:
    """Landmarks from plain JSON, JSON lines or CSV (docs/formats/landmarks.md).

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
        frames, by_index = reader(text)
    except (FsdeployError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(f"{path} is not as docs/formats/landmarks.md describes ({error})") from error
    return FaceIndex(path, frames, by_index)


def _from_json(text: str) -> tuple[dict[str, list[FaceRecord]], bool]:
    data = json.loads(text)
    frames = data["frames"] if isinstance(data, dict) and "frames" in data else data
    if not isinstance(frames, dict):
        raise InputError("the outermost value must be an object of frames")
    out = {}
    for key, faces in frames.items():
        if not isinstance(faces, list):
            raise InputError(f"frame '{key}' must hold a list of faces")
        out[str(key)] = [_record(face, f"frame '{key}', face {number}") for number, face in enumerate(faces)]
    return out, _all_indices(out)


def _from_lines(text: str) -> tuple[dict[str, list[FaceRecord]], bool]:
    rows: dict[str, list[tuple[int, FaceRecord]]] = defaultdict(list)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        entry = json.loads(line)
        key = str(entry["key"] if "key" in entry else entry["frame"])
        face = int(entry.get("face", len(rows[key])))
        rows[key].append((face, _record(entry, f"line {number}")))
    return _ordered(rows)


def _from_csv(text: str) -> tuple[dict[str, list[FaceRecord]], bool]:
    rows: dict[str, list[tuple[int, FaceRecord]]] = defaultdict(list)
    for number, cells in enumerate(csv.reader(text.splitlines()), 1):
        if not cells or (number == 1 and cells[0].strip().lower() == "frame"):
            continue
        values = [float(cell) for cell in cells[2:]]
        points = np.asarray(values, np.float64)
        if len(points) % 2:
            raise InputError(f"line {number} has {len(points)} coordinates: an even number is needed")
        rows[cells[0].strip()].append((int(cells[1]), _face(points.reshape(-1, 2), f"line {number}")))
    return _ordered(rows)


def _ordered(rows: dict[str, list[tuple[int, FaceRecord]]]) -> tuple[dict[str, list[FaceRecord]], bool]:
    frames = {key: [face for _, face in sorted(found, key=lambda e: e[0])] for key, found in rows.items()}
    return frames, _all_indices(frames)


def _all_indices(frames: Mapping[str, Any]) -> bool:
    return bool(frames) and all(re.fullmatch(r"\d+", key) for key in frames)


def _record(entry: Any, where: str) -> FaceRecord:
    points = entry if isinstance(entry, list) else entry.get("landmarks", entry.get("landmarks_2d"))
    if points is None:
        raise InputError(f"{where} has no 'landmarks'")
    return _face(np.asarray(points, np.float64), where)


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
