"""Between the dicts of face files and the records: one place that knows the keys, their defaults and their limits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fsdeploy.errors import InputError, NotAFaceError
from fsdeploy.faces import bounds
from fsdeploy.faces.aligned import landmark_defect
from fsdeploy.faces.geometry import PADDING
from fsdeploy.faces.landmarks import LandmarkType
from fsdeploy.faces.pose import Centering
from fsdeploy.faces.records import MAX_MASK_EDGE, FaceHeader, FaceRecord, FaceSource, StoredMask

_FACE_KEYS: Final = ("x", "y", "w", "h", "landmarks_xy", "mask", "identity", "thumb")
_MASK_KEYS: Final = ("mask", "affine_matrix", "interpolator", "stored_size", "stored_centering")
_SOURCE_KEYS: Final = (
    "alignments_version",
    "original_filename",
    "face_index",
    "source_filename",
    "source_is_video",
    "source_frame_dims",
)
_LARGEST_THUMB: Final = 1 << 20
_LARGEST_IDENTITY: Final = 1 << 16
_LARGEST_MATRIX_VALUE: Final = 1e9


def face_from_dict(value: Any) -> FaceRecord:
    """Check one face dict of any version and make a record of it.

    Raises:
        InputError, HostileFileError: a key is missing or holds something impossible; the message names the key, the
            caller adds the file.
    """
    face = bounds.table(value, "the face")
    points_key = "landmarks_xy" if "landmarks_xy" in face else "landmarksXY"
    for key in ("x", "y", "w", "h", points_key):
        if key not in face:
            raise InputError(f"the face has no '{key}'")
    points = bounds.array(face[points_key], "landmarks_xy", 2 * max(LandmarkType))
    with np.errstate(over="ignore"):
        landmarks = points.astype(np.float32)
    defect = landmark_defect(landmarks)
    if defect:
        raise InputError(defect)
    masks, identity = _entries(face, "mask"), _entries(face, "identity")
    known = {*_FACE_KEYS, "landmarksXY"}
    return FaceRecord(
        x=bounds.integer(face["x"], "x"),
        y=bounds.integer(face["y"], "y"),
        w=bounds.integer(face["w"], "w", 0),
        h=bounds.integer(face["h"], "h", 0),
        landmarks=landmarks,
        masks={name: mask_from_dict(mask, name) for name, mask in masks.items()},
        identity={name: _identity(values, name) for name, values in identity.items()},
        thumb=_thumb(face.get("thumb")),
        extra=bounds.plain({key: entry for key, entry in face.items() if key not in known}, "the face"),
    )


def _entries(face: dict[str, Any], key: str) -> dict[str, Any]:
    value = face.get(key)
    # Whether a stranger's value is empty is not asked before its kind is known: an array has no answer.
    if value is None or (isinstance(value, list | tuple) and not value):
        return {}
    return bounds.table(value, key)


def mask_from_dict(value: Any, name: str) -> StoredMask:
    """Check one mask dict. Without `stored_centering` (files before 2.2) the centering is "face".

    Raises:
        InputError, HostileFileError: as in `face_from_dict`.
    """
    mask = bounds.table(value, f"mask '{name}'")
    for key in ("mask", "affine_matrix", "stored_size"):
        if key not in mask:
            raise InputError(f"mask '{name}' has no '{key}'")
    if not isinstance(mask["mask"], bytes):
        raise InputError(f"mask '{name}' holds {bounds.shown(mask['mask'])}, not bytes")
    matrix = bounds.array(mask["affine_matrix"], f"affine_matrix of mask '{name}'", 9)
    if matrix.shape not in ((2, 3), (3, 3)) or not (np.abs(matrix) < _LARGEST_MATRIX_VALUE).all():
        raise InputError(f"affine_matrix of mask '{name}' is no map of 2x3 or 3x3 sane numbers")
    return StoredMask(
        data=mask["mask"],
        affine_matrix=matrix[:2],
        interpolator=bounds.integer(mask.get("interpolator", 1), f"interpolator of mask '{name}'", 0, 255),
        stored_size=bounds.integer(mask["stored_size"], f"stored_size of mask '{name}'", 1, MAX_MASK_EDGE),
        stored_centering=_centering(mask.get("stored_centering", "face"), name),
        extra=bounds.plain({key: entry for key, entry in mask.items() if key not in _MASK_KEYS}, f"mask '{name}'"),
    )


def _centering(value: Any, name: str) -> Centering:
    if not isinstance(value, str) or value not in PADDING:
        raise InputError(f"stored_centering of mask '{name}' is {bounds.shown(value)}, not face, head or legacy")
    return value


def _identity(value: Any, name: str) -> list[float]:
    values = bounds.array(value, f"identity '{name}'", _LARGEST_IDENTITY)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(f"identity '{name}' is no list of numbers")
    return [float(item) for item in values]


def _thumb(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu":
        value = value[: _LARGEST_THUMB + 1].tolist()
    try:
        if isinstance(value, bytes | list | tuple) and len(value) <= _LARGEST_THUMB:
            return bytes(value)
    except (TypeError, ValueError):
        pass
    raise InputError("thumb is no list of at most 1 MB of byte values")


def face_to_dict(face: FaceRecord, *, with_thumb: bool) -> dict[str, Any]:
    """The current dict of a face, of plain Python values; float32 landmarks as their exact double."""
    result: dict[str, Any] = {
        "x": face.x,
        "y": face.y,
        "w": face.w,
        "h": face.h,
        "landmarks_xy": np.asarray(face.landmarks, np.float32).astype(np.float64).tolist(),
        "mask": {
            name: {
                "mask": mask.data,
                "affine_matrix": np.asarray(mask.affine_matrix, np.float64).tolist(),
                "interpolator": mask.interpolator,
                "stored_size": mask.stored_size,
                "stored_centering": mask.stored_centering,
                **mask.extra,
            }
            for name, mask in face.masks.items()
        },
        "identity": {name: list(values) for name, values in face.identity.items()},
    }
    if with_thumb:
        result["thumb"] = None if face.thumb is None else list(face.thumb)
    result.update(face.extra)
    return result


def source_from_dict(value: Any) -> FaceSource:
    """Check the `source` dict of a header. A full path in `source_filename` is cut to its base name.

    Raises:
        InputError, HostileFileError: as in `face_from_dict`.
    """
    source = bounds.table(value, "source")
    for key in ("alignments_version", "original_filename", "face_index", "source_filename"):
        if key not in source:
            raise InputError(f"the source has no '{key}'")
    is_video = source.get("source_is_video", False)
    if not isinstance(is_video, bool | np.bool_):
        raise InputError(f"source_is_video is {bounds.shown(is_video)}, not True or False")
    return FaceSource(
        alignments_version=float(bounds.number(source["alignments_version"], "alignments_version", 1.0, 99.0)),
        original_filename=_base_name(source["original_filename"], "original_filename"),
        face_index=bounds.integer(source["face_index"], "face_index", 0),
        source_filename=_base_name(source["source_filename"], "source_filename"),
        source_is_video=bool(is_video),
        source_frame_dims=_frame_dims(source.get("source_frame_dims")),
        extra=bounds.plain({key: entry for key, entry in source.items() if key not in _SOURCE_KEYS}, "source"),
    )


def _base_name(value: Any, what: str) -> str:
    return bounds.text(value, what).replace("\\", "/").rsplit("/", 1)[-1]


def _frame_dims(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) < 2 or len(value) > 3:
        raise InputError(f"source_frame_dims is {bounds.shown(value)}, not (height, width)")
    height, width = (bounds.integer(edge, "source_frame_dims", 1, bounds.LARGEST_FRAME) for edge in value[:2])
    return height, width


def header_from_dict(value: Any) -> FaceHeader:
    """Check a parsed header.

    Raises:
        NotAFaceError: it is no header of a face (a converter's patch carries another one under the same keyword).
        InputError, HostileFileError: it is one with impossible values.
    """
    if not isinstance(value, dict) or "alignments" not in value or "source" not in value:
        raise NotAFaceError("its metadata describes no face (no 'alignments' and 'source')")
    top = bounds.table(value, "the header")
    return FaceHeader(
        face=face_from_dict(top["alignments"]),
        source=source_from_dict(top["source"]),
        extra=bounds.plain({key: entry for key, entry in top.items() if key not in ("alignments", "source")}, "header"),
    )


def header_to_dict(header: FaceHeader) -> dict[str, Any]:
    """The current header dict, of plain Python values."""
    source = header.source
    return {
        "alignments": face_to_dict(header.face, with_thumb=False),
        "source": {
            "alignments_version": source.alignments_version,
            "original_filename": source.original_filename,
            "face_index": source.face_index,
            "source_filename": source.source_filename,
            "source_is_video": source.source_is_video,
            "source_frame_dims": None if source.source_frame_dims is None else list(source.source_frame_dims),
            **source.extra,
        },
        **header.extra,
    }
