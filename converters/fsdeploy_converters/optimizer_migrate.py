"""`OptimizerMigrate`: the optimizer that Keras saved in a `.keras` file as a torch optimizer's state dict."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from fsdeploy.model.migration import MigratedOptimizer
from fsdeploy_converters.keras3 import open_archive
from fsdeploy_converters.keras3_optimizer import read_optimizer
from fsdeploy_converters.translate import Slot

logger = logging.getLogger(__name__)

VERSION = 0.5


class OptimizerMigrate:
    """Migrates the slots of a Keras optimizer to a torch optimizer's state dict.

    Args:
        config: The file's `config.json`; its `compile_config` says which optimizer it was.
        model_path: The `.keras` file.
    """

    def __init__(self, config: dict[str, Any], model_path: str) -> None:
        self._config, self._path = config, Path(model_path)

    def convert(self) -> dict[str, Any] | None:
        """The state dict, or None if no optimizer was saved.

        Returns:
            {"version": 0.5, "optimizer": {"state": index -> slots, "param_groups": [...]}, "scaler": ...}. Parameters
            are in two groups, those that decay and then those that do not, each in the order of the graph; slots have
            the torch layout of their parameter, as a migrated model has it.

        Raises:
            FsdeployError: the file cannot be read as a model.
        """
        with ExitStack() as resources:
            opened = open_archive(self._path, resources, "")
            slots = opened.translated.slots
            found, notes = read_optimizer(opened.file, self._config, slots)
            for note in notes:
                logger.warning("%s: %s", self._path, note)
            return None if found is None else _state_dict(found, [slot for slot in slots if slot.learned])


def _state_dict(found: MigratedOptimizer, slots: list[Slot]) -> dict[str, Any]:
    plain = [slot for slot in slots if len(slot.shape) <= 1 or slot.kind.endswith("bias")]
    groups = [[slot for slot in slots if slot not in plain], plain]
    state: dict[int, dict[str, torch.Tensor]] = {}
    listed: list[dict[str, Any]] = []
    for group in groups:
        start = len(state)
        for slot in group:
            entries = found.slots[slot.target]
            state[len(state)] = {key: torch.from_numpy(tensor.read().copy()) for key, tensor in entries.items()}
        values: dict[str, Any] = {"params": list(range(start, len(state)))}
        if "ada_beta_1" in found.config:
            values["betas"] = (found.config["ada_beta_1"], found.config["ada_beta_2"])
        if "ada_amsgrad" in found.config:
            values["amsgrad"] = found.config["ada_amsgrad"]
        listed.append(values)
    return {
        "version": VERSION,
        "optimizer": {"state": state, "param_groups": listed},
        "scaler": found.values["scaler"],
    }
