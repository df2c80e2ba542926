"""A session with checked inputs, and its buffers kept on the device where that pays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.runtime.providers import DEVICES, open_session

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(double)": np.float64,
}


class BoundSession:
    """An onnxruntime session that refuses wrong inputs by name and reuses device buffers between runs.

    Args:
        path: the ONNX file.
        providers, strict, threads: as `open_session`.
        binding: bind inputs and outputs to the provider's device; None = on a GPU only.
    """

    def __init__(
        self,
        path: Path,
        providers: str | Sequence[str] = "auto",
        strict: bool = False,
        threads: int | None = None,
        binding: bool | None = None,
    ) -> None:
        self.path = path
        self._session = open_session(str(path), str(path), providers, strict, threads)
        self.provider: str = self._session.get_providers()[0]
        self.inputs = self._session.get_inputs()
        self.output_shapes = [tuple(entry.shape) for entry in self._session.get_outputs()]
        self.output_names = [entry.name for entry in self._session.get_outputs()]
        self.input_type = _TYPES.get(self.inputs[0].type)
        first = self.inputs[0].shape
        self.fixed_batch: int | None = first[0] if len(first) == 4 and isinstance(first[0], int) else None
        self._device = DEVICES.get(self.provider, "cpu")
        self._bind = self._device != "cpu" if binding is None else binding
        self._buffers: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._turn = Lock()  # bound buffers are shared by all callers

    def run(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Feed the inputs in order, return the outputs in order.

        Raises:
            InputError: wrong number, shape or type of inputs; or the provider failed (out of memory, ...).
        """
        self._check(arrays)
        feeds = {entry.name: np.ascontiguousarray(array) for entry, array in zip(self.inputs, arrays, strict=True)}
        try:
            return self._run_bound(feeds) if self._bind else list(self._session.run(self.output_names, feeds))
        except Exception as error:
            raise InputError(f"{self.path} failed on {self.provider}: {str(error).splitlines()[0]}") from error

    def _run_bound(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        import onnxruntime

        with self._turn:
            return self._run_on_device(feeds, onnxruntime)

    def _run_on_device(self, feeds: dict[str, NDArray[Any]], runtime: Any) -> list[NDArray[Any]]:
        shapes = tuple(array.shape for array in feeds.values())
        if shapes not in self._buffers:
            if len(self._buffers) >= 8:  # frames of changing size would pile buffers up on the device
                self._buffers.clear()
            binding = self._session.io_binding()
            values = {n: runtime.OrtValue.ortvalue_from_numpy(a, self._device, 0) for n, a in feeds.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in self.output_names:
                binding.bind_output(name, "cpu")
            self._buffers[shapes] = (binding, values)
        binding, values = self._buffers[shapes]
        for name, array in feeds.items():
            values[name].update_inplace(array)
        self._session.run_with_iobinding(binding)
        return [np.asarray(output) for output in binding.copy_outputs_to_cpu()]

    def _check(self, arrays: list[NDArray[Any]]) -> None:
        if len(arrays) != len(self.inputs):
            raise InputError(f"{self.path} takes {len(self.inputs)} inputs, got {len(arrays)}")
        for entry, array in zip(self.inputs, arrays, strict=True):
            wanted = tuple(entry.shape)
            fits = array.ndim == len(wanted) and all(
                got == edge or not isinstance(edge, int) for edge, got in zip(wanted, array.shape, strict=True)
            )
            kind = _TYPES.get(entry.type)
            if not fits or (kind is not None and array.dtype != kind):
                shown = "(" + ", ".join(str(edge) for edge in wanted) + ")"
                name = np.dtype(kind).name if kind is not None else entry.type
                raise InputError(
                    f"input '{entry.name}' of {self.path} must be {shown} {name}, got {array.shape} {array.dtype}"
                )
