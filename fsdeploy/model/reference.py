"""Comparing a network with outputs of another program: a NumPy file of inputs and outputs, (N, H, W, C) 0..1.

Inputs are called `input_a` and `input_b` (or `in_face_a`, `in_face_in_a`, ...), outputs `a2b_<k>` and `b2a_<k>` (or
`swap_a2b_<k>`), k counting the outputs of a side. Outputs computed in full precision, `f32_swap_a2b_<k>` or
`a2b_f32_<k>`, go first.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.model.network import SwapNetwork

_INPUTS = ("input_{0}", "in_face_{0}", "in_face_in_{0}")
_OUTPUTS = ("f32_swap_{0}_{1}", "{0}_f32_{1}", "swap_{0}_{1}", "{0}_{1}")
_MOST_BYTES = 1 << 30
_UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, ArithmeticError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy, zipfile and the network say to a file that is damaged or of another kind."""


def compare_with_reference(network: SwapNetwork, reference: Path) -> dict[str, float]:
    """Largest difference by direction and output, for example {"a2b_0": 2e-6}; NaN where the network gives NaN.

    Raises:
        InputError: no NumPy file, none of its arrays is an input and output of this network, or one of them holds
            anything but finite numbers or has another shape than the network's.
    """
    try:
        with zipfile.ZipFile(reference) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise InputError(f"{reference} is too large for a reference: keep a few faces only")
        with np.load(reference, allow_pickle=False) as arrays:
            found = _differences(network, arrays)
    except _UNREADABLE as error:
        raise InputError(f"{reference} cannot be compared with: {error}: name a NumPy .npz file") from error
    if not found:
        raise InputError(f"{reference} holds no inputs and outputs of a swap: see 'fsdeploy.model.reference'")
    return found


def _differences(network: SwapNetwork, arrays: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for side, direction in ((1, "a2b"), (0, "b2a")):
        face = _first(arrays, _INPUTS, direction[0])
        if face is None:
            continue
        feed = torch.from_numpy(np.ascontiguousarray(face.transpose(0, 3, 1, 2), np.float32))
        with torch.inference_mode():
            outputs = network.swap(feed, side)
        for number, output in enumerate(outputs):
            expected = _first(arrays, _OUTPUTS, direction, str(number))
            if expected is None:
                continue
            ours = output.permute(0, 2, 3, 1).numpy()
            # NumPy would stretch an array of another shape over ours, and compare what was never meant.
            if expected.shape != ours.shape:
                raise ValueError(f"output {number} of {direction} has the shape {expected.shape}, not {ours.shape}")
            found[f"{direction}_{number}"] = float(np.abs(ours.astype(np.float64) - expected).max())
    return found


def _first(arrays: Any, forms: tuple[str, ...], *values: str) -> NDArray[Any] | None:
    name = next((name for form in forms if (name := form.format(*values)) in arrays), None)
    if name is None:
        return None
    array = np.asarray(arrays[name])
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{name} holds something else than finite numbers")
    return array
