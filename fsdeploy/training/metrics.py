"""Figures of the running training. They stay on the device until somebody looks: the loop never waits for them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fsdeploy.training.data.files import get_label

if TYPE_CHECKING:
    from fsdeploy.training.loss import BatchLoss


@dataclass(frozen=True)
class IterationFigures:
    """What was measured in one iteration."""

    iteration: int
    """Total iteration count of the model, from 1."""
    totals: list[float]
    """Loss per side."""
    unweighted: list[list[dict[str, float]]]
    """Per side and face output: function -> loss before its weight."""
    masks: list[float | None]
    """Loss of the learned mask per side."""
    gradient_norm: float
    learning_rate: float
    spoilt: bool
    """True from the first iteration on whose loss or gradient was not finite (with protection)."""

    @property
    def is_finite(self) -> bool:
        """Whether every side's loss is a number."""
        return all(abs(total) < float("inf") for total in self.totals)

    def logs(self, weights: dict[str, float]) -> dict[str, float | dict[str, float]]:
        """The values under the names that log viewers know."""
        named: dict[str, float | dict[str, float]] = {"total": sum(self.totals)}
        for side, outputs in enumerate(self.unweighted):
            label = get_label(side, len(self.unweighted))
            for index, output in enumerate(outputs):
                key = label if len(outputs) == 1 else f"{label}_{index}"
                weighted = {name: value * weights[name] for name, value in output.items()}
                named[f"face_{key}"] = sum(weighted.values())
                named[f"weighted_{key}"] = weighted
                named[f"unweighted_{key}"] = dict(output)
            mask = self.masks[side]
            if mask is not None:
                named[f"mask_{label}"] = mask
        return named


@dataclass(frozen=True)
class _Pending:
    iteration: int
    learning_rate: float
    values: Tensor
    names: list[list[list[str]]]
    has_mask: list[bool]


class Recorder:
    """Collects one vector per iteration on the device and fetches many with one copy."""

    def __init__(self) -> None:
        self._pending: list[_Pending] = []

    def add(
        self, iteration: int, losses: list[BatchLoss], learning_rate: float, gradient_norm: Tensor, spoilt: Tensor
    ) -> None:
        """Keep the means of one iteration."""
        rows = [value for loss in losses for output in loss.unweighted for value in output.values()]
        rows += [loss.mask for loss in losses if loss.mask is not None]
        means = torch.stack(rows).detach().mean(dim=1)
        scalars = torch.stack([*(loss.total.detach() for loss in losses), gradient_norm, spoilt.to(means.dtype)])
        names = [[list(output) for output in loss.unweighted] for loss in losses]
        has_mask = [loss.mask is not None for loss in losses]
        self._pending.append(_Pending(iteration, learning_rate, torch.cat([means, scalars]), names, has_mask))

    def fetch(self) -> list[IterationFigures]:
        """The figures of all iterations since the last call. Waits for the device."""
        if not self._pending:
            return []
        pending, self._pending = self._pending, []
        rows = torch.stack([entry.values for entry in pending]).tolist()
        return [_figures(entry, row) for entry, row in zip(pending, rows, strict=True)]


def _figures(entry: _Pending, row: list[float]) -> IterationFigures:
    values = iter(row)
    unweighted = [[{name: next(values) for name in output} for output in side] for side in entry.names]
    masks = [next(values) if has_mask else None for has_mask in entry.has_mask]
    totals = [next(values) for _ in entry.names]
    return IterationFigures(
        entry.iteration, totals, unweighted, masks, next(values), entry.learning_rate, bool(next(values))
    )


def describe_non_finite(figures: IterationFigures) -> str:
    """What was not finite in an iteration, and what to do about it."""
    found = []
    for label, total, outputs, mask in zip("AB", figures.totals, figures.unweighted, figures.masks, strict=False):
        functions = {name for output in outputs for name, value in output.items() if not math.isfinite(value)}
        functions |= {"mask"} if mask is not None and not math.isfinite(mask) else set()
        if not math.isfinite(total):
            found.append(f"loss {label} is {total} ({', '.join(sorted(functions))})")
    what = "; ".join(found) or f"the gradient is not finite (norm {figures.gradient_norm})"
    return (
        f"iteration {figures.iteration}: {what}; training stopped before that reached the weights; go on with a lower "
        "learning_rate, other loss functions or mixed_precision off"
    )


class Pace:
    """Iterations per second over the last seconds, and the share of time spent waiting for data."""

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_s = window_s
        self._marks: list[tuple[float, int, float]] = [(time.perf_counter(), 0, 0.0)]
        self._count = 0
        self._waited = 0.0

    def add(self, waited_s: float) -> None:
        """Count an iteration that waited so long for its batch."""
        self._count += 1
        self._waited += waited_s

    def measure(self) -> tuple[float, float]:
        """(iterations per second, share of time 0..1 spent waiting for data) over the window."""
        now = time.perf_counter()
        self._marks = [mark for mark in self._marks if now - mark[0] <= self._window_s] or self._marks[-1:]
        then, count, waited = self._marks[0]
        self._marks.append((now, self._count, self._waited))
        elapsed = max(now - then, 1e-9)
        return (self._count - count) / elapsed, min((self._waited - waited) / elapsed, 1.0)
