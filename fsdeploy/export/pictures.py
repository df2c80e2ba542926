"""Real faces for parity, calibration and quality figures: crops as the exported file will be fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import FsdeployError, InputError
from fsdeploy.faces import geometry
from fsdeploy.faces.png import read_face
from fsdeploy.runtime.geometry import face_geometry
from fsdeploy.runtime.metadata import SwapMetadata
from fsdeploy.runtime.paste import crop_patch

LIMIT = 32
"""Faces taken from a folder, spread over it."""


def read_pictures(folder: Path, metadata: SwapMetadata, edge: int) -> NDArray[np.uint8]:
    """Crops (N, edge, edge, 3) uint8 BGR of up to `LIMIT` faces of a folder, cut as `metadata` says.

    Files without face metadata are passed over.

    Raises:
        InputError: no folder, or not one usable face in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name one of extracted faces")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    step = max(1, len(paths) / LIMIT)
    picked = [paths[int(index * step)] for index in range(min(LIMIT, len(paths)))]
    crops = [crop for path in picked if (crop := _crop(path, metadata, edge)) is not None]
    if not crops:
        raise InputError(f"{folder} holds no face that can be read: extract faces into it first")
    return np.stack(crops)


def _crop(path: Path, metadata: SwapMetadata, edge: int) -> NDArray[np.uint8] | None:
    try:
        image, header = read_face(path)
        face = face_geometry(np.asarray(header.face.landmarks, np.float64), metadata)
    except FsdeployError:
        return None
    stored = face.aligned.crop_matrix(image.shape[0], header.source.stored_centering, 1.0)
    wanted = np.concatenate([face.matrix(edge), [[0, 0, 1]]])
    back = np.concatenate([geometry.invert(stored), [[0, 0, 1]]])
    return np.asarray(crop_patch(image, (wanted @ back)[:2], edge), np.uint8)
