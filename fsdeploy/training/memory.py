"""Running out of memory, told apart from other errors and put into one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fsdeploy.errors import InputError

_MAIN_MEMORY = ("DefaultCPUAllocator", "Insufficient memory")
"""What torch (as a plain RuntimeError) and OpenCV say when the machine has no more."""
_DEVICE_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or OpenCV means that memory ran out, on the device or on the machine."""
    return _of_machine(error) or _of_device(error)


def _of_machine(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _MAIN_MEMORY)


def _of_device(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _DEVICE_MEMORY)


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn running out of memory inside the block into an error that says what to do.

    Raises:
        InputError: instead of the library's own error.
    """
    try:
        yield
    except Exception as error:
        if _of_machine(error) or (_of_device(error) and device.type == "cpu"):
            raise InputError(
                "not enough main memory: lower --batch-size or cache_budget, or choose a smaller model"
            ) from error
        if _of_device(error):
            raise InputError(
                f"not enough memory on {device}: lower --batch-size, turn on mixed_precision, or choose a smaller model"
            ) from error
        raise
