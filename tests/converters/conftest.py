"""Legacy files for the tests of this folder: real ones unpacked one at a time, small ones made on the spot."""

from __future__ import annotations

import lzma
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def unpacked(legacy_models: Path, tmp_path: Path):
    """Function: fixture name -> folder with its files unpacked; removed with the test, for they are large."""
    folders = []

    def unpack(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        folders.append(folder)
        for file in sorted((legacy_models / "migrate" / name).iterdir()):
            if file.name.endswith(".stored.keras.xz"):
                continue
            if file.suffix == ".xz":
                with lzma.open(file) as packed, (folder / file.stem).open("wb") as target:
                    shutil.copyfileobj(packed, target, 4 << 20)
            elif file.name.endswith("state.json"):
                shutil.copy(file, folder)
        return folder

    yield unpack
    shutil.rmtree(tmp_path, ignore_errors=True)
