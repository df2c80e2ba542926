"""Faces from before 2021, whose files hold no header: found again in the alignments by the hash of their pixels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from fsdeploy.faces.alignments import Alignments
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource
from fsdeploy.images import read_image


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
    known: dict[str, list[tuple[str, int, FaceRecord]]] = defaultdict(list)
    for frame, faces in alignments.frames.items():
        places = alignments.positions.get(frame, range(len(faces)))
        for index, face in zip(places, faces, strict=True):
            digest = face.extra.get("hash")
            if isinstance(digest, str):
                known[digest.lower()].append((frame, index, face))
    seen: dict[str, int] = defaultdict(int)
    matched: dict[Path, FaceHeader] = {}
    for path in files:
        digest = hashlib.sha1(read_image(path).tobytes(), usedforsecurity=False).hexdigest()
        turn, seen[digest] = seen[digest], seen[digest] + 1
        if turn < len(known[digest]):
            frame, index, face = known[digest][turn]
            matched[path] = FaceHeader(face, _source(frame, index, alignments.version))
    return matched


def _source(frame: str, index: int, version: float) -> FaceSource:
    return FaceSource(
        alignments_version=version,
        original_filename=f"{Path(frame).stem}_{index}.png",
        face_index=index,
        source_filename=frame,
    )


def add_headers(files: Iterable[Path], alignments: Alignments, output: Path) -> list[Path]:
    """Write every face that `match_by_hash` finds as a PNG with its header into `output`; the originals stay.

    Returns:
        The files that match nothing.

    Raises:
        InputError: a file cannot be read, or `output` not be written.
    """
    ordered = list(files)
    matched = match_by_hash(ordered, alignments)
    for path, header in matched.items():
        write_face(output / f"{path.stem}.png", read_image(path), header)
    return [path for path in ordered if path not in matched]
