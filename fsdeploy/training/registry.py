"""Finding trainer plugins: entry points of the group `fsdeploy.trainers`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

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
        InputError: no such trainer (names the nearest), or it cannot be imported.
    """
    for point in entry_points(group=_GROUP, name=name):
        try:
            found: type[TrainerBase] = point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(f"the trainer '{name}' ({point.value}) cannot be imported: {error}") from error
        return found
    raise InputError(f"no trainer is called '{name}'{nearest(name, trainer_names())}")
