"""The `.fsa` alignments file: all faces of a folder of frames or of a video. See docs/formats/alignments.md."""

from __future__ import annotations

import json
import logging
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fsdeploy.errors import FsdeployError, HostileFileError, InputError, UnsupportedFormatError
from fsdeploy.faces import bounds
from fsdeploy.faces.records import CURRENT_VERSION, FaceRecord
from fsdeploy.faces.schema import face_from_dict, face_to_dict
from fsdeploy.faces.unpickle import load_data, unwrap
from fsdeploy.files import write_bytes
from fsdeploy.images import VIDEO_EXTENSIONS

logger = logging.getLogger(__name__)

_MAX_FILE: Final = 4 << 30
_GROWTH: Final = 20
"""A file may unpack to this many times its size (real ones to 2 to 5 times), plus 16 MB."""
_BASE_GROWTH: Final = 16 << 20
_BYTES_PER_FACE: Final = 48
"""No face takes less in an unpacked file; a pickle that repeats one face by reference would."""


@dataclass(frozen=True)
class Alignments:
    """Faces by frame."""

    frames: Mapping[str, list[FaceRecord]]
    """Frame name -> its faces, in the file's order."""
    version: float = CURRENT_VERSION
    """Version of the data as it was in the file; in memory it is always upgraded to the current one."""
    video_meta: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Frame name -> {"pts_time": int, "keyframe": bool}, for frames that have it."""
    skipped: tuple[str, ...] = ()
    """Faces that could not be used, one line each with the reason. `positions` keeps the others' places."""
    positions: Mapping[str, list[int]] = field(default_factory=dict)
    """Frame name -> index in the file of each face, for frames of which a face was skipped."""


def read_alignments(path: Path, video: Path | None = None) -> Alignments:
    """Read an alignments file of any version (`.fsa`, `.json`, or an uncompressed `.p` / `.pickle`).

    The file is upgraded in memory and never rewritten. A face with impossible values is skipped and listed.

    Args:
        video: the video that the file belongs to, if any: old frame names then get its extension.

    Raises:
        UnsupportedFormatError: another kind of file (such as YAML).
        HostileFileError: it grows beyond its bounds or carries code.
        InputError: it cannot be read or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    document, size = _parse(path, data)
    try:
        return _from_document(document, size, path, video)
    except FsdeployError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def _parse(path: Path, data: bytes) -> tuple[Any, int]:
    """The file's document, and how many bytes it takes unpacked."""
    suffix = path.suffix.lower()
    if len(data) > _MAX_FILE:
        raise HostileFileError(f"{path} has {len(data)} bytes, more than alignments ever do")
    if suffix == ".json":
        try:
            return json.loads(data), len(data)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is a damaged JSON file: restore a backup") from error
    if suffix in {".p", ".pickle"}:
        return load_data(data, str(path)), len(data)
    if suffix != ".fsa":
        raise UnsupportedFormatError(f"{path} is no alignments file that can be read: give a .fsa, .json or .pickle")
    if not data:
        raise InputError(f"{path} is empty: restore a backup or extract again")
    unpacked = bounds.inflate(data, min(_MAX_FILE, _BASE_GROWTH + _GROWTH * len(data)), str(path))
    return load_data(unpacked, str(path)), len(unpacked)


