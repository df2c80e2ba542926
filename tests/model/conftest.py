"""The tiny model, importable by name in the tests of this folder, and a folder that it was trained in."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "my_model"


@pytest.fixture
def trained(folder: Path) -> Path:
    """A folder after saves at iteration 1 (loss 0.5, so far the lowest) and 2 (loss 0.9)."""
    from tiny_model import ALWAYS, CountingOptimizer, TinyModel, train

    model = TinyModel(folder, training=ALWAYS)
    model.build()
    train(model, 0.5, CountingOptimizer(1))
    train(model, 0.9, CountingOptimizer(2))
    model.close()
    return folder
