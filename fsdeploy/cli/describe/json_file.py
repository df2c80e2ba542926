"""The JSON files that fsdeploy writes or reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fsdeploy.cli.describe.faces import landmarks
from fsdeploy.cli.describe.facts import Facts, date, positive, without
from fsdeploy.errors import InputError

_MAX_BYTES = 1 << 28


def json_file(path: Path) -> tuple[str, Facts]:
    """A JSON file by what it holds; the kind comes first.

    Raises:
        InputError: it is no JSON, or holds nothing that fsdeploy knows.
    """
    if path.suffix.lower() in (".jsonl", ".csv"):
        return "landmarks", landmarks(path)
    values = _read(path)
    if isinstance(values, dict):
        for key, kind, reader in (
            ("report_version", "conversion report", _report),
            ("manifest_version", "export manifest", _manifest),
            ("sessions", "model state", _state),
        ):
            if key in values:
                try:
                    return kind, reader(values)
                except (LookupError, TypeError, AttributeError, ValueError) as error:
                    raise InputError(f"{path} is no whole {kind} ({error!r}): restore a good copy") from error
        if path.name == "demo.json":
            return "demo summary", without(values, "files")
    try:
        return "landmarks", landmarks(path)
    except InputError as error:
        raise InputError(
            f"{path} holds JSON that fsdeploy does not know: inspect reads conversion reports, export manifests, model "
            f"states and landmarks"
        ) from error


def _read(path: Path) -> Any:
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} is larger than any JSON file that fsdeploy writes: name another file")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: restore a good copy") from error


def _report(values: Facts) -> Facts:
    return {
        "complete": values["complete"],
        "stopped": values.get("stopped"),
        "input": values.get("input"),
        "output": values.get("output"),
        "marked": str(values["marked"]).rpartition("/")[2] if values.get("marked") else False,
        "frames": values["frames"],
        "faces": values["faces"],
        "seconds": values.get("seconds"),
        "model": values.get("model"),
        "damage": values.get("damage"),
        "notes": values.get("notes"),
        "versions": values.get("versions"),
        "failed": values.get("failed"),
    }


def _manifest(values: Facts) -> Facts:
    metadata = values["metadata"]
    return {
        "file": values["file"],
        "sha256": values["sha256"],
        "megabytes": round(values["bytes"] / 1e6, 1),
        "direction": metadata["direction"],
        "plugin": metadata["plugin"],
        "iterations": metadata["iterations"],
        "written_by": f"fsdeploy {metadata['producer_version']}",
        "inputs": values["inputs"],
        "outputs": values["outputs"],
        "parity": values["parity"],
    }


def _state(values: Facts) -> Facts:
    ours = values.get("fsdeploy", {})
    return {
        "plugin": values["name"],
        "iterations": values["iterations"],
        "lowest_avg_loss": positive(values["lowest_avg_loss"]),
        "lr_finder": positive(values["lr_finder"]),
        "sessions": len(values["sessions"]),
        "written_by": f"fsdeploy {ours['version']}" if "version" in ours else "another program",
        "saved": date(ours.get("saved", 0)),
        "next": "inspect its folder to see the whole model",
        "config": values["config"],
    }
