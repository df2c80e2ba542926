"""The model of a conversion: an exported file, or a model folder that is exported once into a cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from fsdeploy import __version__
from fsdeploy.errors import InputError


def cache_folder() -> Path:
    """Where exported model folders are kept: FSDEPLOY_CACHE, else the user's cache folder."""
    named = os.environ.get("FSDEPLOY_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "fsdeploy"


def exported_model(path: Path, swap_sides: bool = False) -> Path:
    """The ONNX file of a model: `path` itself, or the export of a model folder.

    A folder is exported by a process of its own, as this one never loads torch; again only when it has changed.

    Raises:
        InputError: nothing there, `swap_sides` asked of an exported file, or the export fails (says why).
    """
    if path.is_dir():
        return _export_folder(path, swap_sides)
    if not path.exists():
        raise InputError(f"{path} does not exist: give an exported .onnx or a model folder")
    if swap_sides:
        raise InputError(f"{path} holds one direction only: export the other with 'fsdeploy export --swap-sides'")
    return path


def _export_folder(folder: Path, swap_sides: bool) -> Path:
    states = sorted(folder.glob("*_state.json"))
    if not states:
        raise InputError(f"{folder} is no model folder: it holds no *_state.json")
    digest = hashlib.sha256(f"{__version__} {swap_sides} {folder.resolve()}".encode())
    for state in states:
        digest.update(state.read_bytes())
    target = (
        cache_folder() / "exported" / f"{folder.name}_{'b2a' if swap_sides else 'a2b'}_{digest.hexdigest()[:16]}.onnx"
    )
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fsdeploy", "export", str(folder), "-o", str(target)]
    if swap_sides:
        command.append("--swap-sides")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not target.exists():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("Error: ")
        raise InputError(f"{folder} could not be exported: {last}")
    return target
