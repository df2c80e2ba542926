"""Three figures that judge a swap against the right answer.

A scene that was not trained on is drawn as A (the source s) and as B (the target t); the model turns s into the swap
w. All three are (N, S, S, 3) in 0..1, each cut out by its own landmarks, and m (N, S, S) is the target's face mask, so
that only the face is judged. With d_i(x, y) = sum(m_i (x_i - y_i)^2) / (3 sum(m_i)), the masked mean squared error of
face i:

- closer: share of faces with d_i(w, t) < d_i(w, s). A model that returns its input scores 0.
- rank: for every face, the place of its own target among all N targets, ordered by the distance
  sum(m (w_i - mean(w) - t_j + mean(t))^2), m the mean mask; ties count against. The median is given. Without the
  means a constant face carries nothing: it ranks like chance, (N + 1) / 2 or worse.
- gain: mean over faces of PSNR(w, t) - PSNR(s, t) = 10 log10(d_i(s, t) / d_i(w, t)), in decibels.

A constant mean face of B can win on closer and gain alone; the rank shows that pose, light and expression came through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]

MIN_CLOSER = 0.90
MAX_RANK_SHARE = 10.0 / 60.0
MIN_GAIN_DB = 3.0
_NOISE_FLOOR = 1e-10


@dataclass(frozen=True)
class Figures:
    """How good a swap is. See the module for the formulas."""

    faces: int
    closer: float
    """0..1."""
    median_rank: float
    """1 (best) to `faces`."""
    gain_db: float

    @property
    def max_rank(self) -> float:
        """The largest median rank that passes: 10 of 60, in proportion for another number of faces."""
        return MAX_RANK_SHARE * self.faces

    @property
    def closer_met(self) -> bool:
        return self.closer >= MIN_CLOSER

    @property
    def rank_met(self) -> bool:
        return self.median_rank <= self.max_rank

    @property
    def gain_met(self) -> bool:
        return self.gain_db >= MIN_GAIN_DB

    @property
    def met(self) -> bool:
        """True when all three figures pass."""
        return self.closer_met and self.rank_met and self.gain_met


def masked_error(one: Images, other: Images, mask: Images) -> NDArray[np.float64]:
    """(N,) masked mean squared error of two stacks of faces; d of the module's text."""
    squared = np.square(one.astype(np.float64) - other).sum(axis=3) * mask
    return np.asarray(squared.sum(axis=(1, 2)) / np.maximum(3.0 * mask.sum(axis=(1, 2)), 1e-9))


def ranks(swaps: Images, targets: Images, mask: Images) -> NDArray[np.int64]:
    """(N,) place (1 is best) of every face's own target among all targets, means removed."""
    weight = np.sqrt(mask.mean(axis=0, dtype=np.float64))[..., None]
    swap_rows = ((swaps - swaps.mean(axis=0, dtype=np.float64)) * weight).reshape(len(swaps), -1)
    target_rows = ((targets - targets.mean(axis=0, dtype=np.float64)) * weight).reshape(len(targets), -1)
    # |w - t|^2 without |w|^2, which is the same for every target of one face.
    distance = np.square(target_rows).sum(axis=1)[None, :] - 2.0 * swap_rows @ target_rows.T
    # Rounding must not break a tie: distances closer than this are equal.
    slack = 1e-9 * max(float(np.abs(distance).max()), 1e-12)
    return np.asarray((distance <= np.diag(distance)[:, None] + slack).sum(axis=1), dtype=np.int64)


def judge(sources: Images, swaps: Images, targets: Images, mask: Images) -> Figures:
    """Judge N swaps; arguments are s, w, t and m of the module's text.

    Raises:
        ValueError: fewer than two faces, or shapes that differ.
    """
    if len(swaps) < 2 or not (sources.shape == swaps.shape == targets.shape == (*mask.shape, 3)):
        raise ValueError(f"expected equal stacks of two faces or more, got {sources.shape}, {swaps.shape}, "
                         f"{targets.shape} and masks {mask.shape}")  # fmt: skip
    to_target = masked_error(swaps, targets, mask)
    untouched = masked_error(sources, targets, mask)
    return Figures(
        faces=len(swaps),
        closer=float(np.mean(to_target < masked_error(swaps, sources, mask))),
        median_rank=float(np.median(ranks(swaps, targets, mask))),
        gain_db=float(np.mean(10.0 * np.log10((untouched + _NOISE_FLOOR) / (to_target + _NOISE_FLOOR)))),
    )
