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


def matrices(folder: Path, part: str = "") -> dict:
    return json.loads((folder / f"matrices{part}.json").read_text())


@pytest.mark.parametrize("ranges", [("0-2", "3-4"), ("0-4", "0-1")])
def test_a_run_that_goes_on_keeps_the_matrices_of_other_frames(tmp_path, dimmer, fsdeploy, ranges) -> None:
    names = [f"f_{n:04d}" for n in range(5)]
    frames = frames_named(tmp_path / "in", names)
    faces = write_landmarks(tmp_path / "l.json", {f"{name}.png": [FACE] for name in names})
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "-w", "patch")
    assert fsdeploy(*common, "-o", tmp_path / "one")[0] == 0
    out = tmp_path / "o"
    assert fsdeploy(*common, "-o", out, "-r", ranges[0])[0] == 0
    code, _, err = fsdeploy(*common, "-o", out, "-r", ranges[1])
    assert code == 2 and "matrices.json" in err and "--resume" in err
    code, _, err = fsdeploy(*common, "-o", out, "-r", ranges[1], "--resume")
    assert code == 0, err
    assert matrices(out) == matrices(tmp_path / "one") and sorted(matrices(out)) == patches(out)


def test_a_face_that_is_gone_takes_its_patch_and_its_matrix_with_it(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_named(tmp_path / "in", ["f_1", "f_2"])
    second = spec_landmarks((20, 20), 22)
    common = ("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", tmp_path / "l.json", "-w", "patch")
    write_landmarks(tmp_path / "l.json", {"f_1.png": [FACE, second], "f_2.png": [FACE, second]})
    assert fsdeploy(*common)[0] == 0
    assert patches(tmp_path / "o") == [f"f_{face}.{n:06d}" for face in ("00", "01") for n in (0, 1)]
    write_landmarks(tmp_path / "l.json", {"f_1.png": [FACE], "f_2.png": [FACE, second]})
    assert fsdeploy(*common, "--resume")[0] == 0
    assert patches(tmp_path / "o") == sorted(matrices(tmp_path / "o")) == ["f_00.000000", "f_00.000001", "f_01.000001"]


def test_damaged_matrices_are_refused_and_left_as_they_are(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_named(tmp_path / "in", ["f_1", "f_2"])
    faces = write_landmarks(tmp_path / "l.json", {"f_1.png": [FACE], "f_2.png": [FACE]})
    common = ("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-w", "patch")
    assert fsdeploy(*common)[0] == 0
    for damaged in ("{", "[]"):
        (tmp_path / "o" / "matrices.json").write_text(damaged)
        code, _, err = fsdeploy(*common, "--resume")
        assert code == 2 and "matrices.json" in err and "--force" in err and len(err.splitlines()) == 1
        assert (tmp_path / "o" / "matrices.json").read_text() == damaged
    (tmp_path / "o" / "convert_report.json").unlink()
    code, _, err = fsdeploy(*common, "--resume")
    assert code == 2 and "no report says how it was made" in err
    assert fsdeploy(*common, "--resume", "--force")[0] == 0 and len(matrices(tmp_path / "o")) == 2


def test_a_part_with_patches_is_replaced_only_when_that_is_asked_for(tmp_path, dimmer, fsdeploy) -> None:
    names = [f"f_{n:04d}" for n in range(4)]
    frames = frames_named(tmp_path / "in", names)
    faces = write_landmarks(tmp_path / "l.json", {f"{name}.png": [FACE] for name in names})
    out = tmp_path / "o"
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces, "-w", "patch")
    assert fsdeploy(*common, "--shard", "1/2")[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    for again in (("--shard", "1/2"), ()):  # the whole holds the part
        code, _, err = fsdeploy(*common, *again)
        assert code == 2 and "matrices.1of2.json exists already" in err
        assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert fsdeploy(*common, "--shard", "2/2")[0] == 0
    assert fsdeploy("join", out, "-o", out)[0] == 0
    code, _, err = fsdeploy(*common, "--shard", "1/3")  # its patches are there, under the names of the joined ones
    assert code == 2 and "matrices.json exists already" in err
    assert fsdeploy(*common, "--shard", "1/2", "--resume")[0] == 0
    assert len(matrices(out, ".1of2")) == 2 and len(matrices(out)) == 4
