"""What a user is told when faces are missing, or were found in a video of another name."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.faces.alignments import Alignments, write_alignments
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource

FACE = spec_landmarks((32, 30), 22)
RECORD = FaceRecord(0, 0, 5, 5, FACE, {}, {}, None, {})
GREY = np.full((60, 64, 3), 180, np.uint8)


def face_folder(folder: Path, stem: str, numbers: list[int]) -> Path:
    folder.mkdir()
    for number in numbers:
        name = f"{stem}_{number:06d}"
        source = FaceSource(2.4, f"{name}_0.png", 0, f"{name}.mp4", False, (60, 64))
        write_face(folder / f"{name}_0.png", np.zeros((16, 16, 3), np.uint8), FaceHeader(RECORD, source))
    return folder


def alignments(path: Path, stem: str, numbers: list[int]) -> Path:
    write_alignments(path, Alignments({f"{stem}_{number:06d}.mp4": [RECORD] for number in numbers}))
    return path


def test_frames_without_a_face_between_swapped_ones_are_told_of_with_the_remedy(tmp_path, dimmer, fsdeploy) -> None:
    """Faces of frames 2, 4 and 7 of 9: frames 3, 5 and 6 lie between, 1, 8 and 9 do not."""
    clip = write_clip(tmp_path / "c.mp4", [GREY] * 9)
    faces = face_folder(tmp_path / "faces_a", "c", [2, 4, 7])
    code, out, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-f", faces, "-o", tmp_path / "o.mp4")
    assert code == 0, err
    told = [line for line in out.splitlines() if "faces_a" in line]
    assert len(told) == 1 and "3 of 9 frames" in told[0] and "flicker" in told[0] and "--alignments" in told[0]
    notes = json.loads((tmp_path / "o.convert_report.json").read_text())["notes"]
    assert list(notes) == told


def test_faces_that_thin_out_an_alignments_file_are_told_of_as_well(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", [GREY] * 5)
    faces = face_folder(tmp_path / "faces_a", "c", [1, 5])
    known = alignments(tmp_path / "c.fsa", "c", [1, 2, 3, 4, 5])
    options = ("convert", "-m", dimmer, "-i", clip, "-a", known)
    code, out, err = fsdeploy(*options, "-f", faces, "-o", tmp_path / "o.mp4")
    assert code == 0 and "3 of 5 frames" in out and "c.fsa without --faces" in out, err
    code, out, err = fsdeploy(*options, "-o", tmp_path / "all.mp4")
    assert code == 0 and "5 swapped" in out and "flicker" not in out, err


@pytest.mark.parametrize("numbers", [[1, 2, 3], [4, 5], [3]])
def test_frames_before_and_after_all_faces_are_nothing_to_tell_of(tmp_path, dimmer, fsdeploy, numbers) -> None:
    clip = write_clip(tmp_path / "c.mp4", [GREY] * 6)
    faces = face_folder(tmp_path / "faces_a", "c", numbers)
    code, out, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-f", faces, "-o", tmp_path / "o.mp4")
    assert code == 0 and "flicker" not in out, err


def test_a_scene_without_the_person_is_nothing_to_tell_of_where_the_alignments_are_whole(
    tmp_path, dimmer, fsdeploy
) -> None:
    clip = write_clip(tmp_path / "c.mp4", [GREY] * 5)
    alignments(tmp_path / "c_alignments.fsa", "c", [1, 5])
    code, out, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4")
    assert code == 0 and "3 unchanged" in out and "flicker" not in out, err


@pytest.mark.parametrize("kind", ["faces", "alignments", "landmarks"])
def test_following_the_remedy_for_a_renamed_video_makes_it_work(tmp_path, dimmer, fsdeploy, kind: str) -> None:
    clip = write_clip(tmp_path / "holiday.mp4", [GREY] * 3)
    options = {
        "faces": ("-f", face_folder(tmp_path / "f", "clip_A", [1, 2, 3])),
        "alignments": ("-a", alignments(tmp_path / "c.fsa", "clip_A", [1, 2, 3])),
        "landmarks": ("-l", write_landmarks(tmp_path / "l.json", {f"clip_A_{n:06d}.mp4": [FACE] for n in (1, 2, 3)})),
    }[kind]
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, *options, "-o", tmp_path / "o.mp4")
    assert code == 2 and "called 'clip_A'" in err and not (tmp_path / "o.mp4").exists()
    assert "rename holiday.mp4 to clip_A.mp4" in err
    shutil.move(clip, tmp_path / "clip_A.mp4")
    code, out, err = fsdeploy(
        "convert", "-m", dimmer, "-i", tmp_path / "clip_A.mp4", *options, "-o", tmp_path / "o.mp4"
    )
    assert code == 0 and "3 swapped" in out, err


def test_a_video_whose_name_changed_its_case_only_is_taken_for_the_same(tmp_path, dimmer, fsdeploy, caplog) -> None:
    clip = write_clip(tmp_path / "clip_a.mp4", [GREY] * 3)
    faces = face_folder(tmp_path / "faces", "Clip_A", [1, 3])
    with caplog.at_level("WARNING"):
        code, out, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-f", faces, "-c", "none", "-o", tmp_path / "o")
    assert code == 0 and "2 swapped, 1 unchanged" in out, err
    assert "'Clip_A'" in caplog.text and "clip_a.mp4" in caplog.text
    dark = [cv2.imread(str(path))[30, 32, 0] < 150 for path in sorted((tmp_path / "o").glob("*.png"))]
    assert dark == [True, False, True]
    report = json.loads((tmp_path / "o" / "convert_report.json").read_text())
    assert sorted(report["landmarks"]["digests"]) == ["clip_a_000001.mp4", "clip_a_000003.mp4"]  # --resume goes by them


def test_names_that_come_from_no_video_lead_to_no_advice_to_rename(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", [GREY] * 3)
    faces = write_landmarks(tmp_path / "l.json", {"portrait.png": [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", tmp_path / "o.mp4")
    assert code == 2 and "portrait.png" in err and "rename" not in err
