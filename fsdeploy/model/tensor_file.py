"""Tensors on disk as safetensors, with one JSON value in the header's metadata."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fsdeploy.errors import CorruptModelError

_KEY = "fsdeploy"


def to_host(tensors: Mapping[str, Tensor], buffers: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Copies in main memory, contiguous, that a later training step cannot change.

    Args:
        buffers: Copies of an earlier call that are no longer needed: filled again, and completed. New memory costs more
            time than the copy itself; from a GPU, page-locked memory that stays is several times faster to fill.
    """
    kept = {} if buffers is None else buffers
    for name, tensor in tensors.items():
        target = kept.get(name)
        if target is None or target.shape != tensor.shape or target.dtype != tensor.dtype:
            locked = buffers is not None and tensor.is_cuda
            target = kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=locked)
        target.copy_(tensor.detach(), non_blocking=True)
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.current_stream(device).synchronize()
    return {name: kept[name] for name in tensors}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write contiguous host tensors; `metadata` is kept as JSON.

    Raises:
        OSError: the disk is full or the path cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode  # as the user's umask has it; safetensors makes files that nobody else can read
    try:
        # One key only: safetensors writes several in an order that changes from run to run, and the digest with it.
        save_file(dict(tensors), path, {_KEY: json.dumps(metadata, allow_nan=False)})
    except SafetensorError as error:
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, "No space left on device" if full else str(error)) from error
    path.chmod(mode)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        CorruptModelError: missing, truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            # Copies: what safetensors returns is a view of the file, which could then not be replaced safely.
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptModelError(f"{path} cannot be read as safetensors: {error}: restore a good copy") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON value written with a file's tensors; empty for a file of another program.

    Raises:
        CorruptModelError: missing, truncated, no safetensors file, or damaged metadata.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(_KEY, "{}")
        value = json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CorruptModelError(f"{path} cannot be read as safetensors: {error}: restore a good copy") from error
    if not isinstance(value, dict):
        raise CorruptModelError(f"{path} has damaged metadata: restore a good copy")
    return value
