"""The state of every random number generator of a process, as JSON values."""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """State of the generators of python, numpy, torch and each CUDA device. Draws nothing."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, _pack(np.array(words, np.uint32).tobytes()), gauss],
        "numpy": [kind, _pack(np.asarray(keys, np.uint32).tobytes()), int(position), int(has_gauss), float(cached)],
        "torch": _pack(torch.get_rng_state().numpy().tobytes()),
        "cuda": [_pack(state.numpy().tobytes()) for state in _cuda_states()],
    }


def restore(state: dict[str, Any]) -> None:
    """Put the generators back into a captured state. CUDA states are skipped if the number of devices differs."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(int(w) for w in np.frombuffer(_unpack(words), np.uint32)), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.frombuffer(_unpack(keys), np.uint32), *rest))
    torch.set_rng_state(_tensor(state["torch"]))
    states = [_tensor(packed) for packed in state["cuda"]]
    if states and torch.cuda.is_available() and len(states) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states)


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _pack(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text)


def _tensor(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(_unpack(text), np.uint8).copy())
