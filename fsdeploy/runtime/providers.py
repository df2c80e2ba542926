"""Execution providers: which exist, which really run, and what to do when the onnxruntime installation is broken.

`onnxruntime.get_available_providers()` lists what was compiled in, not what works on this machine, and a session that
cannot start the requested provider runs on the CPU without a word. So a provider counts only after a session was made
and asked.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from fsdeploy.errors import InputError, ProviderUnavailableError

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
ALIASES: dict[str, str] = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
AUTO = ("CUDAExecutionProvider", "DmlExecutionProvider", "ROCMExecutionProvider", CPU)
"""Tried by "auto", best first. TensorRT, CoreML and others compile per model or cover graphs in part: on request."""
FIXED_BATCH = frozenset({"TensorrtExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider"})
"""Providers that compile per input shape: they are fed a few fixed batch sizes."""
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "ROCMExecutionProvider": "cuda"}
"""Device name for IO binding."""

_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")


def import_onnxruntime() -> Any:
    """The onnxruntime module; warns when two wheels that own it are installed.

    Raises:
        ProviderUnavailableError: not installed, or damaged by installing or removing a second wheel.
    """
    present = installed_wheels()
    if len(present) > 1:
        warnings.warn(f"{_names(present)} are both installed. {repair(present)}", RuntimeWarning, stacklevel=3)
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderUnavailableError(f"onnxruntime cannot be imported ({error}): {repair(present)}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise ProviderUnavailableError(f"the onnxruntime installation is incomplete: {repair(present)}")
    return onnxruntime


def installed_wheels() -> tuple[str, ...]:
    """Installed packages that own the import name `onnxruntime`; more than one is a broken installation."""
    found = []
    for name in _WHEELS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            found.append(name)
    return tuple(found)


def repair(present: Sequence[str]) -> str:
    """What to type to get one working onnxruntime."""
    if len(present) > 1:
        keep = next((name for name in present if name != "onnxruntime"), present[0])
        return (
            "They overwrite each other's files, so which one runs is chance. "
            f"Repair: pip uninstall -y {' '.join(present)} && pip install {keep}"
        )
    name = present[0] if present else "onnxruntime"
    return f"repair: pip install --force-reinstall {name}"


def _names(present: Sequence[str]) -> str:
    return " and ".join(present)


def resolve(providers: str | Sequence[str], available: Sequence[str]) -> list[str]:
    """Full provider names to ask for, in order, up to the CPU: it runs everything, so nothing after it gets a turn.

    Args:
        providers: "auto", or short ("cuda") or full names, as a sequence or separated by commas.
        available: what this onnxruntime was built with.

    Raises:
        InputError: an unknown name, or none at all.
    """
    if providers == "auto":
        return [name for name in AUTO if name in available]
    asked = [part.strip() for part in providers.split(",")] if isinstance(providers, str) else list(providers)
    full = []
    for name in asked:
        resolved = ALIASES.get(name.lower(), name)
        if resolved not in ALIASES.values() and resolved not in available:
            raise InputError(f"unknown execution provider '{name}': choose from auto, {', '.join(ALIASES)}")
        full.append(resolved)
    if not full:
        raise InputError(f"no execution provider was named: choose from auto, {', '.join(ALIASES)}")
    return full[: full.index(CPU) + 1] if CPU in full else full


def open_session(
    model: str | bytes,
    name: str,
    providers: str | Sequence[str] = "auto",
    strict: bool = False,
    threads: int | None = None,
    *,
    layout: bool = True,
) -> Any:
    """Make an onnxruntime session that runs on one of `providers`.

    Args:
        model: path or the file's bytes.
        name: what to call the file in messages.
        strict: refuse to run on anything but the first provider asked for ("auto": the best one compiled in).
        threads: threads within one operator on the CPU; None = onnxruntime's choice.
        layout: let onnxruntime rearrange weights for speed and keep its buffers; False holds less memory.

    Raises:
        InputError: not a model that onnxruntime can load, or an unknown provider.
        ProviderUnavailableError: with `strict`, the provider does not run here; or onnxruntime is broken.
    """
    runtime = import_onnxruntime()
    available = runtime.get_available_providers()
    wanted = resolve(providers, available)
    usable = [entry for entry in wanted if entry in available]
    if strict and wanted and wanted[0] not in available:
        raise ProviderUnavailableError(_refusal(wanted[0], CPU, runtime, "this onnxruntime was built without it"))
    if any(entry in DEVICES for entry in usable):
        _preload(runtime)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if not layout:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.enable_cpu_mem_arena = False
    if threads is not None:
        options.intra_op_num_threads = threads
    if "DmlExecutionProvider" in usable:
        options.enable_mem_pattern = False
    devices = [entry for entry in usable if entry != CPU]
    try:
        with _quiet(runtime) if devices else contextlib.nullcontext():
            session = runtime.InferenceSession(model, options, providers=[*devices, CPU])
    except Exception as error:
        raise InputError(f"{name} cannot be run: {_first_line(error)}") from error
    used = session.get_providers()[0]
    if wanted and used != wanted[0] and providers != "auto":
        reason = "its libraries or device are missing"
        if strict:
            raise ProviderUnavailableError(_refusal(wanted[0], used, runtime, reason))
        logger.warning("%s", _refusal(wanted[0], used, runtime, reason))
    elif strict and used != wanted[0]:
        raise ProviderUnavailableError(_refusal(wanted[0], used, runtime, "its libraries or device are missing"))
    return session


@contextlib.contextmanager
def _quiet(runtime: Any) -> Iterator[None]:
    """Without the stack that a provider writes to C++ stderr when it cannot start.

    The level is the whole program's and cannot be asked for; afterwards it is onnxruntime's own default (warnings).
    """
    runtime.set_default_logger_severity(4)
    try:
        yield
    finally:
        runtime.set_default_logger_severity(2)


def _refusal(wanted: str, used: str, runtime: Any, reason: str) -> str:
    return (
        f"{wanted} does not run here ({reason}), {used} does: install the wheel and driver for it, "
        f"or choose another provider (onnxruntime {runtime.__version__})"
    )


def _preload(runtime: Any) -> None:
    """Make the nvidia libraries of torch's or pip's wheels visible; it prints to stdout what it does not find."""
    if hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            runtime.preload_dlls()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
