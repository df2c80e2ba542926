"""How fast is an exported file here? Load, first run, median and 95th percentile per provider and batch size."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import FsdeployError, InputError, ProviderUnavailableError
from fsdeploy.runtime.onnxfile import scan
from fsdeploy.runtime.providers import ALIASES, resolve
from fsdeploy.runtime.session import BoundSession

_FRAME = (720, 1280)
_BATCHES = (1, 8)


@dataclass(frozen=True)
class Timing:
    """One provider at one batch size. Times in milliseconds; None where the provider does not run."""

    requested: str
    """Provider that was asked for."""
    used: str
    """Provider that the session really uses; empty when it could not be made."""
    batch: int
    load_ms: float | None
    first_ms: float | None
    median_ms: float | None
    p95_ms: float | None
    per_face_ms: float | None
    """Median divided by the batch size; of a whole-frame graph the median itself, for it swaps one face per run."""
    memory_mb: float | None
    """Growth of this process's memory by loading and running, in units of 10^6 bytes; None on Windows."""
    note: str = ""
    unit: Literal["face", "frame"] = "face"
    """What one of the batch is: a crop, or a whole frame."""


def bench_file(
    path: Path,
    providers: Sequence[str] = ("auto",),
    batches: Sequence[int] | None = None,
    runs: int = 20,
    threads: int | None = None,
    strict: bool = False,
) -> list[Timing]:
    """Measure a file on random faces (or one random 1280 x 720 frame).

    Args:
        providers: "auto" or names as `Swapper` takes them; each is measured.
        batches: faces per run; None = 1 and 8, or the only batch that the file takes. A whole-frame graph takes 1.
        runs: timed runs per batch size, after the first.
        strict: a provider that does not run here is not measured on the CPU instead.

    Raises:
        InputError: the file cannot be run, an unknown provider, or several faces for a whole-frame graph.
        ProviderUnavailableError: none of the providers runs here.
    """
    scan(path)
    if runs < 1 or any(batch < 1 for batch in batches or ()):
        raise InputError("--runs and --batch must be 1 or more")
    timings: list[Timing] = []
    for provider in providers:
        timings += _bench_provider(path, provider, batches, runs, threads, strict)
    if not any(entry.used for entry in timings):
        raise ProviderUnavailableError(f"none of {', '.join(providers)} runs here: {timings[0].note}")
    return timings


def _bench_provider(
    path: Path, provider: str, batches: Sequence[int] | None, runs: int, threads: int | None, strict: bool
) -> list[Timing]:
    requested = provider if provider == "auto" else resolve(provider, list(ALIASES.values()))[0]
    before = memory_mb()
    started = time.perf_counter()
    try:
        session = BoundSession(path, provider, strict, threads)
    except ProviderUnavailableError as error:
        return [
            Timing(requested, "", batch, None, None, None, None, None, None, str(error)) for batch in batches or (1,)
        ]
    load = (time.perf_counter() - started) * 1e3
    unit: Literal["face", "frame"] = "frame" if _takes_frames(session) else "face"
    timings = []
    for batch in _batches(session, batches):
        try:
            first, times = _timed(session, batch, runs)
        except FsdeployError as error:
            timings.append(
                Timing(requested, session.provider, batch, load, None, None, None, None, None, str(error), unit)
            )
            continue
        median, p95 = (float(np.percentile(times, share)) for share in (50, 95))
        after = memory_mb()
        grown = None if before is None or after is None else after - before
        per_face = median / batch
        timings.append(Timing(requested, session.provider, batch, load, first, median, p95, per_face, grown, "", unit))
    return timings


def _takes_frames(session: BoundSession) -> bool:
    return len(session.inputs[0].shape) == 3


def _batches(session: BoundSession, wanted: Sequence[int] | None) -> Sequence[int]:
    """The batch sizes to measure. A whole-frame graph ignores them, so dividing by one would invent a speed."""
    if _takes_frames(session):
        if wanted is not None and set(wanted) != {1}:
            raise InputError(f"{session.path} takes one whole frame per run: leave --batch out")
        return (1,)
    if wanted is not None:
        return wanted
    return _BATCHES if session.fixed_batch is None else (session.fixed_batch,)


def _timed(session: BoundSession, batch: int, runs: int) -> tuple[float, list[float]]:
    if session.fixed_batch not in (None, batch):
        raise InputError(f"the file takes exactly {session.fixed_batch} faces")
    try:
        feeds = random_inputs(session, batch)
    except MemoryError as error:
        raise InputError(f"{batch} faces at once do not fit into memory: measure a smaller batch") from error
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        session.run(feeds)
        times.append((time.perf_counter() - started) * 1e3)
    return times[0], times[1:]


def random_inputs(session: BoundSession, batch: int) -> list[NDArray[Any]]:
    """Seeded inputs of the declared shapes; free edges become the batch, or those of a 1280 x 720 frame."""
    rng = np.random.default_rng(0)
    arrays: list[NDArray[Any]] = []
    for entry in session.inputs:
        if len(entry.shape) == 3:
            arrays.append(rng.integers(0, 256, (*_FRAME, 3), np.uint8))
        elif tuple(entry.shape) == (68, 2):
            from fsdeploy.runtime.swapper import frontal_landmarks

            arrays.append(frontal_landmarks(300.0, _FRAME[1] / 2, _FRAME[0] / 2).astype(np.float32))
        elif tuple(entry.shape) == (2, 3):
            arrays.append(np.array([[0.1, 0, -30], [0, 0.1, -10]], np.float32))
        else:
            shape = [edge if isinstance(edge, int) else batch for edge in entry.shape]
            is_pixels = entry.type == "tensor(uint8)"
            arrays.append(rng.integers(0, 256, shape, np.uint8) if is_pixels else rng.random(shape, np.float32))
    return arrays


def memory_mb() -> float | None:
    """Resident memory of this process in units of 10^6 bytes; None where it cannot be had without a dependency."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
