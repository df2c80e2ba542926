"""Which files of a folder are faces, and the small conversions that every reader of them shares."""

from __future__ import annotations

import os
import string
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError

_ALPHABET = string.ascii_uppercase + string.digits + string.ascii_lowercase


def get_label(index: int, num_identities: int, next_identity: bool = False) -> str:
    """Label of an identity: A to Z, then 0 to 9, then a to z. Indices roll over.

    Args:
        next_identity: True for the label of the identity after `index`.

    Raises:
        ValueError: more identities than labels (62), or none.
    """
    if not 0 < num_identities <= len(_ALPHABET):
        raise ValueError(f"there are labels for 1 to {len(_ALPHABET)} identities, not {num_identities}")
    return _ALPHABET[(index + next_identity) % num_identities]


def get_sorted_images(folder: str | Path) -> list[str]:
    """Full paths of the PNG files directly in `folder`, sorted; the extension may be in any case.

    Raises:
        InputError: there is no such folder, or it cannot be read.
    """
    return [str(path) for path in list_folder(folder) if path.suffix.lower() == ".png"]


def list_folder(folder: str | Path) -> list[Path]:
    """All files directly in `folder`, sorted; links that lead nowhere among them, since they stood for files.

    Raises:
        InputError: there is no such folder, or it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if not entry.is_dir())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder} is not a folder: name the folder of extracted faces") from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot read {folder}: {reason}: check its permissions, or the disk or network") from error


def to_float32(in_array: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 0..255 -> float32 0..1, exactly x / 255 in single precision."""
    return np.divide(in_array, np.float32(255), dtype=np.float32)
