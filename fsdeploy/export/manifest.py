"""The manifest beside an exported file: what is in it, and how it was proven. See docs/formats/onnx-metadata.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsdeploy.export.graph import Port
from fsdeploy.export.parity import Parity
from fsdeploy.runtime.metadata import SwapMetadata

VERSION = 1


def manifest_path(path: Path) -> Path:
    """`a2b.onnx` -> `a2b.onnx.json`."""
    return path.with_name(path.name + ".json")


def manifest_text(
    name: str,
    digest: str,
    size: int,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    figures: Sequence[Parity],
    metadata: SwapMetadata,
) -> str:
    """The manifest as JSON text."""
    values: dict[str, Any] = {
        "manifest_version": VERSION,
        "file": name,
        "sha256": digest,
        "bytes": size,
        "inputs": [dataclasses.asdict(port) for port in inputs],
        "outputs": [dataclasses.asdict(port) for port in outputs],
        "parity": [dataclasses.asdict(entry) for entry in figures],
        "metadata": dataclasses.asdict(metadata),
    }
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
