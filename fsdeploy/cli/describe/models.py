"""Model folders, weights and legacy models."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from fsdeploy.cli.describe.facts import Facts, date, json_or_text, positive, without
from fsdeploy.errors import CorruptModelError, FsdeployError, InputError


def model_folder(folder: Path) -> Facts:
    """The model of a folder, as it would be loaded."""
    from fsdeploy.model.backup import Backup
    from fsdeploy.model.folder import model_info, model_name_in
    from fsdeploy.model.saved_set import OURS, FileSet, find_saved_set

    name = model_name_in(folder)
    facts: Facts = {"plugin": name}
    try:
        found = FileSet(folder, name).find()
    except CorruptModelError as error:
        facts["damaged"] = str(error)
        found = find_saved_set(folder, name)
        facts["loads_from"] = str(found.weights)
    try:
        facts |= {key: value for key, value in dataclasses.asdict(model_info(folder)).items() if key != "name"}
        # A training may have saved once more since: all that is said here is of the set that was found.
        facts |= {"iterations": found.state["iterations"], "weights_sha256": found.weights_sha256}
    except FsdeployError as error:
        facts |= {"problem": str(error), "iterations": found.state["iterations"]}
    state, ours = found.state, found.state[OURS]
    facts |= {
        "lowest_avg_loss": positive(state["lowest_avg_loss"]),
        "lr_finder": positive(state["lr_finder"]),
        "written_by": f"fsdeploy {ours['version']}",
        "saved": date(ours["saved"]),
        "files": [
            {"file": file, "megabytes": round(record["size"] / 1e6, 1), **without(record, "size")}
            for file, record in ours["files"].items()
        ],
        "sessions": [
            {
                "session": int(number),
                "started": date(entry.get("timestamp", 0)),
                **without(entry, "timestamp", "config"),
            }
            for number, entry in sorted(state["sessions"].items(), key=lambda item: int(item[0]))
        ],
        "restore_points": [
            {**dataclasses.asdict(point), "saved": date(point.saved)} for point in Backup(folder, name).restore_points()
        ],
        "config": state["config"],
    }
    return facts


def safetensors(path: Path) -> Facts:
    """Tensors and metadata of a file, ours or another's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            tensors = [
                {"name": name, "type": part.get_dtype(), "shape": part.get_shape()} for name, part in slices.items()
            ]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}: restore a good copy") from error
    values = {key: json_or_text(text) for key, text in metadata.items()}
    ours = values.pop("fsdeploy", {})
    config = ours.pop("config", {}) if isinstance(ours, dict) else {}
    return {
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "fsdeploy": ours,
        "config": config,
        "values": sum(math.prod(tensor["shape"]) for tensor in tensors),
        "metadata": values,
        "tensors": tensors,
    }


def legacy(path: Path) -> Facts:
    """A file of Keras, as far as it can be told without reading its weights."""
    from fsdeploy.model.migration import find_converter

    found = find_converter(path).look(path)
    following = {"next": f"turn it into a model folder: fsdeploy migrate {path}"} if found.is_model else {}
    return {"format": found.format, **found.facts, **following}
