"""The samples of README and docs run as they stand, beside the files that they name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsdeploy.demo.dataset import DataSize, write_dataset

ROOT = Path(__file__).resolve().parents[2]


def samples(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize(
    "page", ["docs/training-data.md", "docs/watching.md", "docs/formats/alignments.md", "docs/formats/face-png.md"]
)
def test_the_samples_of_the_page_run(tmp_path: Path, page: str) -> None:
    if page == "docs/watching.md" and sys.platform != "linux":
        pytest.skip("it would open a window")
    a, _ = write_dataset(tmp_path, 1, DataSize(faces=25, clip_frames=2, held_out=9))
    for source, name in (
        (a.clip, "clip.mp4"),
        (a.alignments, "clip_alignments.fsa"),
        (next(a.faces.glob("*.png")), "clip_000001_0.png"),
    ):
        shutil.copy(source, tmp_path / name)
    headless = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    found = samples(page, "python")
    assert found
    for sample in found:
        subprocess.run([sys.executable, "-c", sample], cwd=tmp_path, env=headless, check=True, timeout=120)


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


def test_the_plugins_of_the_page_work_once_their_package_is_installed(tmp_path: Path) -> None:
    """Installed by hand, as an installer would: the code on the path, the entry points in its dist-info."""
    (toml,) = samples("docs/plugins.md", "toml")
    project = tomllib.loads(toml)["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in found.items()) for group, found in groups
    )
    (info / "entry_points.txt").write_text("".join(lines))
    package = tmp_path / "my_plugins"
    package.mkdir()
    (package / "__init__.py").touch()
    original = ROOT / "plugins/fsdeploy_plugins/models/original.py"
    shutil.copy(original, package / "mine.py")
    (warmer,) = samples("docs/plugins.md", "python")
    (package / "warmer.py").write_text(warmer)
    program = (
        "import numpy as np; from fsdeploy.convert import plugin; from fsdeploy.model.registry import model_class; "
        "face = np.full((8, 8, 3), 0.5, np.float32); mask = np.ones((8, 8), np.float32); "
        "warmer = plugin.build('color', 'warmer', plugin.ColorPlugin); "
        "print(model_class('mine').__module__, warmer(face, face, mask)[0, 0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path, check=True,
        timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["my_plugins.mine", "[0.5", "0.5", "0.55]"]


def test_the_folders_that_the_readme_writes_do_not_meet() -> None:
    commands = "".join(samples("README.md", "sh"))
    trained = re.search(r"fsdeploy train .*? -m (\S+)", commands)
    migrated = re.search(r"fsdeploy migrate .*? -o (\S+)", commands)
    assert trained is not None and migrated is not None and trained[1] != migrated[1]


def test_the_readme_s_table_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"^\| \[[^]]+\]\((docs/[^)]+)\)", readme, re.M))
