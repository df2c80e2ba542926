"""Which files belong to the model that a path names."""

from __future__ import annotations

import re
from pathlib import Path

from fsdeploy.errors import InputError
from fsdeploy_converters.archive import SIGNATURE as ZIP
from fsdeploy_converters.errors import shown
from fsdeploy_converters.hdf5 import SIGNATURE as HDF5

_PART = re.compile(r"((?P<prefix>.*?)_)?(?P<part>encoder|decoder(_[AB])?|intermediate(_[AB])?|inter)\.h5(\.bk)?")


def signature(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as stream:
        return stream.read(8)


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does, or says so by its name."""
    return path.is_file() and (signature(path) == HDF5 or re.search(r"\.h5(\.bk)?$", path.name) is not None)


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does, or says so by its name."""
    return path.is_file() and (signature(path)[:4] == ZIP or re.search(r"\.keras(\.bk)?$", path.name) is not None)


def part_files(path: Path) -> dict[str, Path]:
    """The files of a model that keeps each network in a file of its own: part ("encoder", "decoder_A", ...) -> file.

    `path` is the folder or any of the files. Empty when it names no such model.

    Raises:
        InputError: a folder holds several such models.
    """
    if path.is_dir():
        found = [(match, file) for file in sorted(path.glob("*.h5")) if (match := _PART.fullmatch(file.name))]
        prefixes = {match["prefix"] or "" for match, _ in found}
        if len(prefixes) > 1:
            named = ", ".join(sorted(shown(prefix) for prefix in prefixes))
            raise InputError(f"{path} holds several models ({named}): name one of its files")
        return {match["part"]: file for match, file in found}
    match = _PART.fullmatch(path.name)
    if not match or not path.is_file():
        return {}
    backup = ".bk" if path.name.endswith(".bk") else ""
    siblings = {}
    for file in sorted(path.parent.iterdir()):
        other = _PART.fullmatch(file.name)
        if other and other["prefix"] == match["prefix"] and file.name.endswith(f".h5{backup}"):
            siblings[other["part"]] = file
    return siblings


def prefix_of(path: Path) -> str:
    """What stands before the part in a file name: the plugin, "lowmem" or nothing."""
    match = _PART.fullmatch(path.name)
    return (match["prefix"] or "") if match else ""


def single_file(path: Path) -> Path | None:
    """The model file that a path names: itself, or the only .keras or .h5 of a folder; None when there is none.

    Raises:
        InputError: a folder holds several.
    """
    if path.is_file():
        return path
    for suffix in (".keras", ".h5"):
        files = [file for file in sorted(path.glob(f"*{suffix}")) if not _PART.fullmatch(file.name)]
        if len(files) > 1:
            named = ", ".join(shown(file.name) for file in files[:4])
            raise InputError(f"{path} holds several models ({named}): name one of the files")
        if files:
            return files[0]
    return None


def state_file(model: Path) -> Path | None:
    """The state JSON beside a model file, or None."""
    backup = ".bk" if model.name.endswith(".bk") else ""
    stem = re.sub(r"(\.keras|\.h5)(\.bk)?$", "", model.name)
    candidates = [model.with_name(f"{stem}_state.json{backup}")]
    if prefix := prefix_of(model):
        candidates.append(model.with_name(f"{prefix}_state.json{backup}"))
    if _PART.fullmatch(model.name):
        candidates.append(model.with_name("state.json"))
    return next((file for file in candidates if file.is_file()), None)
