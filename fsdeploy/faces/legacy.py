"""Faces from before 2021, whose files hold no header: found again in the alignments by the hash of their pixels."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.faces.alignments import Alignments
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource
from fsdeploy.images import read_image

logger = logging.getLogger(__name__)


def match_by_hash(files: Iterable[Path], alignments: Alignments) -> dict[Path, FaceHeader]:
    """Build the header of every face image that the alignments know by the SHA-1 of its decoded BGR pixels.

    Files with the same pixels take the faces with that hash in turn. A JPEG may decode a little differently than it
    did when it was hashed, and is then not found.

    Args:
        files: face images of alignments version 2.0 or older, in the order in which equal ones are to be matched.
        alignments: read from the `.fsa` they were extracted with.

    Returns:
        File -> header, without the files that match nothing.

    Raises:
        InputError: a file cannot be read or is no image.
    """
    find = _Finder(alignments)
    found = {path: find(read_image(path)) for path in files}
    return {path: header for path, header in found.items() if header is not None}


class _Finder:
    """Finds the header of one image after the other; equal images take the faces of their hash in turn."""

    def __init__(self, alignments: Alignments) -> None:
        self._version = alignments.version
        self._known: dict[str, list[tuple[str, int, FaceRecord]]] = defaultdict(list)
        self._seen: dict[str, int] = defaultdict(int)
        for frame, faces in alignments.frames.items():
            places = alignments.positions.get(frame, range(len(faces)))
            for index, face in zip(places, faces, strict=True):
                digest = face.extra.get("hash")
                if isinstance(digest, str):
                    self._known[digest.lower()].append((frame, index, face))

    def __call__(self, image: NDArray[np.uint8]) -> FaceHeader | None:
        digest = hashlib.sha1(image.tobytes(), usedforsecurity=False).hexdigest()
        turn = self._seen[digest]
        self._seen[digest] += 1
        if turn >= len(self._known.get(digest, ())):
            return None
        frame, index, face = self._known[digest][turn]
        source = FaceSource(
            alignments_version=self._version,
            original_filename=f"{Path(frame).stem}_{index}.png",
            face_index=index,
            source_filename=frame,
        )
        return FaceHeader(face, source)


def add_headers(
    files: Iterable[Path], alignments: Alignments, output: Path, after_each: Callable[[], None] = lambda: None
) -> list[Path]:
    """Write every face that its hash finds as a PNG with its header into `output`; the originals stay.

    Args:
        files, alignments: as in `match_by_hash`.
        after_each: called after each file (for a progress display).

    Returns:
        The files that match nothing or cannot be read.

    Raises:
        InputError: `output` cannot be written, or `output` is the folder of the originals.
    """
    find = _Finder(alignments)
    strangers = []
    for path in files:
        if output.resolve() == path.parent.resolve():
            raise InputError(f"{output} holds the originals: give another folder for the faces with headers")
        try:
            image = read_image(path)
        except InputError as error:
            logger.warning("%s", error)
            header = None
        else:
            header = find(image)
        if header is None:
            strangers.append(path)
        else:
            write_face(output / f"{path.stem}.png", image, header)
        after_each()
    return strangers
