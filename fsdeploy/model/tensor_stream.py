"""Writing a safetensors file one tensor at a time, so that a model larger than half the memory can be written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEY = "fsdeploy"


@dataclass(frozen=True)
class StoredTensor:
    """A float32 tensor that is read when it is needed."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[np.float32]]
    """Gives a contiguous array of `shape`."""


def stream_tensors(path: Path, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors` in the order of the mapping; `metadata` is kept as JSON, as `tensor_file.write_tensors` does.

    Raises:
        OSError: the disk is full or the path cannot be written.
        ValueError: a tensor is read with another shape than announced.
    """
    text = json.dumps(metadata, allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {_KEY: text}}
    place = 0
    for name, tensor in tensors.items():
        end = place + 4 * math.prod(tensor.shape)
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)  # the format wants the data aligned
    with path.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, tensor in tensors.items():
            values = np.asarray(tensor.read(), "<f4", order="C")
            if values.shape != tensor.shape:
                raise ValueError(f"tensor {name} has the shape {values.shape}, not {tensor.shape}")
            stream.write(values.reshape(-1).view(np.uint8).data)
            del values  # before the next one is read
