"""Pictures and videos, and whether they are marked as made with a trained model."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from fsdeploy.cli.describe.faces import face, reason_of
from fsdeploy.cli.describe.facts import Facts
from fsdeploy.errors import FsdeployError, InputError, NotAFaceError

_MAX_REPORT = 1 << 28
_LOOKED_INTO = 1000
"""Images of a folder that are searched for marks: an image without one is read to its end."""


def png(path: Path) -> tuple[str, Facts]:
    """A face image, or any other PNG; the kind comes first.

    Raises:
        InputError: it is damaged.
    """
    from fsdeploy.faces.png import MAX_EDGE

    with path.open("rb") as stream:
        head = stream.read(24)
    if len(head) < 24 or head[12:16] != b"IHDR":
        raise InputError(f"{path} is a PNG that is cut off: restore a good copy")
    width, height = struct.unpack(">II", head[16:])
    if max(width, height) <= MAX_EDGE:
        try:
            return "face image", face(path)
        except NotAFaceError:
            pass
        except FsdeployError as error:
            raise type(error)(f"{path}: {reason_of(error, path)}: restore a good copy") from error
    return "image", {"width": width, "height": height, **mark_of(path)}


def image_kinds() -> frozenset[str]:
    """Endings of pictures: those that frames are read from, and one more that they are written to."""
    from fsdeploy.images import IMAGE_EXTENSIONS

    return IMAGE_EXTENSIONS | {".webp"}


def image(path: Path) -> Facts:
    """A picture of another kind that is read."""
    from fsdeploy.images import read_image

    try:
        height, width = read_image(path).shape[:2]
    except InputError as error:
        raise InputError(f"{path}: {reason_of(error, path)}: restore a good copy") from error
    return {"width": width, "height": height, **mark_of(path)}


def image_folder(folder: Path) -> Facts | None:
    """A folder of frames; None without any."""
    from fsdeploy.convert.provenance import read_mark

    known = image_kinds()
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in known and path.is_file())
    if not files:
        return None
    first = png(files[0])[1] if files[0].suffix.lower() == ".png" else image(files[0])
    return {
        "images": len(files),
        "first": files[0].name,
        "width": first["width"],
        "height": first["height"],
        "marked_images": sum(read_mark(path) is not None for path in files[:_LOOKED_INTO]),
        "looked_into": _LOOKED_INTO if len(files) > _LOOKED_INTO else None,
        **_report(folder / "convert_report.json", folder),
    }


def video(path: Path) -> Facts:
    """A video or an animated GIF."""
    from fsdeploy.convert.sources import VideoFile

    opened = VideoFile(path)
    info = opened.info
    rate = None if info.rate is None else round(float(info.rate), 3)
    return {
        "width": info.width,
        "height": info.height,
        "frames": info.count,
        "frames_per_second": rate,
        "seconds": round(info.count / rate, 2) if info.count and rate else None,
        "bits": info.bit_depth,
        "rotation": info.rotation or None,
        "damage": opened.damage,
        **mark_of(path),
    }


def mark_of(path: Path) -> Facts:
    """The synthetic-media mark of a finished file, and the account of the conversion that made it."""
    from fsdeploy.convert.provenance import read_mark
    from fsdeploy.convert.shard import report_path

    mark = read_mark(path)
    if mark is None:
        return {"marked": False}
    facts: Facts = {"marked": mark.source_type.rpartition("/")[2], "made_with": mark.software or None}
    for report in (report_path(path), path.parent / "convert_report.json"):
        if found := _report(report, path):
            return facts | found
    return facts


def _report(report: Path, output: Path) -> Facts:
    """What the report beside an output says of the model. Nothing when it is of another output, or none."""
    try:
        if report.stat().st_size > _MAX_REPORT:
            return {}
        values = json.loads(report.read_bytes())
        whole = output.resolve()
        if Path(values["output"]).name not in (whole.name, whole.parent.name):
            return {}
        model = values["model"]
        return {"report": str(report), "model": {name: model[name] for name in ("file", "sha256", "direction")}}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
