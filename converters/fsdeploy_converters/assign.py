"""From slots of the graph to readers of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fsdeploy.model.tensor_stream import StoredTensor
from fsdeploy_converters.errors import damaged, shown
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.translate import Slot

Values = Callable[[], NDArray[np.float32]]
# Everything is float32 but the constants of a normalisation: Keras 2 counts samples in whole numbers of 64 bits, and
# keeps mean and variance in the precision that the layer computes with.
_KINDS = {"count": ("<i8", "<i4", "<f4", "<f2"), "mean": ("<f4", "<f2"), "variance": ("<f4", "<f2")}


def stored_tensors(file_of: Mapping[Slot, tuple[Hdf5File, str]], slots: Iterable[Slot]) -> dict[str, StoredTensor]:
    """Torch name -> tensor for every slot that torch has a use for.

    Raises:
        CorruptModelError: a dataset has another shape or type than the graph says.
    """
    found: dict[str, StoredTensor] = {}
    for slot in slots:
        file, path = file_of[slot]
        check_dataset(file, path, slot)
        if slot.target:
            found[slot.target] = laid_out(slot, weight_reader(file, path, slot))
    return found


def check_dataset(file: Hdf5File, path: str, slot: Slot) -> None:
    """The dataset must exist with exactly the shape of the variable, and numbers of its kind.

    Raises:
        CorruptModelError: it does not.
    """
    stored = file.datasets.get(path)
    if stored is None:
        raise damaged(file.source, f"the array {shown(path, 160)} is missing")
    if stored.shape != slot.shape:
        raise damaged(file.source, f"{shown(path, 160)} is {stored.shape}, its layer needs {slot.shape}")
    if stored.kind not in _KINDS.get(slot.kind, ("<f4",)):
        raise damaged(file.source, f"{shown(path, 160)} holds {stored.kind} numbers, not float32")


def weight_reader(file: Hdf5File, path: str, slot: Slot) -> Values:
    """Values of a weight, checked to be finite, and not negative where they are variances."""

    def read() -> NDArray[np.float32]:
        values = file.read(path).astype(np.float32, copy=False)
        least, largest = float(values.min()), float(values.max())
        if not (math.isfinite(least) and math.isfinite(largest)):  # not-a-number passes through both
            raise damaged(file.source, f"{shown(path, 160)} holds numbers that are not finite")
        if slot.kind in ("moving_variance", "variance") and least < 0:
            raise damaged(file.source, f"{shown(path, 160)} holds a negative variance")
        return values

    return read


def laid_out(slot: Slot, values: Values) -> StoredTensor:
    """Values in the file's layout, as torch wants them."""
    shape = slot.layout.result_shape(slot.shape)
    return StoredTensor(shape, lambda: slot.layout.apply(values()))
