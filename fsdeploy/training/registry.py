"""Finding trainer plugins: entry points of the group `fsdeploy.trainers`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from fsdeploy.config.entry_point import load_class
from fsdeploy.config.option import nearest
from fsdeploy.errors import InputError

if TYPE_CHECKING:
    from fsdeploy.training.trainer_base import TrainerBase

_GROUP = "fsdeploy.trainers"


def trainer_names() -> list[str]:
    """Names of all installed trainers, sorted."""
    return sorted({point.name for point in entry_points(group=_GROUP)})


def trainer_class(name: str) -> type[TrainerBase]:
    """The trainer plugin of a name.

    Raises:
        InputError: no such trainer (names the nearest).
        PluginError: it cannot be imported or is no trainer.
    """
    for point in entry_points(group=_GROUP, name=name):
        from fsdeploy.training.trainer_base import TrainerBase  # it needs torch, which listing names does not

        return load_class(point, "trainer", TrainerBase)
    raise InputError(f"no trainer is called '{name}'{nearest(name, trainer_names())}")
