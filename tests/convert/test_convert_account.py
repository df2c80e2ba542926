"""Every frame that is read is accounted for: written in its place, and named when something was wrong with it."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert import account, checks
from fsdeploy.convert.report import Report

FACE = spec_landmarks((32, 30), 22)


def folder_of_frames(folder: Path, count: int, broken: set[int] = frozenset(), start: int = 1, step: int = 1) -> Path:
    folder.mkdir()
    for n in range(count):
        path = folder / f"f_{start + n * step:04d}.png"
        if n in broken:
            path.write_bytes(b"" if n % 2 else b"\x89PNG\r\n\x1a\n damaged")
        else:
            cv2.imwrite(str(path), np.full((60, 64, 3), 40 + n % 200, np.uint8))
    return folder


def test_a_thousand_frames_with_thirty_broken_ones_are_all_written_and_the_broken_ones_named(
    tmp_path, dimmer, fsdeploy
) -> None:
    broken = {33 * n + 5 for n in range(30)}
    frames = folder_of_frames(tmp_path / "in", 1000, broken)
    faces = write_landmarks(tmp_path / "l.json", {f"f_{n + 1:04d}.png": [FACE] for n in range(1000)})
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "--set", "writer.opencv.format=jpg")
    code, out, err = fsdeploy(*common, "-o", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "convert_report.json").read_text())
    assert code == 1
    assert "30 frames failed" in err
    assert report["frames"] == {
        "read": 1000, "written": 1000, "swapped": 970, "unchanged": 0, "kept": 0, "skipped": 0, "failed": 30,
    }  # fmt: skip
    assert [entry["frame"] for entry in report["failed"]] == [f"f_{n + 1:04d}.png" for n in sorted(broken)]
    written = sorted((tmp_path / "out").glob("*.jpg"))
    assert len(written) == 1000 and all(cv2.imread(str(path)) is not None for path in written[::37])
    assert "1000 frames read, 1000 written" in out


def test_a_broken_frame_of_a_video_made_of_images_shows_the_one_before(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 12, {0, 5})
    faces = write_landmarks(tmp_path / "l.json", {"f_0001.png": [FACE]})
    code, _, _ = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o.mp4", "-l", faces, "--fps", 25)
    with av.open(str(tmp_path / "o.mp4")) as video:
        pictures = [frame.to_ndarray(format="gray").mean() for frame in video.decode(video=0)]
    assert code == 1 and len(pictures) == 12
    assert pictures[0] < 20 and abs(pictures[5] - pictures[4]) < 2


@pytest.mark.parametrize(("start", "step"), [(0, 1), (100, 1), (7, 3)])
def test_frame_names_may_start_anywhere_and_have_gaps(tmp_path, dimmer, fsdeploy, start: int, step: int) -> None:
    frames = folder_of_frames(tmp_path / "in", 9, start=start, step=step)
    faces = write_landmarks(tmp_path / "l.json", {f"f_{start:04d}.png": [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 0, err
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 9


def test_frames_hold_no_one_or_three_faces(tmp_path, dimmer, fsdeploy) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((80, 200, 3), 200, np.uint8))
    places = [spec_landmarks((x, 40), 30) for x in (35, 100, 165)]
    faces = write_landmarks(tmp_path / "l.json", {"0.png": [], "1.png": places[:1], "2.png": places})
    code, out, err = fsdeploy("convert", "-m", dimmer, "-i", folder, "-o", tmp_path / "o", "-l", faces, "-c", "none")
    assert code == 0, err
    pictures = [cv2.imread(str(tmp_path / "o" / f"{n}.png")) for n in range(3)]
    assert (pictures[0] == 200).all()
    dark = [[picture[40, x, 0] < 150 for x in (35, 100, 165)] for picture in pictures]
    assert dark == [[False, False, False], [True, False, False], [True, True, True]]
    assert "2 swapped, 1 unchanged" in out and "4 faces" in out and "more than one face" in out


def test_frames_outside_the_ranges_are_left_out_or_kept_as_they_are(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 10)
    faces = write_landmarks(tmp_path / "l.json", {f"f_{n + 1:04d}.png": [FACE] for n in range(10)})
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "-r", "2-3", "-r", "8-8", "-c", "none")
    assert fsdeploy(*common, "-o", tmp_path / "cut")[0] == 0
    assert sorted(p.name for p in (tmp_path / "cut").glob("*.png")) == ["f_0002.png", "f_0003.png", "f_0008.png"]
    assert fsdeploy(*common, "-o", tmp_path / "all", "-k")[0] == 0
    report = json.loads((tmp_path / "all" / "convert_report.json").read_text())["frames"]
    assert (report["written"], report["swapped"], report["skipped"]) == (10, 3, 7)
    for n in range(1, 11):
        before = cv2.imread(str(frames / f"f_{n:04d}.png"))
        after = cv2.imread(str(tmp_path / "all" / f"f_{n:04d}.png"))
        assert np.array_equal(before, after) == (n not in (2, 3, 8))


def test_a_range_that_is_none_is_refused(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 2)
    faces = write_landmarks(tmp_path / "l.json", {"f_0001.png": [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-r", "9-3")
    assert code == 2 and "first-last" in err
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces, "-r", "50-60")
    assert code == 2 and "ranges" in err


def test_resuming_keeps_what_is_there_and_converts_the_rest(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 8)
    faces = write_landmarks(tmp_path / "l.json", {f"f_{n + 1:04d}.png": [FACE] for n in range(8)})
    common = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "-o", tmp_path / "o")
    fsdeploy(*common)
    kept = tmp_path / "o" / "f_0002.png"
    before = kept.stat().st_mtime_ns
    whole = (tmp_path / "o" / "f_0005.png").read_bytes()
    (tmp_path / "o" / "f_0003.png").unlink()
    (tmp_path / "o" / "f_0005.png").write_bytes(whole[:-20])
    code, out, _ = fsdeploy(*common, "--resume")
    assert code == 0 and kept.stat().st_mtime_ns == before
    assert (tmp_path / "o" / "f_0003.png").exists() and (tmp_path / "o" / "f_0005.png").read_bytes() == whole
    assert "8 written" in out and "2 swapped, 6 kept" in out


def test_a_face_without_sense_fails_its_frame_only(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 3)
    nonsense = np.full((68, 2), 5.0)
    faces = write_landmarks(tmp_path / "l.json", {f"f_000{n}.png": [nonsense if n == 2 else FACE] for n in (1, 2, 3)})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces)
    report = json.loads((tmp_path / "o" / "convert_report.json").read_text())
    assert code == 1 and [entry["frame"] for entry in report["failed"]] == ["f_0002.png"]
    same = cv2.imread(str(tmp_path / "o" / "f_0002.png")) == cv2.imread(str(frames / "f_0002.png"))
    assert same.all() and "1 frame failed" in err


def test_stopping_at_the_first_failed_frame_can_be_asked_for(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 40, {3})
    faces = write_landmarks(tmp_path / "l.json", {"f_0001.png": [FACE]})
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o.mp4", "-l", faces, "--on-error", "stop"
    )
    assert code == 1 and "f_0004.png" in err
    with av.open(str(tmp_path / "o.mp4")) as video:  # playable up to there
        assert 3 <= sum(1 for _ in video.decode(video=0)) <= 5


def test_landmarks_of_frames_that_do_not_exist_are_counted_not_fatal(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 3)
    faces = write_landmarks(tmp_path / "l.json", {f"f_{n:04d}.png": [FACE] for n in (1, 2, 77, 78)})
    code, out, _ = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces)
    assert code == 0 and "2 swapped, 1 unchanged" in out and "2 frames with landmarks do not exist" in out


def test_landmarks_of_another_video_are_refused(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "mine.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3)
    faces = write_landmarks(tmp_path / "l.json", {"other_000001.mp4": [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 2 and "other_000001.mp4" in err and not (tmp_path / "o.mp4").exists()


def test_the_source_is_never_touched(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 4, {2})
    faces = write_landmarks(tmp_path / "l.json", {"f_0001.png": [FACE]})
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (*frames.iterdir(), faces)}
    fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o", "-l", faces)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (*frames.iterdir(), faces)} == before
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", frames, "-l", faces)
    assert code == 2 and "choose another output" in err
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (*frames.iterdir(), faces)} == before


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 2)
    faces = write_landmarks(tmp_path / "l.json", {"f_0001.png": [FACE]})
    (tmp_path / "file").write_bytes(b"no folder")
    for output in (tmp_path / "file" / "o", tmp_path / "file" / "o.mp4"):
        code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", output, "-l", faces)
        assert code == 2 and "cannot write" in err and len(err.splitlines()) == 1


def test_an_existing_video_is_replaced_only_when_asked(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 2)
    faces = write_landmarks(tmp_path / "l.json", {"f_0001.png": [FACE]})
    (tmp_path / "o.mp4").write_bytes(b"precious")
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 2 and "--force" in err and (tmp_path / "o.mp4").read_bytes() == b"precious"
    assert fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / "o.mp4", "-l", faces, "--force")[0] == 0


def test_parts_written_into_one_folder_are_joined_by_their_reports(tmp_path, dimmer, fsdeploy) -> None:
    frames = folder_of_frames(tmp_path / "in", 7, {4})
    faces = write_landmarks(tmp_path / "l.json", {f"f_{n + 1:04d}.png": [FACE] for n in range(7)})
    out = tmp_path / "o"
    codes = [
        fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", out, "-l", faces, "--shard", f"{n}/2")[0] for n in (2, 1)
    ]
    assert codes == [1, 0]  # the broken frame is in the second half
    code, text, err = fsdeploy("join", out, "-o", out)
    assert code == 1 and "2 parts, 7 frames, 1 failed" in text and "report names them" in err
    report = json.loads((out / "convert_report.json").read_text())
    assert report["frames"]["swapped"] == 6 and [entry["frame"] for entry in report["failed"]] == ["f_0005.png"]
    assert len(list(out.glob("*.png"))) == 7
    apart = tmp_path / "apart"
    code, _, _ = fsdeploy("join", out, "-o", apart)
    assert code == 1 and len(list(apart.glob("*.png"))) == 7
    (out / "convert_report.1of2.json").unlink()
    code, _, err = fsdeploy("join", out, "-o", out)
    assert code == 2 and "part 1 of 2 is missing" in err


@pytest.mark.parametrize("kind", ["folder", "video", "video that only decoding counts"])
def test_a_range_that_holds_no_frame_changes_nothing(tmp_path, dimmer, fsdeploy, monkeypatch, kind: str) -> None:
    source = folder_of_frames(tmp_path / "in", 3)
    if kind != "folder":
        source = write_clip(tmp_path / "c.mp4", [np.full((60, 64, 3), 100, np.uint8)] * 3)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE], "1": [FACE], "2": [FACE]})
    common = ("convert", "-m", dimmer, "-i", source, "-o", tmp_path / "o", "-l", faces)
    if kind.endswith("counts"):
        monkeypatch.setattr(checks, "frame_times", lambda path: None)
    assert fsdeploy(*common)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    for more in (("--resume",), ("--force",)):
        code, _, err = fsdeploy(*common, "-r", "900-1000", *more)
        assert code == 2 and "none of its frames lies in the ranges" in err and len(err.splitlines()) == 1
        assert {path: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before
    code, _, _ = fsdeploy(*common[:-4], "-o", tmp_path / "none.mp4", "-l", faces, "-r", "900-1000")
    assert code == 2 and not list(tmp_path.glob("none*"))


def test_the_report_is_not_written_again_at_every_failure(tmp_path, dimmer, fsdeploy, monkeypatch) -> None:
    frames = folder_of_frames(tmp_path / "in", 40, set(range(1, 40)))
    faces = write_landmarks(tmp_path / "l.json", {"f_0001.png": [FACE]})
    written: list[int] = []
    monkeypatch.setattr(Report, "write", lambda report, path: written.append(report.written))
    for least, expected in ((3600.0, [0, 40]), (0.0, [*range(41), 40])):
        written.clear()
        monkeypatch.setattr(account, "EVERY_S", least)
        monkeypatch.setattr(account, "SHARE", 1e9)
        assert fsdeploy("convert", "-m", dimmer, "-i", frames, "-o", tmp_path / str(least), "-l", faces)[0] == 1
        assert written == expected
