"""The samples of README and docs run as they stand, beside the files that they name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsdeploy.demo.dataset import DataSize, write_dataset

ROOT = Path(__file__).resolve().parents[2]


def samples(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/embedding.md"])
def test_the_sample_swaps_the_face_of_the_first_frame(files, tmp_path: Path, page: str) -> None:
    write_dataset(tmp_path, 1, DataSize(faces=1, clip_frames=2, held_out=9))
    shutil.copy(files.plain, tmp_path / "a2b.onnx")
    (sample,) = samples(page, "python")
    subprocess.run([sys.executable, "-c", sample], cwd=tmp_path, check=True, timeout=120)
    frame = cv2.VideoCapture(str(tmp_path / "clip_a.mp4")).read()[1]
    swapped = cv2.imread(str(tmp_path / "swapped.png"))
    assert frame is not None and swapped is not None and swapped.shape == frame.shape
    changed = (swapped != frame).any(axis=2)
    assert 0.02 < changed.mean() < 0.6, "the face, and no more than it"
    assert np.abs(swapped.astype(int) - frame)[changed].mean() > 3


def test_the_folders_that_the_readme_writes_do_not_meet() -> None:
    commands = "".join(samples("README.md", "sh"))
    trained = re.search(r"fsdeploy train .*? -m (\S+)", commands)
    migrated = re.search(r"fsdeploy migrate .*? -o (\S+)", commands)
    assert trained is not None and migrated is not None and trained[1] != migrated[1]


def test_the_readme_s_table_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"^\| \[[^]]+\]\((docs/[^)]+)\)", readme, re.M))
