"""Options of every trainer: how faces are read, varied and shown. They belong to the run, not to the model."""

from __future__ import annotations

from fsdeploy.config.training import AugmentationOptions as Augmentation
from fsdeploy.config.training import LoaderOptions as Loader

__all__ = ["Augmentation", "Loader", "get_defaults"]


def get_defaults() -> dict[str, Augmentation | Loader]:
    """Section name -> its default options."""
    return {"augmentation": Augmentation(), "loader": Loader()}
