"""What is in a folder of faces: every file gets a class, the usable are aligned, the others are listed and skipped.

A file is usable if it is a sound PNG with a face header, its landmarks can be aligned and can draw the masks that the
run needs, and it holds the stored mask if the run uses one. Nothing a single file holds ends a run.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import FsdeployError, HostileFileError, InputError, NotAFaceError
from fsdeploy.faces.aligned import AlignedFace, align_each
from fsdeploy.faces.png import check_complete, read_header
from fsdeploy.faces.records import FaceHeader, StoredMask
from fsdeploy.progress import Progress
from fsdeploy.training.data.files import get_label, list_folder
from fsdeploy.training.data.masks import DRAWN_MASKS, mask_names

MINIMUM_FACES = 25
"""Usable faces per folder below which training does not start. A folder may be smaller than the batch."""
SMALLEST_FACE = 16
"""Smallest edge of a stored face in pixels; extraction starts at 256."""
FEW_FACES = 250
"""Usable faces per folder below which a warning is due."""

Status = Literal["usable", "no header", "unreadable", "refused", "landmarks", "centering", "mask missing"]
STATUSES: tuple[Status, ...] = (
    "usable", "no header", "unreadable", "refused", "landmarks", "centering", "mask missing",
)  # fmt: skip
_LISTED = 5
_BATCH = 1024
_REMEDIES: dict[Status, str] = {
    "usable": "add faces, PNG files that were extracted with a face header",
    "no header": "add faces that were extracted with a face header",
    "unreadable": "see that the files can be read, restore them, or extract the faces again",
    "refused": "these are no face files: take them away",
    "landmarks": "choose a stored 'mask_type' and eye and mouth multipliers of 1, or extract with 68 landmarks",
    "centering": "train with centering 'legacy' or extract the faces again",
    "mask missing": "choose a 'mask_type' that the faces hold, or one that is drawn: extended or components",
}


@dataclass(frozen=True)
class ScannedFace:
    """One usable face."""

    path: Path
    file_size: int
    changed: int
    """Time of change in nanoseconds."""
    aligned: AlignedFace
    legacy: bool
    """The image is legacy-centred (written before head centering)."""
    mask: StoredMask | None
    """The stored mask that the run uses, if it uses one."""


@dataclass(frozen=True)
class SkippedFile:
    """One file that is not used, and why."""

    path: Path
    status: Status
    reason: str


@dataclass(frozen=True)
class FolderScan:
    """All files of one folder, by class."""

    folder: Path
    faces: list[ScannedFace]
    skipped: list[SkippedFile]
    other: int
    """Files that are no PNG; never looked into."""

    def as_dict(self) -> dict[str, Any]:
        """The scan as plain values, for JSON."""
        return {
            "folder": str(self.folder),
            "usable": len(self.faces),
            "skipped": [{"file": e.path.name, "status": e.status, "reason": e.reason} for e in self.skipped],
            "no_png": self.other,
        }

    def require(self, minimum: int = MINIMUM_FACES) -> None:
        """Refuse a folder with fewer than `minimum` usable faces.

        Raises:
            InputError: says how many there are and why the others were skipped.
        """
        if len(self.faces) >= max(1, minimum):
            return
        counts = Counter(entry.status for entry in self.skipped)
        others = [f"{count} {status}" for status, count in counts.items()]
        others += [f"{self.other} files that are no PNG"] if self.other else []
        why = f" ({', '.join(others)}" if others else ""
        why += f"; first: {self.skipped[0].reason})" if self.skipped else ")" if others else ""
        commonest = counts.most_common(1)[0][0] if counts else "usable"
        raise InputError(
            f"{self.folder} holds {len(self.faces)} usable faces, {max(1, minimum)} are needed"
            f"{why}: {_REMEDIES[commonest]}"
        )


def scan_folder(folder: Path, options: TrainingOptions, quiet: bool = True) -> FolderScan:
    """Classify every file directly in `folder` for a run with `options`.

    Args:
        quiet: False shows progress on stderr.

    Raises:
        InputError: there is no such folder, or it cannot be read.
    """
    files = list_folder(folder)
    paths = [path for path in files if path.suffix.lower() == ".png"]
    faces: list[ScannedFace] = []
    skipped: list[SkippedFile] = []
    threads = min(8, os.cpu_count() or 1)
    with Progress(f"Scanning {folder}", len(paths), "files", quiet) as progress, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), _BATCH):
            part = paths[start : start + _BATCH]
            read = list(pool.map(_read, part))
            for entry in _classify(part, read, options):
                (faces if isinstance(entry, ScannedFace) else skipped).append(entry)  # type: ignore[arg-type]
            progress.advance(len(part))
    return FolderScan(Path(folder), faces, skipped, len(files) - len(paths))


def _read(path: Path) -> tuple[FaceHeader, int, int] | FsdeployError:
    """Header, size and time of change of a face file; or why it has none."""
    try:
        data = path.read_bytes()
        header = read_header(data, path.name)
        check_complete(data)
        width, height = struct.unpack(">II", data[16:24])
        if width != height or width < SMALLEST_FACE:
            raise NotAFaceError(f"is {width}x{height}; faces are square with an edge of {SMALLEST_FACE} or more")
        return header, len(data), path.stat().st_mtime_ns
    except OSError as error:
        return InputError(f"cannot be read: {error.strerror or error}")
    except FsdeployError as error:
        return error


def _classify(
    paths: Sequence[Path], read: Sequence[tuple[FaceHeader, int, int] | FsdeployError], options: TrainingOptions
) -> list[ScannedFace | SkippedFile]:
    """The class of each file; all landmarks are aligned in one batch."""
    aligned = iter(align_each([entry[0].face.landmarks for entry in read if not isinstance(entry, FsdeployError)]))
    result: list[ScannedFace | SkippedFile] = []
    for path, entry in zip(paths, read, strict=True):
        if isinstance(entry, FsdeployError):
            named = str(entry) if path.name in str(entry) else f"{path.name}: {entry}"
            result.append(SkippedFile(path, _status(entry), named))
            continue
        header, size, changed = entry
        face = next(aligned)
        if isinstance(face, InputError):
            result.append(SkippedFile(path, "landmarks", f"{path.name}: {face}"))
            continue
        problem = _problem(header, options)
        if problem is not None:
            result.append(SkippedFile(path, problem[0], f"{path.name}: {problem[1]}"))
            continue
        mask = header.face.masks.get(options.mask.mask_type) if _uses_stored_mask(options) else None
        legacy = header.source.stored_centering == "legacy"
        result.append(ScannedFace(path, size, changed, face, legacy, mask))
    return result


def _status(error: FsdeployError) -> Status:
    if isinstance(error, NotAFaceError):
        return "no header"
    return "refused" if isinstance(error, HostileFileError) else "unreadable"


def _uses_stored_mask(options: TrainingOptions) -> bool:
    return "face" in mask_names(options) and options.mask.mask_type not in DRAWN_MASKS


def _problem(header: FaceHeader, options: TrainingOptions) -> tuple[Status, str] | None:
    """Why a sound face cannot be used in a run with these options."""
    centering = options.face.centering
    if header.source.stored_centering == "legacy" and centering != "legacy":
        return "centering", f"is legacy-centred and lacks the pixels for '{centering}' centering: extract it again"
    names = mask_names(options)
    drawn = [name for name in names if name != "face" or options.mask.mask_type in DRAWN_MASKS]
    points = len(header.face.landmarks)
    if drawn and points not in (68, 98):
        kinds = ", ".join(options.mask.mask_type if name == "face" else name for name in drawn)
        return "landmarks", f"has {points} landmarks, which cannot draw the masks in use ({kinds})"
    if _uses_stored_mask(options) and options.mask.mask_type not in header.face.masks:
        held = ", ".join(header.face.masks) or "none"
        return "mask missing", f"has no mask '{options.mask.mask_type}' (it has: {held})"
    if _uses_stored_mask(options):
        try:
            header.face.masks[options.mask.mask_type].decompress()
        except InputError as error:
            return "unreadable", str(error)
    return None


def scan_table(scans: Sequence[FolderScan]) -> str:
    """One table of all folders, then the skipped files with their reasons (the first few of each folder)."""
    head = ["", "folder", *STATUSES, "no png"]
    rows = [head]
    for i, scan in enumerate(scans):
        counts = Counter(entry.status for entry in scan.skipped)
        numbers = [len(scan.faces), *(counts[status] for status in STATUSES[1:]), scan.other]
        rows.append([get_label(i, len(scans)), str(scan.folder), *map(str, numbers)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    aligned = [
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in pairs)
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    lines = [line.rstrip() for line in aligned]
    for i, scan in enumerate(scans):
        lines += [f"  {get_label(i, len(scans))} skipped: {entry.reason}" for entry in scan.skipped[:_LISTED]]
        if len(scan.skipped) > _LISTED:
            lines.append(f"  {get_label(i, len(scans))} skipped: {len(scan.skipped) - _LISTED} more")
    return "\n".join(lines)
