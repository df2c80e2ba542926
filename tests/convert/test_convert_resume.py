"""Going on where an earlier run ended: what it wrote is kept, what it failed at is done again, and nothing is mixed."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import colour_model, spec_landmarks, write_landmarks

FACE = spec_landmarks((32, 30), 22)
NONSENSE = np.full((68, 2), 5.0)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(4):
        cv2.imwrite(str(folder / f"f_{n}.png"), np.full((60, 64, 3), 100 + n, np.uint8))
    return folder


def landmarks(path: Path, bad: int | None = None) -> Path:
    return write_landmarks(path, {f"f_{n}.png": [NONSENSE if n == bad else FACE] for n in range(4)})


def middle(folder: Path, n: int) -> int:
    return int(cv2.imread(str(folder / f"f_{n}.png"))[30, 32, 0])


def report_of(folder: Path) -> dict:
    return json.loads((folder / "convert_report.json").read_text())


def test_a_frame_that_failed_is_converted_again(tmp_path, dimmer, fsdeploy, frames) -> None:
    out = tmp_path / "o"
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-c", "none", "-l", tmp_path / "l.json")
    landmarks(tmp_path / "l.json", bad=2)
    assert fsdeploy(*common)[0] == 1 and middle(out, 2) == 102
    code, _, _ = fsdeploy(*common, "--resume")  # nothing was corrected: it fails again, and says so
    assert code == 1 and [entry["frame"] for entry in report_of(out)["failed"]] == ["f_2.png"]
    landmarks(tmp_path / "l.json")
    before = (out / "f_1.png").stat().st_mtime_ns
    code, text, err = fsdeploy(*common, "--resume")
    assert code == 0, err
    assert middle(out, 2) < 70 and (out / "f_1.png").stat().st_mtime_ns == before
    report = report_of(out)
    assert report["complete"] and report["failed"] == []
    assert (report["frames"]["swapped"], report["frames"]["kept"], report["frames"]["unchanged"]) == (1, 3, 0)
    assert "do not exist" not in text


@pytest.mark.parametrize(
    ("options", "named"),
    [(("-c", "mkl"), "look"), (("--scale", "50"), "output setting"), (("--no-mark",), "mark"), ((), "model")],
)
def test_pictures_of_two_kinds_are_not_mixed(tmp_path, dimmer, fsdeploy, frames, options, named: str) -> None:
    out, faces = tmp_path / "o", landmarks(tmp_path / "l.json")
    common = ("convert", "-i", frames, "-o", out, "-l", faces)
    assert fsdeploy(*common, "-m", dimmer, "-c", "none")[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    (out / "f_3.png").unlink()
    other = dimmer if options else colour_model(tmp_path / "other.onnx", size=32, output=32, gain=(0.9, 0.9, 0.9))
    code, _, err = fsdeploy(*common, "-m", other, *(options or ("-c", "none")), "--resume")
    assert code == 2 and named in err and len(err.splitlines()) == 1
    del before[out / "f_3.png"]
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_images_without_a_report_are_not_taken_for_converted_ones(tmp_path, dimmer, fsdeploy, frames) -> None:
    out, faces = tmp_path / "o", landmarks(tmp_path / "l.json")
    out.mkdir()
    cv2.imwrite(str(out / "f_1.png"), np.full((60, 64, 3), 7, np.uint8))
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces, "--resume")
    code, _, err = fsdeploy(*common)
    assert code == 2 and "f_1.png" in err and "--resume" in err and middle(out, 1) == 7
    assert fsdeploy(*common, "--force")[0] == 0 and middle(out, 1) != 7
    (out / "convert_report.json").write_text("{}")
    code, _, err = fsdeploy(*common)
    assert code == 2 and "convert_report.json" in err and len(err.splitlines()) == 1


def test_a_run_may_always_be_started_with_resume(tmp_path, dimmer, fsdeploy, frames) -> None:
    faces = landmarks(tmp_path / "l.json")
    common = ("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "--resume")
    assert [fsdeploy(*common, "--shard", shard)[0] for shard in ("1/2", "2/2", "2/2")] == [0, 0, 0]
    assert fsdeploy("join", tmp_path / "o", "-o", tmp_path / "o")[0] == 0
    code, text, _ = fsdeploy(*common)  # the parts' reports tell how their images were made
    assert code == 0 and "4 kept" in text


def test_an_unreadable_frame_repeats_a_picture_that_an_earlier_run_wrote(tmp_path, dimmer, fsdeploy, frames) -> None:
    out, faces = tmp_path / "o", landmarks(tmp_path / "l.json")
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces)
    assert fsdeploy(*common, "-r", "0-1")[0] == 0
    (frames / "f_2.png").write_bytes(b"damaged")
    assert fsdeploy(*common, "--resume")[0] == 1
    assert (out / "f_2.png").read_bytes() == (out / "f_1.png").read_bytes()
    assert [entry["frame"] for entry in report_of(out)["failed"]] == ["f_2.png"]


def test_the_report_of_a_folder_lies_in_it_whatever_its_name(tmp_path, dimmer, fsdeploy, frames) -> None:
    faces = landmarks(tmp_path / "l.json")
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces)
    before = sorted(path.name for path in tmp_path.iterdir())
    out, parts = tmp_path / "o.v2", tmp_path / "o.v3"
    assert fsdeploy(*common, "-o", out, "-r", "0-1")[0] == 0
    code, text, err = fsdeploy(*common, "-o", out, "--resume")
    assert code == 0 and "2 swapped, 2 kept" in text, err
    assert [fsdeploy(*common, "-o", parts, "--shard", f"{n}/2")[0] for n in (1, 2)] == [0, 0]
    assert fsdeploy("join", parts, "-o", parts)[0] == 0
    assert fsdeploy("join", parts, "-o", tmp_path / "o.v4")[0] == 0
    assert all(report_of(folder)["complete"] for folder in (out, parts, tmp_path / "o.v4"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "o.v2", "o.v3", "o.v4"])
