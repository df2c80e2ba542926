"""How a stored array becomes a torch parameter: axes moved, reshaped, then rows and columns put in another order.

Optimizer slots lie in the file as their parameter does, so the same layout turns them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Layout:
    """Applied in the order of the fields."""

    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    rows: NDArray[np.int64] | None = None
    """Source index of each place of the first axis."""
    columns: NDArray[np.int64] | None = None
    """The same for the second axis."""

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A contiguous array in torch's layout."""
        if self.axes is not None:
            values = values.transpose(self.axes)
        if self.shape is not None:
            values = values.reshape(self.shape)
        if self.columns is not None:
            # A copy in stored order first: picking columns of a transposed array reads memory against its grain.
            values = values.T[self.columns].T
        if self.rows is not None:
            values = values[self.rows]
        return np.asarray(values, np.float32, order="C")

    def result_shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Shape after `apply` of an array of shape `stored`."""
        if self.shape is not None:
            return self.shape
        return stored if self.axes is None else tuple(stored[axis] for axis in self.axes)

    def with_rows(self, rows: NDArray[np.int64]) -> Layout:
        """The same, then `rows`."""
        return dataclasses.replace(self, rows=rows if self.rows is None else self.rows[rows])

    def with_columns(self, columns: NDArray[np.int64]) -> Layout:
        """The same, then `columns`."""
        return dataclasses.replace(self, columns=columns if self.columns is None else self.columns[columns])


AS_STORED = Layout()
CONV = Layout(axes=(3, 2, 0, 1))
"""(kh, kw, in, out) to (out, in, kh, kw); for a transposed convolution (kh, kw, out, in) to (in, out, kh, kw)."""
DENSE = Layout(axes=(1, 0))


def depthwise(shape: tuple[int, ...]) -> Layout:
    """(kh, kw, channels, multiplier) to (channels * multiplier, 1, kh, kw)."""
    height, width, channels, multiplier = shape
    return Layout(axes=(2, 3, 0, 1), shape=(channels * multiplier, 1, height, width))
