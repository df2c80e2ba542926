"""A model repository for NVIDIA Triton Inference Server: `<repo>/<name>/config.pbtxt` and `<repo>/<name>/1/model.onnx`.

The format is Triton's "model configuration" (protobuf text of inference.ModelConfig) and "model repository".
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fsdeploy.errors import InputError
from fsdeploy.export.graph import Port

MAX_BATCH = 16
QUEUE_DELAY_US = 2000
"""How long a request waits for others to share a batch with."""
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}


def config_text(name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """config.pbtxt of a face graph with a free batch: dynamic batching, one instance per GPU, or on the CPU."""
    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH}",
            *(line for port in inputs for line in _border("input", port)),
            *(line for port in outputs for line in _border("output", port)),
            "dynamic_batching {",
            "  preferred_batch_size: [ 4, 8, 16 ]",
            f"  max_queue_delay_microseconds: {QUEUE_DELAY_US}",
            "}",
            "instance_group [ { count: 1 kind: KIND_AUTO } ]",
            "version_policy { latest { num_versions: 1 } }",
            "",
        ]
    )


def _border(kind: str, port: Port) -> list[str]:
    dims = ", ".join(str(edge) for edge in port.shape[1:])  # Triton adds the batch itself
    return [
        f"{kind} [ {{",
        f'  name: "{port.name}"',
        f"  data_type: {_TYPES[port.dtype]}",
        f"  dims: [ {dims} ]",
        "} ]",
    ]


@contextmanager
def new_repository(repository: Path, name: str, force: bool) -> Iterator[Path]:
    """Yield a fresh folder for a model; on success it becomes `repository/name`, on error it goes away.

    A model that is replaced is there until the new one is whole.

    Raises:
        InputError: the model exists already and `force` is False, or the folder cannot be written.
    """
    target = repository / name
    if target.exists() and not force:
        raise InputError(f"{target} exists already: choose another name or pass --force to replace it")
    created = not repository.exists()
    place: Path | None = None
    try:
        repository.mkdir(parents=True, exist_ok=True)
        place = _workplace(repository, name)
        folder, old = place / "new", place / "old"
        (folder / "1").mkdir(parents=True)
        yield folder
        folder.chmod(0o755)
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        created = False
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}: check permissions and free space"
        ) from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        if created and repository.is_dir() and not any(repository.iterdir()):
            repository.rmdir()


def _workplace(repository: Path, name: str) -> Path:
    """An empty folder from which folders can be renamed into the repository.

    It lies beside the repository, because a server takes every folder within for a model. Where that is another file
    system (a mounted repository) or may not be written, it lies within: what is in it has no version or configuration
    of its own, so no server can load it.
    """
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=repository.parent))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=f".{name}.", dir=repository))
    within = repository / beside.name
    try:
        beside.rename(within)
    except OSError:
        beside.rmdir()
        within.mkdir()
        return within
    within.rename(beside)
    return beside
