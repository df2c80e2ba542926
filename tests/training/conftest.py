"""Drawn faces of two people, and a small model with everything that training must carry: two sizes, mask, dropout."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fsdeploy.demo.dataset import DataSize, write_dataset

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def drawn_faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of 26 face PNGs each."""
    a, b = write_dataset(tmp_path_factory.mktemp("drawn"), 3, DataSize(faces=26, clip_frames=1, held_out=0))
    return a.faces, b.faces
