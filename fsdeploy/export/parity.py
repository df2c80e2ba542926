"""Is the exported file equal to the model that it came from? Figures per output, on several inputs and batch sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import CheckFailedError

BATCHES = (1, 2, 5)
_EXACT_PSNR = 200.0


@dataclass(frozen=True)
class Parity:
    """How far one output of the file is from the model's, over everything that was fed."""

    output: str
    inputs: str
    """"noise" or "faces"."""
    samples: int
    max_difference: float
    mean_difference: float
    psnr_db: float
    """Peak signal-to-noise ratio against the model, peak 1.0; 200 when equal."""


def seeded_noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Uniform noise in 0..1, float32, the same on every machine."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def psnr(difference: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB of a difference whose full scale is 1."""
    error = float(np.mean(np.square(difference, dtype=np.float64)))
    return _EXACT_PSNR if error == 0 else min(_EXACT_PSNR, -10 * math.log10(error))


def compare(
    names: Sequence[str],
    kind: str,
    pairs: Iterable[tuple[Sequence[NDArray[Any]], Sequence[NDArray[Any]]]],
    scale: float = 1.0,
) -> list[Parity]:
    """Figures per output over (expected, got) pairs. `scale` brings the values to 0..1 (1/255 for uint8).

    A non-finite value anywhere counts as an infinite difference.

    Raises:
        CheckFailedError: shapes differ.
    """
    totals: list[list[NDArray[np.float64]]] = [[] for _ in names]
    samples = 0
    for expected, got in pairs:
        samples += len(expected[0])
        for total, wanted, found in zip(totals, expected, got, strict=True):
            if wanted.shape != found.shape:
                raise CheckFailedError(f"the exported graph gives {found.shape} where the model gives {wanted.shape}")
            total.append((found.astype(np.float64) - wanted.astype(np.float64)).ravel() * scale)
    return [_figures(name, kind, samples, np.concatenate(total)) for name, total in zip(names, totals, strict=True)]


def _figures(name: str, kind: str, samples: int, difference: NDArray[np.float64]) -> Parity:
    if not np.isfinite(difference).all():
        return Parity(name, kind, samples, math.inf, math.inf, -math.inf)
    largest = np.abs(difference)
    return Parity(name, kind, samples, float(largest.max()), float(largest.mean()), psnr(difference))


def batches(samples: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Cut samples into batches of the given sizes, in turn, starting again from the first when they run out."""
    cut, start = [], 0
    for size in sizes:
        picked = np.arange(start, start + size) % len(samples)
        cut.append(samples[picked])
        start += size
    return cut


def run_file(path: Path, feeds: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
    """Outputs of a file on the CPU for each single-input feed.

    Raises:
        InputError: onnxruntime refuses the file.
        CheckFailedError: it fails on an input.
    """
    from fsdeploy.runtime.providers import open_session

    session = open_session(str(path), str(path), "cpu", layout=False)
    name = session.get_inputs()[0].name
    return [_run(session, name, feed) for feed in feeds]


def _run(session: Any, name: str, feed: NDArray[Any]) -> list[NDArray[Any]]:
    try:
        return list(session.run(None, {name: feed}))
    except Exception as error:
        raise CheckFailedError(
            f"the exported graph fails on an input of shape {feed.shape}: {str(error).splitlines()[0][:200]}: "
            "the plugin may fix a size in Python that should follow the input"
        ) from error


Expected = Callable[[NDArray[Any]], list[NDArray[Any]]]
"""The model itself: input array -> output arrays."""
