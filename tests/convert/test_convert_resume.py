"""Going on where an earlier run ended: what it wrote is kept, what it failed at is done again, and nothing is mixed."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import colour_model, spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert import account
from fsdeploy.convert.frame import OutputFullError
from fsdeploy.convert.images import ImageFolderWriter
from fsdeploy.convert.report import UNFINISHED

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


@pytest.fixture
def interrupted(monkeypatch):
    """Calls a function in such a way that no more than so many images can be written."""

    def call(function, *arguments, images: int):
        left, write = images, ImageFolderWriter.write

        def until_full(self, picture, encoded):
            nonlocal left
            left -= 1
            if left < 0:
                raise OutputFullError("no more fits")
            write(self, picture, encoded)

        with monkeypatch.context() as patched:
            patched.setattr(ImageFolderWriter, "write", until_full)
            code, _, err = function(*arguments)
        assert code == 2 and "no more fits" in err

    return call


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


def test_after_an_interrupted_change_of_looks_all_images_get_the_new_one(
    tmp_path, dimmer, fsdeploy, frames, interrupted
) -> None:
    out, faces = tmp_path / "o", landmarks(tmp_path / "l.json")
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces)
    new = ("-c", "none", "--mask", "none")
    assert fsdeploy(*common, *new, "-o", tmp_path / "expected")[0] == 0
    assert fsdeploy(*common, "-o", out)[0] == 0
    old = {n: (out / f"f_{n}.png").read_bytes() for n in range(4)}
    interrupted(fsdeploy, *common, *new, "-o", out, "--force", images=1)
    assert all((out / f"f_{n}.png").read_bytes() == old[n] for n in (1, 2, 3))  # nothing is lost before it is replaced
    assert report_of(out)["outdated"] == ["f_1.png", "f_2.png", "f_3.png"]
    interrupted(fsdeploy, *common, *new, "-o", out, "--resume", images=1)
    code, text, err = fsdeploy(*common, *new, "-o", out, "--resume")
    assert code == 0 and "2 swapped, 2 kept" in text, err
    for n in range(4):
        assert (out / f"f_{n}.png").read_bytes() == (tmp_path / "expected" / f"f_{n}.png").read_bytes() != old[n]
    assert report_of(out)["complete"] and report_of(out)["outdated"] == []


def test_images_of_another_look_outside_the_range_are_not_kept_later(tmp_path, dimmer, fsdeploy, frames) -> None:
    out, faces = tmp_path / "o", landmarks(tmp_path / "l.json")
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces)
    assert fsdeploy(*common, "-r", "0-1")[0] == 0
    code, text, _ = fsdeploy(*common, "-c", "none", "-r", "2-3")
    assert code == 0 and "2 images are still those of an earlier run" in text
    code, text, _ = fsdeploy(*common, "-c", "none", "--resume")
    assert code == 0 and "2 swapped, 2 kept" in text
    assert [middle(out, n) < 70 for n in range(4)] == [True] * 4 and report_of(out)["outdated"] == []


def test_images_of_the_same_look_outside_the_range_are_kept_later(tmp_path, dimmer, fsdeploy, frames) -> None:
    faces = landmarks(tmp_path / "l.json")
    common = ("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces)
    assert fsdeploy(*common, "-r", "0-1")[0] == 0 and fsdeploy(*common, "-r", "2-2")[0] == 0
    code, text, _ = fsdeploy(*common, "--resume")
    assert code == 0 and "1 swapped, 3 kept" in text


@pytest.mark.parametrize("ending", ["interrupted", "range", "range without resume"])
def test_failed_frames_are_not_forgotten_by_a_run_that_does_not_reach_them(
    tmp_path, dimmer, fsdeploy, frames, interrupted, ending: str
) -> None:
    out, faces = tmp_path / "o", landmarks(tmp_path / "l.json", bad=3)
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-c", "none", "-l", faces)
    assert fsdeploy(*common)[0] == 1 and middle(out, 3) == 103
    landmarks(tmp_path / "l.json")
    if ending == "interrupted":
        (out / "f_1.png").unlink()
        interrupted(fsdeploy, *common, "--resume", images=1)
    elif ending == "range":
        assert fsdeploy(*common, "--resume", "-r", "0-2")[0] == 0
    else:
        assert fsdeploy(*common, "--force", "-r", "0-2")[0] == 0
    assert middle(out, 3) == 103 and report_of(out)["outdated"] == ["f_3.png"]
    code, text, err = fsdeploy(*common, "--resume")
    assert code == 0 and "1 swapped, 3 kept" in text and middle(out, 3) < 70, err
    assert report_of(out)["outdated"] == []


def test_frames_whose_faces_have_changed_are_converted_again(tmp_path, dimmer, fsdeploy, frames) -> None:
    out, faces = tmp_path / "o", tmp_path / "l.json"
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-c", "none", "-l", faces)
    write_landmarks(faces, {f"f_{n}.png": [FACE] for n in range(3)})
    assert fsdeploy(*common)[0] == 0 and middle(out, 1) < 70 and middle(out, 3) == 103
    # One face gone, one moved, one new; the third frame's is the same, named without its extension.
    write_landmarks(faces, {"f_0": [spec_landmarks((20, 20), 22)], "f_2": [FACE], "f_3": [FACE]})
    code, text, err = fsdeploy(*common, "--resume")
    assert code == 0 and "2 swapped, 1 unchanged, 1 kept" in text, err
    assert middle(out, 1) == 101 and middle(out, 3) < 70
    code, text, _ = fsdeploy(*common, "--resume")
    assert code == 0 and "4 kept" in text


@pytest.mark.parametrize("named", ["c_{:06d}.mp4", "c_{:06d}", "C_{:06d}.MP4", ""])
def test_images_of_a_video_whose_faces_have_changed_are_converted_again(tmp_path, dimmer, fsdeploy, named: str) -> None:
    clip = write_clip(tmp_path / "c.mp4", [np.full((60, 64, 3), 100, np.uint8)] * 4)
    out, faces = tmp_path / "o", tmp_path / "l.json"
    names = [named.format(n + 1) or str(n) for n in range(4)]
    common = ("convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces)
    write_landmarks(faces, {name: [FACE] for name in names})
    assert fsdeploy(*common)[0] == 0
    write_landmarks(faces, {name: [FACE] for name in names[:3]})
    code, text, err = fsdeploy(*common, "--resume")
    assert code == 0 and "1 unchanged, 3 kept" in text, err


@pytest.mark.parametrize("name", ["o.mp4", "o.gif"])
def test_an_output_that_is_written_as_a_whole_cannot_be_resumed(tmp_path, dimmer, fsdeploy, frames, name: str) -> None:
    faces = landmarks(tmp_path / "l.json")
    before = sorted(tmp_path.iterdir())
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / name, "-l", faces, "--resume")
    assert code == 2 and name in err and "leave --resume out" in err and len(err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_failures_that_a_killed_run_had_no_time_to_report_are_not_kept(
    tmp_path, dimmer, fsdeploy, frames, monkeypatch
) -> None:
    out, faces = tmp_path / "o", landmarks(tmp_path / "l.json", bad=2)
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces)
    assert fsdeploy(*common, "-r", "0-0")[0] == 0
    with monkeypatch.context() as killed:  # only the report at its start is written
        killed.setattr(account, "EVERY_S", 3600.0)
        killed.setattr(account.Account, "finish", lambda self, **named: None)
        fsdeploy(*common, "--resume")
    assert report_of(out)["failed"] == [] and report_of(out)["stopped"] == UNFINISHED and middle(out, 2) == 102
    assert fsdeploy(*common, "--resume", "--on-error", "stop")[0] == 1
    code, _, _ = fsdeploy(*common, "--resume")
    assert code == 1 and [entry["frame"] for entry in report_of(out)["failed"]] == ["f_2.png"]
    done = report_of(out)["frames"]  # the run before stopped at the failure: the frame behind it was still in doubt
    assert (done["kept"], done["swapped"], done["failed"]) == (2, 1, 1)


def test_a_joined_report_names_the_outdated_images_of_all_parts(tmp_path, dimmer, fsdeploy, frames) -> None:
    faces, out = landmarks(tmp_path / "l.json"), tmp_path / "o"
    common = ("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces)
    assert [fsdeploy(*common, "--shard", shard)[0] for shard in ("1/2", "2/2")] == [0, 0]
    part = out / "convert_report.2of2.json"
    part.write_text(json.dumps({**json.loads(part.read_text()), "outdated": ["f_3.png"]}))
    assert fsdeploy("join", out, "-o", out)[0] == 0 and report_of(out)["outdated"] == ["f_3.png"]
