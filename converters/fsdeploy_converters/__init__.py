"""Legacy formats to a model folder, one file per format.

`OptimizerMigrate`, `Legacy` and `PatchKerasConfig` are the names of the original API; each works on files alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsdeploy_converters.legacy import Legacy
    from fsdeploy_converters.optimizer_migrate import OptimizerMigrate
    from fsdeploy_converters.patch_config import PatchKerasConfig

__all__ = ["Legacy", "OptimizerMigrate", "PatchKerasConfig"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: finding converters must not cost the import of all of them.
    import importlib

    modules = {"Legacy": "legacy", "OptimizerMigrate": "optimizer_migrate", "PatchKerasConfig": "patch_config"}
    if name not in modules:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"fsdeploy_converters.{modules[name]}"), name)
