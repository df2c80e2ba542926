"""What a legacy file is, told from its outline: no graph is followed, no weight is read."""

from __future__ import annotations

from pathlib import Path

from fsdeploy.model.migration import LegacyFile
from fsdeploy_converters import limits
from fsdeploy_converters.archive import Archive
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.window import Window

_LISTED = 20
_METADATA_BYTES = 4 << 10
_VERSION = 60
"""Characters of a version that are told; real ones have six."""


def look_at_hdf5(path: Path) -> LegacyFile:
    """Keras version of an `.h5` file; the names in it when Keras did not write it.

    Raises:
        FsdeployError: it is damaged or hostile.
    """
    file = Hdf5File(Window.whole(path), limits.KERAS2_HDF5, str(path))
    version, names = file.text("", "keras_version"), file.children[""]
    if version is None and "model_weights" not in names and file.names("", "layer_names") is None:
        return LegacyFile("HDF5, not a Keras model", False, {"names": sorted(names)[:_LISTED]})
    return LegacyFile(f"Keras HDF5, Keras {(version or 'unknown')[:_VERSION]}", True)


def look_at_archive(path: Path) -> LegacyFile:
    """Keras version of a `.keras` file and whether it holds a torch optimizer; the members of another zip archive.

    Raises:
        FsdeployError: it is damaged or hostile.
    """
    archive = Archive(Window.whole(path), str(path))
    members = list(archive.members)
    if "model.weights.h5" not in members or "config.json" not in members:
        return LegacyFile("zip archive, not a Keras model", False, {"members": members[:_LISTED]})
    about = {}
    if "metadata.json" in members:
        about = read_object(archive.read("metadata.json", _METADATA_BYTES), path)
    version = str(about.get("keras_version", "unknown"))[:_VERSION]
    return LegacyFile(f"Keras archive, Keras {version}", True, {"has_optimizer": "optimizer.pt" in members})
