"""What convert reads: frames of every kind, and landmarks from alignments, face folders, JSON and CSV."""

import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdeploy.convert.frame import Frame
from fsdeploy.convert.integrity import missing_bytes
from fsdeploy.convert.landmarks import load_faces, read_landmarks
from fsdeploy.convert.sources import ImageFolder, VideoFile, frame_number, open_source
from fsdeploy.errors import InputError
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource

FACE = spec_landmarks((32, 30), 22)


def frame(index: int, key: str, size: tuple[int, int] = (60, 64)) -> Frame:
    return Frame(index, key, None, np.zeros((*size, 3), np.uint8))


def test_images_of_every_depth_and_kind_become_eight_bit_bgr(tmp_path) -> None:
    grey = np.full((8, 9), 100, np.uint8)
    kinds = {
        "a_grey.png": grey,
        "b_16bit.png": np.full((8, 9, 3), 100 * 257, np.uint16),
        "c_float.tiff": np.full((8, 9, 3), 100 / 255, np.float32),
        "d_alpha.png": np.dstack([grey, grey, grey, np.full((8, 9), 7, np.uint8)]),
        "e_plain.bmp": np.dstack([grey] * 3),
        "f_jpeg.JPG": np.dstack([grey] * 3),
    }
    for name, pixels in kinds.items():
        assert cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / "notes.txt").write_text("no image")
    frames = list(ImageFolder(tmp_path).frames())
    assert [entry.key for entry in frames] == sorted(kinds)
    for entry in frames:
        assert entry.image is not None and entry.image.shape == (8, 9, 3) and entry.image.dtype == np.uint8
        assert np.abs(entry.image.astype(int) - 100).max() <= 1
    assert frames[3].alpha is not None and (frames[3].alpha == 7).all()
    assert all(entry.alpha is None for entry in frames if entry.key != "d_alpha.png")


