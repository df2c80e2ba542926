"""The patch writer: a file and a matrix for every face, whatever the frames are called and however they are spread."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_landmarks

FACE = spec_landmarks((32, 30), 22)


def frames_named(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for n, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((60, 64, 3), 60 + 20 * n, np.uint8))
    return folder


def patches(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.png"))


@pytest.mark.parametrize(("start", "index", "numbers"), [(0, 0, [0, 1, 2]), (0, 1, [1, 2, 3]), (1, 0, [0, 1, 2])])
def test_names_that_count_from_zero_or_one_give_the_numbers_asked_for(
    tmp_path, dimmer, fsdeploy, start: int, index: int, numbers: list[int]
) -> None:
    names = [f"f_{start + n:04d}" for n in range(3)]
    frames = frames_named(tmp_path / "in", names)
    faces = write_landmarks(tmp_path / "l.json", {f"{name}.png": [FACE] for name in names})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-w", "patch",
                            "--set", f"writer.patch.start_index={index}")  # fmt: skip
    assert code == 0, err
    assert patches(tmp_path / "o") == [f"f_00.{n:06d}" for n in numbers]
    levels = [cv2.imread(str(tmp_path / "o" / f"f_00.{n:06d}.png"))[16, 16, 0] for n in numbers]
    assert levels == sorted(levels) and len(set(levels)) == 3  # each is of its own frame


@pytest.mark.parametrize("together", [True, False])
def test_parts_join_to_the_patches_and_matrices_of_one_run(tmp_path, dimmer, fsdeploy, together: bool) -> None:
    names = [f"f_{n:04d}" for n in range(5)]  # the second part must know, too, that names count from 0
    frames = frames_named(tmp_path / "in", names)
    faces = write_landmarks(tmp_path / "l.json", {f"{name}.png": [FACE] for name in names})
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "-w", "patch")
    parts = [tmp_path / ("p" if together else f"p{n}") for n in (1, 2)]
    for n, part in enumerate(parts, 1):
        code, _, err = fsdeploy(*common, "-o", part, "--shard", f"{n}/2")
        assert code == 0, err
    out = parts[0] if together else tmp_path / "o"
    code, _, err = fsdeploy("join", *dict.fromkeys(parts), "-o", out)
    assert code == 0, err
    assert fsdeploy(*common, "-o", tmp_path / "one")[0] == 0
    whole = json.loads((tmp_path / "one" / "matrices.json").read_text())
    assert json.loads((out / "matrices.json").read_text()) == whole and len(whole) == 5
    assert patches(out) == patches(tmp_path / "one") == sorted(whole)


def test_frames_that_would_get_one_name_are_refused(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_named(tmp_path / "in", ["a", "b", "c"])
    faces = write_landmarks(tmp_path / "l.json", {f"{name}.png": [FACE] for name in "abc"})
    common = ("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-w", "patch")
    code, _, err = fsdeploy(*common, "--set", "writer.patch.include_filename=false")
    assert code == 2 and "a.png" in err and "b.png" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "o").exists()
    assert fsdeploy(*common)[0] == 0 and patches(tmp_path / "o") == ["a_00", "b_00", "c_00"]


def test_blank_patches_have_the_size_of_the_others(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_named(tmp_path / "in", ["1", "2", "3"])
    faces = write_landmarks(tmp_path / "l.json", {"2.png": [FACE]})
    assert fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-w", "patch")[0] == 0
    shapes = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape for path in sorted((tmp_path / "o").glob("*.png"))]
    assert shapes == [(32, 32, 4)] * 3
