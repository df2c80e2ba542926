"""The picture of `fsdeploy migrate --preview`: each face as it is, as A and as B."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.images import write_image

if TYPE_CHECKING:
    from fsdeploy.model.migrate import Migration

_FACES = 6
_EDGE = 192
_HEAD = 28


def write_sheet(migration: Migration, folder: Path, sheet: Path) -> None:
    """Draw up to six faces of `folder`, or of its folders A and B: face, output of side A, output of side B.

    Raises:
        InputError: no usable face there, or the picture cannot be written.
    """
    from fsdeploy.model.migrate import stored_config

    config = stored_config(migration)
    rows = []
    for name, faces in _folders(folder).items():
        crops = _crops(faces, migration.model.description.net.inputs[0][-1], config)
        rows += [_row(cells, index == 0, name) for index, cells in enumerate(_swapped(migration, crops))]
    write_image(sheet, np.concatenate(rows))


def _folders(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name one of extracted faces")
    sides = {f"face of {side}": folder / side for side in "AB" if (folder / side).is_dir()}
    return sides or {"face": folder}


def _crops(folder: Path, edge: int, config: dict[str, Any]) -> NDArray[np.uint8]:
    """(N, edge, edge, 3) BGR, cut as the model was trained."""
    from fsdeploy.errors import FsdeployError
    from fsdeploy.faces.aligned import AlignedFace
    from fsdeploy.faces.geometry import invert
    from fsdeploy.faces.png import read_face

    crops: list[NDArray[Any]] = []
    paths = sorted(folder.glob("*.png"))
    for path in paths[:: max(1, len(paths) // _FACES)]:
        try:
            image, header = read_face(path)
            face = AlignedFace.from_landmarks(np.asarray(header.face.landmarks, np.float64))
        except FsdeployError:
            continue
        coverage, offset = float(config["coverage"]) / 100.0, float(config.get("vertical_offset", 0)) / 100.0
        wanted = face.crop_matrix(edge, config["centering"], coverage, offset)
        stored = face.crop_matrix(image.shape[0], header.source.stored_centering, 1.0)
        step = (np.vstack([wanted, [0, 0, 1]]) @ np.vstack([invert(stored), [0, 0, 1]]))[:2]
        crops.append(cv2.warpAffine(image, step, (edge, edge), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE))
        if len(crops) == _FACES:
            break
    if not crops:
        raise InputError(f"{folder} holds no face that can be read: extract faces into it first")
    return np.asarray(np.stack(crops), np.uint8)


def _swapped(migration: Migration, crops: NDArray[np.uint8]) -> list[list[NDArray[np.uint8]]]:
    """Per face: itself, and the largest face of either side."""
    import torch

    rgb = migration.model.color_order == "rgb"
    ordered = crops[..., ::-1] if rgb else crops
    feed = torch.from_numpy(np.ascontiguousarray(ordered.transpose(0, 3, 1, 2))).float() / 255.0
    network = migration.network()
    columns = [crops]
    with torch.inference_mode():
        for side in range(network.sides):
            faces = [output for output in network.swap(feed, side) if output.shape[1] == 3]
            if not faces:
                raise InputError(f"{migration.model.source} gives no faces: there is nothing to draw")
            drawn = (faces[-1].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
            columns.append(drawn[..., ::-1] if rgb else drawn)
    return [[np.asarray(column[index], np.uint8) for column in columns] for index in range(len(crops))]


def _row(cells: list[NDArray[np.uint8]], with_head: bool, name: str) -> NDArray[np.uint8]:
    scaled = [cv2.resize(np.ascontiguousarray(cell), (_EDGE, _EDGE), interpolation=cv2.INTER_CUBIC) for cell in cells]
    row = np.concatenate(scaled, axis=1)
    if not with_head:
        return np.asarray(row, np.uint8)
    head = np.full((_HEAD, row.shape[1], 3), 255, np.uint8)
    for column, text in enumerate((name, "as A", "as B")):
        cv2.putText(head, text, (column * _EDGE + 8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, np.asarray(row, np.uint8)])