def test_the_alpha_of_a_frame_is_carried_to_the_output(tmp_path, dimmer, fsdeploy) -> None:
    (tmp_path / "in").mkdir()
    alpha = np.tile(np.arange(64, dtype=np.uint8) * 4, (60, 1))
    cv2.imwrite(str(tmp_path / "in" / "1.png"), np.dstack([np.full((60, 64, 3), 90, np.uint8), alpha]))
    faces = write_landmarks(tmp_path / "l.json", {"1.png": [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", tmp_path / "in", "-o", tmp_path / "o", "-l", faces)
    assert code == 0, err
    out = cv2.imread(str(tmp_path / "o" / "1.png"), cv2.IMREAD_UNCHANGED)
    assert out.shape == (60, 64, 4) and np.array_equal(out[..., 3], alpha)


@pytest.mark.parametrize(("name", "number"), [("f_0012.png", 12), ("12", 12), ("a12b.png", None), ("x_007.mp4", 7)])
def test_a_frame_number_is_the_digits_before_the_extension(name: str, number: int | None) -> None:
    assert frame_number(name) == number


@pytest.mark.parametrize("missing", ["nothing", "empty", "text.txt"])
def test_an_input_that_is_none_is_refused_by_name(tmp_path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(InputError, match=missing):
        open_source(tmp_path / missing)


def test_frames_from_the_middle_are_those_of_reading_from_the_start(tmp_path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(40)]
    clip = write_clip(tmp_path / "c.mp4", pictures, options={"crf": "20", "g": "7", "bf": "2"})
    whole = list(VideoFile(clip).frames())
    part = list(VideoFile(clip).frames(17, 23))
    assert [entry.index for entry in part] == list(range(17, 23))
    assert part[0].key == "c_000018.mp4"
    for entry in part:
        np.testing.assert_array_equal(entry.image, whole[entry.index].image)


def face_png(path: Path, frame_name: str, index: int, dims: tuple[int, int] | None = (60, 64)) -> None:
    record = FaceRecord(0, 0, 5, 5, FACE + index, {}, {}, None, {})
    source = FaceSource(2.4, path.name, index, frame_name, True, dims)
    write_face(path, np.zeros((16, 16, 3), np.uint8), FaceHeader(record, source))


def test_a_folder_of_extracted_faces_drives_the_conversion_by_itself(tmp_path) -> None:
    face_png(tmp_path / "b.png", "clip_000002.png", 1)
    face_png(tmp_path / "a.png", "clip_000002.png", 0)
    cv2.imwrite(str(tmp_path / "holiday.png"), np.zeros((8, 8, 3), np.uint8))
    faces = load_faces(Path("clip.mp4"), faces=tmp_path)
    found = faces.faces(frame(1, "clip_000002.mp4"))  # the extension does not matter
    assert [float(face.landmarks[0, 0] - FACE[0, 0]) for face in found] == pytest.approx([0, 1])
    assert faces.faces(frame(2, "clip_000003.mp4")) == []


def test_faces_of_frames_of_another_size_are_refused(tmp_path) -> None:
    face_png(tmp_path / "a.png", "clip_000001.png", 0, (1080, 1920))
    faces = load_faces(Path("clip.mp4"), faces=tmp_path)
    with pytest.raises(InputError, match="1920x1080"):
        faces.faces(frame(0, "clip_000001.mp4"))


def test_a_folder_of_faces_of_larger_frames_is_refused_before_work_starts(tmp_path, dimmer, fsdeploy) -> None:
    (tmp_path / "faces").mkdir()
    face_png(tmp_path / "faces" / "a.png", "c_000001.png", 0, (1080, 1920))
    clip = write_clip(tmp_path / "c.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    out = tmp_path / "o.mp4"
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", out, "-f", tmp_path / "faces")
    assert code == 2 and "1920x1080" in err and "64x48" in err and not out.exists()


def test_a_folder_of_faces_beside_alignments_keeps_only_its_own(tmp_path) -> None:
    from fsdeploy.faces.alignments import Alignments, write_alignments

    records = [FaceRecord(0, 0, 5, 5, FACE + n, {}, {}, None, {}) for n in range(3)]
    write_alignments(tmp_path / "clip_alignments.fsa", Alignments(frames={"clip_000001.mp4": records}))
    (tmp_path / "faces").mkdir()
    face_png(tmp_path / "faces" / "x.png", "clip_000001.png", 2)
    faces = load_faces(tmp_path / "clip.mp4", tmp_path / "clip_alignments.fsa", tmp_path / "faces")
    found = faces.faces(frame(0, "clip_000001.mp4"))
    assert [float(face.landmarks[0, 0] - FACE[0, 0]) for face in found] == pytest.approx([2])
    beside = load_faces(tmp_path / "clip.mp4")  # found by its name
    assert len(beside.faces(frame(0, "clip_000001.mp4"))) == 3


def test_landmarks_are_read_from_json_lines_and_csv_alike(tmp_path) -> None:
    other = FACE + 3
    (tmp_path / "a.json").write_text(json.dumps({"frames": {"7": [{"landmarks": FACE.tolist()}, other.tolist()]}}))
    (tmp_path / "b.json").write_text(
        json.dumps({"7": [{"landmarks_2d": FACE.tolist()}, {"landmarks": other.tolist()}]})
    )
    lines = [{"frame": 7, "face": 1, "landmarks": other.tolist()}, {"frame": 7, "face": 0, "landmarks": FACE.tolist()}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [
        "frame,face,x0,y0",
        *(f"7,{n}," + ",".join(map(str, points.ravel())) for n, points in enumerate([FACE, other])),
    ]
    (tmp_path / "d.csv").write_text("\n".join(rows))
    for name in ("a.json", "b.json", "c.jsonl", "d.csv"):
        faces = read_landmarks(tmp_path / name)
        assert faces.by_index, name
        found = faces.faces(frame(7, "anything.png"))
        np.testing.assert_allclose([face.landmarks for face in found], [FACE, other], rtol=1e-6)
        assert faces.faces(frame(6, "anything.png")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"), ("a.json", "[1, 2]"), ("a.json", '{"1": [{"landmarks": [[1, 2]]}]}'), ("a.json", '{"1": 5}'),
        ("a.json", '{"1": [{"landmarks": [[NaN, 2]' + ", [1, 2]" * 67 + "]}]}"), ("a.json", '{"1": [{}]}'),
        ("a.csv", "1,0,5"), ("a.csv", "1,zero,5,6"), ("a.jsonl", "{}"), ("a.jsonl", "[]"), ("a.txt", "x"),
        ("a.json", "[" * 100_000),
    ],
)  # fmt: skip
def test_landmarks_that_are_not_as_documented_are_refused_by_name(tmp_path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        read_landmarks(tmp_path / name)


def test_a_hostile_alignments_file_is_refused(tmp_path, dimmer, fsdeploy) -> None:
    import pickle

    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    clip = write_clip(tmp_path / "c.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    (tmp_path / "x.fsa").write_bytes(zlib.compress(pickle.dumps(Hostile())))
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-a", tmp_path / "x.fsa")
    assert code == 2 and "x.fsa" in err and not (tmp_path / "owned").exists()


def test_without_any_landmarks_the_ways_to_give_them_are_named(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4")
    assert code == 2 and all(way in err for way in ("--faces", "--alignments", "--landmarks"))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08" * 40])
def test_a_model_that_is_none_is_refused_by_name(tmp_path, fsdeploy, content: bytes) -> None:
    clip = write_clip(tmp_path / "c.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    (tmp_path / "bad.onnx").write_bytes(content)
    code, _, err = fsdeploy("convert", "-m", tmp_path / "bad.onnx", "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 2 and "bad.onnx" in err and len(err.splitlines()) == 1 and not (tmp_path / "o.mp4").exists()


def test_the_real_clip_is_found_with_its_own_alignments(real_data) -> None:
    faces = load_faces(real_data / "clip_A.mp4")
    video = VideoFile(real_data / "clip_A.mp4")
    counts = [len(faces.faces(entry)) for entry in video.frames(0, 12)]
    assert counts == [1] * 12 and not video.damage


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    )
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_read_or_refused_by_name(tmp_path, value) -> None:
    (tmp_path / "any.json").write_text(json.dumps(value))
    try:
        read_landmarks(tmp_path / "any.json")
    except InputError as error:
        assert "any.json" in str(error)


@given(st.binary(max_size=200), st.sampled_from([b"", b"RIFF", b"\x1aE\xdf\xa3", b"\0\0\0\x08ftyp", b"\0\0\0\x01mdat"]))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_end_of_any_file_is_judged_without_fault(tmp_path, data: bytes, head: bytes) -> None:
    (tmp_path / "any.mp4").write_bytes(head + data)
    assert missing_bytes(tmp_path / "any.mp4") >= 0


@pytest.mark.parametrize(("name", "hint"), [("o.png", "folder"), ("o.mpg", ".mp4")])
def test_an_output_name_that_promises_something_else_is_refused(tmp_path, dimmer, fsdeploy, name, hint) -> None:
    clip = write_clip(tmp_path / "c.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / name, "-l", faces)
    assert code == 2 and hint in err and not (tmp_path / name).exists()


@pytest.mark.slow
def test_the_real_clip_keeps_its_frames_timing_size_and_tags(real_data, tmp_path, dimmer, fsdeploy) -> None:
    import av

    out = tmp_path / "o.mp4"
    options = ("--faces", real_data / "faces" / "A", "--set", "writer.video.preset=ultrafast")
    code, summary, err = fsdeploy("convert", "-m", dimmer, "-i", real_data / "clip_A.mp4", "-o", out, *options)
    assert code == 0, err
    assert "331 frames read, 331 written: 111 swapped, 220 unchanged" in summary

    def facts(path: Path) -> tuple:
        with av.open(str(path)) as video:
            context = video.streams.video[0].codec_context
            tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
            shown = [frame.pts * frame.time_base for frame in video.decode(video=0)]
            return context.width, context.height, video.streams.video[0].average_rate, tuple(map(int, tags)), shown

    assert facts(out) == facts(real_data / "clip_A.mp4")
