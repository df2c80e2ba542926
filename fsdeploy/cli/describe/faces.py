"""Faces and where they are: face images and folders of them, alignments, landmarks."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from fsdeploy.cli.describe.facts import Facts
from fsdeploy.errors import FsdeployError

_FRAME_OF_VIDEO = re.compile(r"_\d+(?=\.[^.]+$)")


def face(path: Path) -> Facts:
    """A face image and where it comes from."""
    from fsdeploy.faces.png import read_face

    image, header = read_face(path)
    record, source = header.face, header.source
    return {
        "image_size": image.shape[0],
        "centering": source.stored_centering,
        "frame": source.source_filename,
        "frame_is_video": source.source_is_video,
        "frame_size": None if source.source_frame_dims is None else list(source.source_frame_dims[::-1]),
        "face_index": source.face_index,
        "extracted_as": source.original_filename,
        "box": [record.x, record.y, record.w, record.h],
        "landmarks": len(record.landmarks),
        "alignments_version": source.alignments_version,
        "identity": {name: len(values) for name, values in record.identity.items()},
        "masks": [
            {"mask": name, "size": mask.stored_size, "centering": mask.stored_centering}
            for name, mask in record.masks.items()
        ],
    }


def face_folder(folder: Path) -> Facts | None:
    """A folder of extracted faces; None when no PNG in it is one. Reads headers only."""
    from fsdeploy.faces.png import image_size, read_header

    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    sizes: Counter[str] = Counter()
    centerings: Counter[str] = Counter()
    masks: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    unusable: list[Facts] = []
    for path in files:
        if path.suffix.lower() != ".png":
            continue
        try:
            header = read_header(path)
            with path.open("rb") as stream:
                sizes[f"{image_size(stream)[0]} px"] += 1
        except (FsdeployError, OSError) as error:
            unusable.append({"file": path.name, "reason": reason_of(error, path)})
            continue
        source = header.source
        centerings[source.stored_centering] += 1
        masks.update(header.face.masks.keys())
        name = source.source_filename
        sources[_FRAME_OF_VIDEO.sub("", name) if source.source_is_video else "image files"] += 1
    if not sizes:
        return None
    return {
        "faces": sizes.total(),
        "sizes": dict(sizes),
        "centerings": dict(centerings),
        "masks": dict(masks),
        "sources": dict(sources.most_common(20)),
        "other_files": len(files) - sizes.total() - len(unusable),
        "no_faces": unusable,
    }


def alignments(path: Path) -> Facts:
    """An alignments file."""
    from fsdeploy.faces.alignments import read_alignments

    read = read_alignments(path)
    faces = [face for found in read.frames.values() for face in found]
    return {
        "version": read.version,
        "frames": len(read.frames),
        "frames_without_face": sum(not found for found in read.frames.values()),
        "faces": len(faces),
        "landmarks": {str(count): number for count, number in Counter(len(face.landmarks) for face in faces).items()},
        "masks": dict(Counter(name for face in faces for name in face.masks)),
        "skipped": list(read.skipped),
    }


def landmarks(path: Path) -> Facts:
    """Landmarks as text (docs/formats/landmarks.md)."""
    from fsdeploy.convert.landmark_files import read_plain_landmarks

    frames = read_plain_landmarks(path)
    faces = [face for found in frames.values() for face in found]
    return {
        "frames": len(frames),
        "faces": len(faces),
        "landmarks": {str(count): number for count, number in Counter(len(face.landmarks) for face in faces).items()},
    }


def reason_of(error: Exception, path: Path) -> str:
    """Why a file could not be read. What to do about it depends on what it was meant to be: that is left out."""
    while isinstance(error.__cause__, FsdeployError):
        error = error.__cause__
    return str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ").partition(": ")[0]
