"""Batches prepared ahead by threads, in order, without a border between epochs.

Threads, not processes: decoding, warps and colour run in OpenCV without the interpreter's lock, crops are shared as
they are, nothing is copied between processes, and nothing has to be started again for an epoch. The rows of a batch are
split among the threads, so memory holds few batches however many threads there are.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, Protocol, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.training.data.collate import BatchMaker, TrainBatch
from fsdeploy.training.data.sampler import EndlessSampler

_AHEAD_BYTES = 128 << 20
"""Memory that batches prepared ahead may take, apart from the first."""
_LOOK_S = 0.2
"""Seconds between two looks at what else there is to do while a batch is waited for."""

Raw = TypeVar("Raw")


class CropSource(Protocol):
    """Where the rows of a batch come from."""

    def crop(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...


def available_cpus() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class BatchPipeline(Generic[Raw]):
    """Endless iterator of batches.

    Args:
        maker: makes a batch from its crops.
        sources: crops per identity.
        sampler: which face stands in which row.
        workers: threads; 0 makes each batch, in one thread, when it is asked for.
        pre_fetch: batches ahead per thread, as far as memory allows.
        start_iteration: number of the first batch.
    """

    def __init__(
        self,
        maker: BatchMaker[Raw],
        sources: Sequence[CropSource],
        sampler: EndlessSampler,
        workers: int,
        pre_fetch: int,
        start_iteration: int = 0,
    ) -> None:
        # OpenCV would wake all cores for every small picture, in every worker.
        cv2.setNumThreads(1)
        self.iteration = start_iteration
        """Batches handed out so far, counted from the start of training: where to resume."""
        self._maker = maker
        self._sources = sources
        self._sampler = sampler
        self._workers = workers
        ahead = _AHEAD_BYTES // max(1, maker.raw_bytes(len(sources)))
        self.ahead = max(1, min(workers * pre_fetch, ahead)) if workers else 0
        """Batches that are being prepared while one is in use."""
        self._queue: deque[tuple[Raw, list[Future[None]]]] = deque()
        self._next = start_iteration
        # Never in the caller's thread, which must be able to stop waiting for a storage that does not answer.
        self._pool = ThreadPoolExecutor(max(workers, 1), "faces")
        self._finalizer = weakref.finalize(self, _shut, self._pool)
        self._look: Callable[[], object] = lambda: None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TrainBatch:
        """The next batch.

        Raises:
            InputError: no face of a folder can be read any more.
            Exception: what the look of `look_while_waiting` raises; the batch stays the next one.
        """
        while len(self._queue) < max(self.ahead, 1):
            self._submit()
        raw, parts = self._queue[0]
        while wait(parts, _LOOK_S).not_done:
            self._look()
        self._queue.popleft()
        for part in parts:
            part.result()
        if self.ahead:
            self._submit()  # the threads work on while this batch is converted and used
        self.iteration += 1
        return self._maker.finish(raw)

    def look_while_waiting(self, look: Callable[[], object]) -> None:
        """Call `look` a few times a second, in the caller's thread, while a batch is not ready. What it raises ends the
        wait."""
        self._look = look

    def close(self) -> None:
        """Stop the threads; batches under way are dropped."""
        self._queue.clear()
        self._finalizer()

    def _begin(self) -> tuple[Raw, NDArray[np.int64]]:
        indices = self._sampler.indices(self._next)
        raw = self._maker.start(indices, self._sampler.random(self._next))
        self._next += 1
        return raw, indices

    def _submit(self) -> None:
        raw, indices = self._begin()
        step = -(-indices.size // max(self._workers, 1))
        starts = range(0, indices.size, step)
        self._queue.append((raw, [self._pool.submit(self._fill, raw, indices, at, at + step) for at in starts]))

    def _fill(self, raw: Raw, indices: NDArray[np.int64], start: int, stop: int) -> None:
        for row in range(start, min(stop, indices.size)):
            identity, item = divmod(row, indices.shape[1])
            face, masks = self._sources[identity].crop(int(indices[identity, item]))
            self._maker.fill(raw, row, face, masks)


def _shut(pool: ThreadPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