def _from_document(document: Any, size: int, path: Path, video: Path | None) -> Alignments:
    top = bounds.table(document, "the file")
    version = 1.0
    if "__meta__" in top:
        meta = bounds.table(top["__meta__"], "__meta__")
        version = float(bounds.number(unwrap(meta.get("version", 1.0)), "its version", 1.0, 99.0))
        top = bounds.table(top.get("__data__"), "__data__")
    frames: dict[str, list[FaceRecord]] = {}
    video_meta: dict[str, dict[str, Any]] = {}
    positions: dict[str, list[int]] = {}
    skipped: list[str] = []
    left = size // _BYTES_PER_FACE + 1
    names = _frame_names(list(top), video)
    for key, value in top.items():
        faces, meta = _frame(value, key)
        left -= len(faces)
        if left < 0:
            raise HostileFileError("it repeats its faces more often than its size allows")
        kept = {}
        for index, face in enumerate(faces):
            try:
                kept[index] = face_from_dict(_opened(face))
            except FsdeployError as error:
                skipped.append(f"{key}, face {index}: {error}")
        name = names[key]
        frames[name] = list(kept.values())
        if len(kept) < len(faces):
            positions[name] = list(kept)
        if meta:
            video_meta[name] = meta
    if skipped:
        logger.warning("%s: %d faces cannot be used and are skipped; first: %s", path, len(skipped), skipped[0])
    return Alignments(frames, version, video_meta, tuple(skipped), positions)


def _frame(value: Any, key: str) -> tuple[list[Any], dict[str, Any]]:
    """The faces and the video data of one frame; before version 2 a frame is just the list of its faces."""
    if isinstance(value, list):
        return value, {}
    frame = bounds.table(value, f"frame '{key}'")
    faces = frame.get("faces", [])
    if not isinstance(faces, list):
        raise InputError(f"the faces of frame '{key}' are no list")
    meta = frame.get("video_meta") or {}
    if not isinstance(meta, dict):
        return faces, {}
    pts, keyframe = unwrap(meta.get("pts_time")), unwrap(meta.get("keyframe"))
    # Older files hold the time in seconds; only the integer kind can be used.
    if not isinstance(pts, int) or isinstance(pts, bool) or not isinstance(keyframe, bool):
        return faces, {}
    return faces, {"pts_time": pts, "keyframe": keyframe}


def _opened(face: Any) -> Any:
    """A face dict with its arrays unwrapped: in the face, its masks and its embeddings."""
    if not isinstance(face, dict):
        return face
    opened = {key: unwrap(value) for key, value in face.items()}
    for key in ("mask", "identity"):
        entries = opened.get(key)
        if isinstance(entries, dict):
            opened[key] = {
                name: {part: unwrap(value) for part, value in entry.items()}
                if isinstance(entry, dict)
                else unwrap(entry)
                for name, entry in entries.items()
            }
    points = opened.get("landmarks_xy", opened.get("landmarksXY"))
    if isinstance(points, list) and len(points) <= 98:  # a list of arrays, one per point
        opened["landmarks_xy"] = [_point(unwrap(point)) for point in points]
    return opened


def _point(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") and getattr(value, "size", 0) == 2 else value


def _frame_names(keys: list[str], video: Path | None) -> dict[str, str]:
    """Old frame names -> current ones: frames of a video carry the video's extension since version 2.4."""
    names = {key: key for key in keys}
    if video is None or not keys or video.suffix.lower() not in VIDEO_EXTENSIONS:
        return names
    extensions = {Path(key).suffix for key in keys}
    if len(extensions) != 1 or extensions == {video.suffix}:
        return names
    for key in keys:
        stem = Path(key).stem
        if stem.rpartition("_")[0] == video.stem:
            names[key] = f"{stem}{video.suffix}"
    return names


def write_alignments(path: Path, alignments: Alignments, *, overwrite: bool = True) -> None:
    """Write a `.fsa` of the current version, atomically; a file that is replaced is kept beside as `<name>.bk`.

    Raises:
        InputError: another extension, or the file cannot be written.
    """
    if path.suffix.lower() != ".fsa":
        raise InputError(f"{path} must end in .fsa")
    document = {
        "__meta__": {"version": CURRENT_VERSION},
        "__data__": {
            name: {
                "faces": [face_to_dict(face, with_thumb=True) for face in faces],
                "video_meta": dict(alignments.video_meta.get(name, {})),
            }
            for name, faces in alignments.frames.items()
        },
    }
    if overwrite and path.exists():
        write_bytes(path.with_name(f"{path.name}.bk"), path.read_bytes())
    write_bytes(path, zlib.compress(pickle.dumps(document, protocol=4)), overwrite=overwrite)
