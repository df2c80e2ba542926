"""The curve of a learning rate scan as a picture."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.images import write_image

_WIDTH, _HEIGHT = 1000, 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 30, 40, 70
_COLOURS = ((60, 160, 60), (0, 190, 220), (40, 40, 220))
_INK, _GRID = (40, 40, 40), (225, 225, 225)
_SKIPPED_FIRST, _SKIPPED_LAST = 10, 1


def draw_graph(path: Path, rates: list[float], losses: list[float], marks: dict[str, float]) -> None:
    """Draw smoothed loss over learning rate (logarithmic), with a dot and its value for each mark, as a PNG.

    Args:
        rates, losses: The curve. Its first ten points and the last are left out where enough remain.
        marks: Name -> learning rate.
    """
    enough = len(rates) > _SKIPPED_FIRST + _SKIPPED_LAST + 1
    kept = slice(_SKIPPED_FIRST, -_SKIPPED_LAST) if enough else slice(None)
    x, y = np.log10(rates[kept]), np.asarray(losses[kept], np.float64)
    shown = np.concatenate([x, [math.log10(rate) for rate in marks.values()]])
    plot = _Plot(float(shown.min()), float(shown.max()), float(y.min()), float(y.max()))
    plot.axes()
    cv2.polylines(plot.image, [plot.points(x, y)], False, (180, 90, 30), 2, cv2.LINE_AA)
    for (name, rate), colour in zip(marks.items(), _COLOURS, strict=False):
        at = plot.points(np.array([math.log10(rate)]), np.interp([math.log10(rate)], x, y))[0]
        cv2.circle(plot.image, at.tolist(), 7, colour, cv2.FILLED, cv2.LINE_AA)
        plot.text(f"{name}: {rate:.2e}", (_LEFT + 15, _HEIGHT - _BOTTOM - 75 + 25 * list(marks).index(name)), colour)
    write_image(path, plot.image)


class _Plot:
    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.image: NDArray[np.uint8] = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
        spread = max(top - bottom, 1e-12) * 0.05
        self._x = (left, max(right, left + 1e-9))
        self._y = (bottom - spread, top + spread)

    def points(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int32]:
        """Pixels (N, 2) of data points."""
        across = (x - self._x[0]) / (self._x[1] - self._x[0]) * (_WIDTH - _LEFT - _RIGHT) + _LEFT
        down = (self._y[1] - y) / (self._y[1] - self._y[0]) * (_HEIGHT - _TOP - _BOTTOM) + _TOP
        return np.stack([across, down], axis=1).round().astype(np.int32)

    def text(self, text: str, at: tuple[int, int], colour: tuple[int, int, int] = _INK) -> None:
        cv2.putText(self.image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)

    def axes(self) -> None:
        for decade in range(math.ceil(self._x[0]), math.floor(self._x[1]) + 1):
            x = int(self.points(np.array([float(decade)]), np.array([self._y[0]]))[0, 0])
            cv2.line(self.image, (x, _TOP), (x, _HEIGHT - _BOTTOM), _GRID, 1)
            self.text(f"1e{decade:+d}", (x - 20, _HEIGHT - _BOTTOM + 20))
        for value in np.linspace(*self._y, 6):
            y = int(self.points(np.array([self._x[0]]), np.array([value]))[0, 1])
            cv2.line(self.image, (_LEFT, y), (_WIDTH - _RIGHT, y), _GRID, 1)
            self.text(f"{value:.4g}", (10, y + 5))
        cv2.rectangle(self.image, (_LEFT, _TOP), (_WIDTH - _RIGHT, _HEIGHT - _BOTTOM), _INK, 1)
        self.text("learning rate", (_WIDTH // 2 - 50, _HEIGHT - 20))
        self.text("smoothed loss", (10, 25))
