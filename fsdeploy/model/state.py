"""The state of a model between runs: sessions, iterations, options. Stored as `<name>_state.json`.

The layout is the original system's, with `schema_version` and one key of our own, "fsdeploy"; `state.schema.json`
beside this file is its JSON Schema, docs/formats/model-folder.md its documentation.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsdeploy import __version__, files
from fsdeploy.errors import ConfigError, CorruptModelError
from fsdeploy.model.saved_set import OURS, SCHEMA_VERSION, FileSet, state_digest

_KNOWN = (
    "schema_version", "name", "sessions", "lowest_avg_loss", "iterations", "mixed_precision_layers", "lr_finder",
    "config", OURS, "legacy",
)  # fmt: skip
_WRITTEN_AT_SAVE = ("version", "saved", "files", "digest")


class State:
    """Everything about a model but its weights.

    Args:
        model_dir: Folder of the model.
        model_name: Plugin name.
        no_logs: True when this run writes no TensorBoard logs.
        stored: The state JSON to go on from; None for a new model.
        config: Options as stored, flat (see `stored_options`); default the stored ones.
        updatable: The options of `config` that may change on resume, recorded with the session.

    Raises:
        CorruptModelError: `stored` lacks a key or holds a wrong type.
    """

    def __init__(
        self,
        model_dir: Path | None,
        model_name: str,
        no_logs: bool = False,
        *,
        stored: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        updatable: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = model_dir
        self.name = model_name
        stored = {} if stored is None else stored
        try:
            self._sessions = {int(key): dict(value) for key, value in stored.get("sessions", {}).items()}
            self._iterations = int(stored.get("iterations", 0))
            self._lr_finder = float(stored.get("lr_finder", -1.0))
            self.lowest_avg_loss = _lowest(stored.get("lowest_avg_loss", 0.0))
            self._layers = [str(layer) for layer in stored.get("mixed_precision_layers", [])]
            self.config: dict[str, Any] = dict(stored.get("config", {}) if config is None else config)
            ours = dict(stored.get(OURS, {}))
            self.legacy: dict[str, Any] = {
                **stored.get("legacy", {}),
                **{key: value for key, value in stored.items() if key not in _KNOWN},
            }
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CorruptModelError(f"the state of '{model_name}' in {model_dir} is damaged: {error!r}") from error
        self.files: dict[str, Any] = ours.get("files", {})
        """Records of the files of the last committed save: name -> {"sha256", "size", "iterations"}."""
        self.extra: dict[str, Any] = {key: value for key, value in ours.items() if key not in _WRITTEN_AT_SAVE}
        """JSON values that others keep with the model: random generators, loader position, a graph, ..."""
        self.model_needs_rebuild = False
        """True when mixed precision was switched since the model was saved."""
        self._session_id = max(self._sessions, default=0) + 1
        self._sessions[self._session_id] = {
            "timestamp": time.time(),
            "no_logs": no_logs,
            "batchsize": 0,
            "iterations": 0,
            "config": dict(updatable or {}),
        }

    @property
    def filename(self) -> str:
        """Full path of the state file; empty for a model that has no folder."""
        return "" if self._folder is None else str(FileSet(self._folder, self.name).state)

    @property
    def iterations(self) -> int:
        """Iterations over all sessions."""
        return self._iterations

    @property
    def session_id(self) -> int:
        """Number of the current session, from 1."""
        return self._session_id

    @property
    def sessions(self) -> dict[int, dict[str, Any]]:
        """Session number -> {"timestamp" (unix seconds), "no_logs", "batchsize", "iterations", "config"}."""
        return self._sessions

    @property
    def current_session(self) -> dict[str, Any]:
        """The entry of the current session."""
        return self._sessions[self._session_id]

    @property
    def lr_finder(self) -> float:
        """The learning rate that was found; -1 when none was."""
        return self._lr_finder

    @property
    def mixed_precision_layers(self) -> list[str]:
        """Names of the layers that compute in half precision when mixed precision is on."""
        return self._layers

    def add_lr_finder(self, learning_rate: float) -> None:
        """Keep a learning rate that was found."""
        self._lr_finder = float(learning_rate)

    def add_mixed_precision_layers(self, layers: list[str]) -> None:
        """Keep the names of the layers that may compute in half precision."""
        self._layers = list(layers)

    def add_session_batchsize(self, batch_size: int) -> None:
        """Record the batch size of this session."""
        self.current_session["batchsize"] = int(batch_size)

    def increment_iterations(self) -> None:
        """Count one iteration, in total and in this session."""
        self._iterations += 1
        self.current_session["iterations"] += 1

    def take_back_iterations(self, count: int) -> None:
        """Uncount the last iterations of this session: they changed no weight."""
        self._iterations -= count
        self.current_session["iterations"] -= count

    def update_session_config(self, key: str, value: Any) -> None:
        """Change an option of the current session.

        Raises:
            ConfigError: unknown option, or a value of another type.
        """
        config = self.current_session["config"]
        if key not in config:
            raise ConfigError(f"option '{key}' is not one that a session records: {', '.join(sorted(config))}")
        if type(value) is not type(config[key]):
            raise ConfigError(f"option '{key}' must be of type {type(config[key]).__name__}, got {value!r}")
        config[key] = value
        self.config[key] = value

    def note_average(self, average: float) -> bool:
        """Compare the average loss since the last save with the lowest so far.

        Returns:
            True when it is the first or a new lowest average: this save is the new last good set.
        """
        if not math.isfinite(average) or average <= 0.0:
            return False
        if self.lowest_avg_loss and average >= self.lowest_avg_loss:
            return False
        self.lowest_avg_loss = average
        return True

    def to_dict(self) -> dict[str, Any]:
        """The state JSON without file records, as it is now. Sessions without an iteration are left out."""
        state: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "sessions": {str(key): value for key, value in self._sessions.items() if value["iterations"]},
            "lowest_avg_loss": self.lowest_avg_loss,
            "iterations": self._iterations,
            "mixed_precision_layers": self._layers,
            "lr_finder": self._lr_finder,
            "config": self.config,
            OURS: {**self.extra, "version": __version__, "saved": time.time()},
            "legacy": self.legacy,
        }
        copy: dict[str, Any] = json.loads(json.dumps(state, allow_nan=False))
        return copy

    def save(self) -> None:
        """Write the state file alone, beside the weights that were saved last."""
        state = self.to_dict()
        state[OURS]["files"] = self.files
        state[OURS]["digest"] = state_digest(state)
        files.write_text(Path(self.filename), json.dumps(state, indent=2, allow_nan=False) + "\n")


def _lowest(value: Any) -> float:
    # Older files keep one value per side.
    return float(sum(value.values()) if isinstance(value, dict) else value)


def read_schema() -> dict[str, Any]:
    """The JSON Schema of the state file."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("state.schema.json").read_text("utf-8"))
    return schema
