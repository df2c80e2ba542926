"""Which faces belong to which frame: damaged files, skipped faces and numbers in names lead to no wrong swap."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert import align
from fsdeploy.convert.align import UpcomingAlignments
from fsdeploy.convert.frame import Frame
from fsdeploy.convert.landmarks import FaceIndex, load_faces, read_landmarks
from fsdeploy.errors import InputError
from fsdeploy.faces.alignments import Alignments, write_alignments
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource

FACE = spec_landmarks((32, 30), 22)


def record(shift: float = 0.0) -> FaceRecord:
    return FaceRecord(0, 0, 5, 5, FACE + np.float32(shift), {}, {}, None, {})


def face_png(path: Path, frame_name: str, index: int = 0, dims: tuple[int, int] | None = (60, 64)) -> Path:
    source = FaceSource(2.4, path.name, index, frame_name, False, dims)
    write_face(path, np.zeros((16, 16, 3), np.uint8), FaceHeader(record(index), source))
    return path


def frames_in(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        cv2.imwrite(str(folder / name), np.full((60, 64, 3), 180, np.uint8))
    return folder


def swapped(out: Path) -> list[str]:
    """Names of the pictures whose middle the model has darkened."""
    return [path.name for path in sorted(out.glob("*.png")) if cv2.imread(str(path))[30, 32, 0] < 150]


def test_a_face_that_the_alignments_cannot_give_does_not_shift_the_others(tmp_path, monkeypatch) -> None:
    """The frame holds a bad face, then two good ones; the folder keeps the first of the good ones, which is face 1."""
    from fsdeploy.convert import landmarks

    known = Alignments({"c_000001.mp4": [record(1), record(2)]}, positions={"c_000001.mp4": [1, 2]})
    monkeypatch.setattr(landmarks, "read_alignments", lambda path: known)
    (tmp_path / "faces").mkdir()
    face_png(tmp_path / "faces" / "x.png", "c_000001.mp4", 1)
    found = load_faces(tmp_path / "c.mp4", tmp_path / "c.fsa", tmp_path / "faces").frames["c_000001.mp4"]
    assert [float(face.landmarks[0, 0] - FACE[0, 0]) for face in found] == pytest.approx([1])


def test_the_place_of_a_skipped_face_is_known_from_the_file_itself(tmp_path) -> None:
    write_alignments(tmp_path / "c.fsa", Alignments({"c_000001.mp4": [record(0), record(1), record(2)]}))
    document = tmp_path / "c.json"
    faces = [{"x": 0, "y": 0, "w": 5, "h": 5, "landmarks_xy": (FACE + n).tolist()} for n in range(3)]
    faces[0]["landmarks_xy"] = [[float("1e9")] * 2] * 68
    entry = {"faces": [{**face, "mask": {}, "identity": {}, "thumb": None} for face in faces], "video_meta": {}}
    document.write_text(json.dumps({"__meta__": {"version": 2.4}, "__data__": {"c_000001.mp4": entry}}))
    (tmp_path / "faces").mkdir()
    face_png(tmp_path / "faces" / "x.png", "c_000001.mp4", 2)
    for alignments in (tmp_path / "c.fsa", document):
        found = load_faces(tmp_path / "c.mp4", alignments, tmp_path / "faces").frames["c_000001.mp4"]
        assert [float(face.landmarks[0, 0] - FACE[0, 0]) for face in found] == pytest.approx([2])


def test_a_damaged_face_file_costs_its_own_face_only_and_is_named(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "faces").mkdir()
    face_png(tmp_path / "faces" / "a_0.png", "a.png")
    whole = face_png(tmp_path / "faces" / "b_0.png", "b.png").read_bytes()
    (tmp_path / "faces" / "b_0.png").write_bytes(whole[:60])
    (tmp_path / "faces" / "._a_0.png").write_bytes(b"\0\5\x16\7")  # what another system leaves beside its files
    options = ("-m", dimmer, "-i", frames, "-f", tmp_path / "faces", "-c", "none")
    code, out, err = fsdeploy("convert", *options, "-o", tmp_path / "o")
    assert swapped(tmp_path / "o") == ["a.png"]
    assert code == 1 and "b_0.png" in out and "._a_0" not in out + err
    report = json.loads((tmp_path / "o" / "convert_report.json").read_text())
    assert not report["complete"] and len(report["damage"]) == 1 and "b_0.png" in report["damage"][0]
    (tmp_path / "faces" / "a_0.png").write_bytes(whole[:60])
    code, _, err = fsdeploy("convert", *options, "-o", tmp_path / "none")
    assert code == 2 and "a_0.png" in err and not (tmp_path / "none").exists()


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_names_of_digits_alone_are_names_where_frames_have_them(tmp_path, dimmer, fsdeploy, suffix: str) -> None:
    frames = frames_in(tmp_path / "in", "000001.png", "000002.png", "000003.png")
    path = tmp_path / f"l.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps({"000002": [FACE.tolist()]}))
    elif suffix == "jsonl":
        path.write_text(json.dumps({"key": "000002", "landmarks": FACE.tolist()}))
    else:
        path.write_text("000002,0," + ",".join(map(str, FACE.ravel())))
    options = ("-m", dimmer, "-i", frames, "-l", path, "-c", "none")
    code, _, err = fsdeploy("convert", *options, "-o", tmp_path / "o")
    assert code == 0, err
    assert swapped(tmp_path / "o") == ["000002.png"]


@pytest.mark.parametrize("key", ["1", "01"])
def test_numbers_are_places_from_zero_where_no_frame_has_that_name(tmp_path, dimmer, fsdeploy, key: str) -> None:
    frames = frames_in(tmp_path / "in", "000001.png", "000002.png", "000003.png")
    faces = write_landmarks(tmp_path / "l.json", {key: [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-l", faces, "-c", "none", "-o", tmp_path / "o")
    assert code == 0, err
    assert swapped(tmp_path / "o") == ["000002.png"]


def test_a_number_that_may_be_a_name_or_a_place_is_not_guessed(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "1.png", "2.png", "3.png")
    options = ("convert", "-m", dimmer, "-i", frames, "-c", "none")
    faces = write_landmarks(tmp_path / "l.json", {"1": [FACE], "2": [FACE]})
    code, _, err = fsdeploy(*options, "-l", faces, "-o", tmp_path / "o")
    assert code == 2 and "'1.png'" in err and not (tmp_path / "o").exists()
    faces = write_landmarks(tmp_path / "named.json", {"1.png": [FACE], "2.png": [FACE]})
    assert fsdeploy(*options, "-l", faces, "-o", tmp_path / "o")[0] == 0
    assert swapped(tmp_path / "o") == ["1.png", "2.png"]


@pytest.mark.parametrize("video", [False, True])
def test_numbers_of_which_none_is_a_frame_are_refused(tmp_path, dimmer, fsdeploy, video: bool) -> None:
    if video:
        source = write_clip(tmp_path / "c.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3)
    else:
        source = frames_in(tmp_path / "in", "a.png", "b.png", "c.png")
    out = tmp_path / ("o.mp4" if video else "o")
    options = ("convert", "-m", dimmer, "-i", source, "-o", out, "-l")
    code, _, err = fsdeploy(*options, write_landmarks(tmp_path / "far.json", {"3": [FACE], "4": [FACE]}))
    assert code == 2 and "far.json" in err and "frame 3" in err and not out.exists()
    assert fsdeploy(*options, write_landmarks(tmp_path / "near.json", {"2": [FACE], "4": [FACE]}))[0] == 0


def test_a_video_that_does_not_say_its_length_is_not_refused(tmp_path, dimmer, fsdeploy, monkeypatch) -> None:
    from dataclasses import replace

    from fsdeploy.convert import checks, command
    from fsdeploy.convert.sources import VideoFile

    def opened(path: Path) -> VideoFile:
        source = VideoFile(path)
        source.info = replace(source.info, count=None)
        return source

    monkeypatch.setattr(command, "open_source", opened)
    monkeypatch.setattr(checks, "frame_times", lambda path: None)
    clip = write_clip(tmp_path / "c.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3)
    faces = write_landmarks(tmp_path / "l.json", {"2": [FACE]})
    assert fsdeploy("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", tmp_path / "o.mp4")[0] == 0


def test_one_frame_under_two_numbers_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"l\.json.*frame 1 twice"):
        read_landmarks(write_landmarks(tmp_path / "l.json", {"1": [FACE], "01": [FACE]}))


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.csv", "frame,face,x0,y0\n7", "line 2"),
        ("a.json", '{"7": [{"landmarks": [' + ", ".join([f"[{HUGE}, 1]"] * 68) + "]}]}", "frame '7', face 0"),
        ("a.jsonl", '{"frame": 7, "face": Infinity, "landmarks": []}', "line 1"),
        ("a.jsonl", '{"frame": 7, "face": NaN, "landmarks": []}', "line 1"),
        ("a.csv", "7,0," + ",".join([HUGE] * 136), "line 1"),
    ],
)
def test_numbers_beyond_all_bounds_and_rows_cut_short_are_refused_in_one_line(
    tmp_path, dimmer, fsdeploy, name: str, text: str, where: str
) -> None:
    frames = frames_in(tmp_path / "in", "a.png")
    (tmp_path / name).write_text(text)
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-l", tmp_path / name, "-o", tmp_path / "o")
    assert code == 2 and name in err and where in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_every_face_is_aligned_once_whatever_order_its_file_has(monkeypatch, order: str) -> None:
    solved: list[int] = []

    def count(records):
        solved.append(len(records))
        return [record.x for record in records]

    monkeypatch.setattr(align, "align_records", count)
    numbers = list(range(600))
    if order == "backwards":
        numbers.reverse()
    elif order == "shuffled":
        np.random.default_rng(0).shuffle(numbers)
    named = {f"c_{n + 1:06d}.png": [FaceRecord(n, 0, 5, 5, FACE, {}, {}, None, {})] for n in numbers}
    by_number = {str(n): faces for n, faces in zip(numbers, named.values(), strict=True)}
    for index in (FaceIndex(Path("l"), named), FaceIndex(Path("l"), by_number, by_index=True)):
        solved.clear()
        upcoming = UpcomingAlignments(index)
        assert [upcoming.of(Frame(n, f"c_{n + 1:06d}.mp4", None, None)) for n in range(600)] == [
            [n] for n in range(600)
        ]
        assert sum(solved) == 600 and len(solved) <= 10
        backwards = [upcoming.of(Frame(n, f"c_{n + 1:06d}.mp4", None, None)) for n in reversed(range(600))]
        assert backwards == [[n] for n in reversed(range(600))]
