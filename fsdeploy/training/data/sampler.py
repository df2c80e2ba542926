"""Which face stands in which row of which batch: an endless order that follows from a seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ORDER = 0
_BATCH = 1


def batch_random(seed: int, iteration: int, rank: int = 0) -> np.random.Generator:
    """The random numbers of one batch: the same for any number of workers, and after a resume."""
    return np.random.default_rng([_BATCH, seed, iteration, rank])


class FaceStream:
    """Permutations of one identity's faces, laid end to end: every face is used once before any repeats."""

    def __init__(self, length: int, seed: int, identity: int) -> None:
        self._length = length
        self._seed = seed
        self._identity = identity
        self._known: dict[int, NDArray[np.int64]] = {}

    def permutation(self, number: int) -> NDArray[np.int64]:
        """The `number`-th permutation of 0..length-1."""
        if number not in self._known:
            if len(self._known) > 2:
                self._known.clear()
            random = np.random.default_rng([_ORDER, self._seed, self._identity, number])
            self._known[number] = random.permutation(self._length)
        return self._known[number]

    def take(self, start: int, count: int) -> NDArray[np.int64]:
        """Face indices (count,) at places start, start + 1, ... of the stream."""
        parts = []
        while count:
            number, offset = divmod(start, self._length)
            part = self.permutation(number)[offset : offset + count]
            parts.append(part)
            start += len(part)
            count -= len(part)
        return np.concatenate(parts)


class EndlessSampler:
    """Rows of every batch from the first to any later one, without a border between epochs.

    An epoch is the time in which the longest folder is used once; it may end inside a batch. Several processes (`rank`
    of `world_size`) take neighbouring parts of one common batch, so together they use every face once too.

    Args:
        lengths: usable faces per identity.
        batch_size: rows per identity and batch (and process).
        seed: fixes every batch.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._streams = [FaceStream(length, seed, identity) for identity, length in enumerate(lengths)]

    def indices(self, iteration: int) -> NDArray[np.int64]:
        """Face indices (identities, batch_size) of batch `iteration` (from 0)."""
        start = (iteration * self.world_size + self.rank) * self.batch_size
        return np.stack([stream.take(start, self.batch_size) for stream in self._streams])

    def epoch(self, iteration: int) -> float:
        """Epochs completed when `iteration` batches have been used."""
        return iteration * self.world_size * self.batch_size / max(self.lengths)

    def random(self, iteration: int) -> np.random.Generator:
        """The random numbers of batch `iteration`."""
        return batch_random(self.seed, iteration, self.rank)
