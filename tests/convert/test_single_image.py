"""One image in, one image out, with landmarks that need not name it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert.provenance import read_source_type

FACE = spec_landmarks((32, 30), 22)
GREY = np.full((60, 64, 3), 180, np.uint8)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "picture.png"), GREY)
    return tmp_path / "picture.png"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    (tmp_path / "landmarks.json").write_text(json.dumps(FACE.tolist()))
    return tmp_path / "landmarks.json"


def is_swapped(path: Path) -> bool:
    image = cv2.imread(str(path))
    return image.shape == GREY.shape and bool(image[30, 32, 0] < 150) and bool(abs(int(image[0, 0, 0]) - 180) < 3)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.jpeg", "x.tif", "x.TIFF", "x.bmp", "new/x.png"])
def test_an_image_becomes_one_of_the_name_that_was_asked_for(tmp_path, dimmer, fsdeploy, picture, bare, name) -> None:
    before = picture.read_bytes()
    output = tmp_path / name
    code, out, err = fsdeploy("convert", "-m", dimmer, "-i", picture, "-o", output, "-l", bare, "-c", "none")
    assert code == 0 and f"wrote {output}" in out, err
    assert is_swapped(output) and picture.read_bytes() == before
    added = {path.name for path in output.parent.iterdir()} - {"picture.png", "landmarks.json", "new"}
    assert added == {output.name, "x.convert_report.json"}
    report = json.loads((output.parent / "x.convert_report.json").read_text())
    assert report["complete"] and report["output"] == str(output) and report["frames"]["swapped"] == 1
    kinds = {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".jpeg": b"\xff\xd8", ".bmp": b"BM"}
    assert output.read_bytes().startswith(kinds.get(output.suffix.lower(), b"II"))
    assert output.suffix == ".bmp" or read_source_type(output) is not None


def test_nothing_is_replaced_unasked_and_the_image_itself_never(tmp_path, dimmer, fsdeploy, picture, bare) -> None:
    before = picture.read_bytes()
    (tmp_path / "x.png").write_bytes(b"mine")
    options = ("convert", "-m", dimmer, "-i", picture, "-l", bare, "-c", "none")
    code, _, err = fsdeploy(*options, "-o", tmp_path / "x.png")
    assert code == 2 and "x.png exists already" in err and (tmp_path / "x.png").read_bytes() == b"mine"
    assert fsdeploy(*options, "-o", tmp_path / "x.png", "--force")[0] == 0 and is_swapped(tmp_path / "x.png")
    for output in (picture, tmp_path):  # into its own folder it would be written under its own name
        code, _, err = fsdeploy(*options, "-o", output, "--force")
        assert code == 2 and "picture.png is the input itself" in err and picture.read_bytes() == before


def test_an_image_becomes_a_folder_or_a_film_where_that_is_asked_for(tmp_path, dimmer, fsdeploy, picture, bare) -> None:
    options = ("convert", "-m", dimmer, "-i", picture, "-l", bare, "-c", "none")
    assert fsdeploy(*options, "-o", tmp_path / "o")[0] == 0 and is_swapped(tmp_path / "o" / "picture.png")
    assert (tmp_path / "o" / "convert_report.json").exists()
    assert fsdeploy(*options, "-o", tmp_path / "p.tif", "-w", "pillow")[0] == 0 and is_swapped(tmp_path / "p.tif")
    assert fsdeploy(*options, "-o", tmp_path / "o.mp4")[0] == 0 and (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("faces", [FACE.tolist(), [FACE.tolist()], [{"landmarks": FACE.tolist()}]])
def test_landmarks_of_one_image_need_no_name(tmp_path, dimmer, fsdeploy, picture, faces) -> None:
    (tmp_path / "l.json").write_text(json.dumps(faces))
    options = ("convert", "-m", dimmer, "-l", tmp_path / "l.json", "-c", "none")
    code, _, err = fsdeploy(*options, "-i", picture, "-o", tmp_path / "x.png")
    assert code == 0 and is_swapped(tmp_path / "x.png"), err


def test_landmarks_without_a_name_are_refused_where_there_are_many_frames(
    tmp_path, dimmer, fsdeploy, picture, bare
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), GREY)
    for source in (tmp_path / "in", write_clip(tmp_path / "c.mp4", [GREY] * 2)):
        code, _, err = fsdeploy("convert", "-m", dimmer, "-i", source, "-l", bare, "-o", tmp_path / "o.mkv")
        assert code == 2 and "landmarks.json names no frame" in err and not (tmp_path / "o.mkv").exists()
    (tmp_path / "short.json").write_text("[[1, 2], [3, 4]]")
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", picture, "-l", tmp_path / "short.json", "-o", tmp_path / "o")
    assert code == 2 and "face 0 must have 68 points" in err


def test_an_image_may_be_named_by_its_landmarks_as_any_frame(tmp_path, dimmer, fsdeploy, picture) -> None:
    options = ("convert", "-m", dimmer, "-i", picture, "-c", "none", "-l")
    for place, key in enumerate(("picture.png", "0")):
        faces = write_landmarks(tmp_path / "l.json", {key: [FACE]})
        assert fsdeploy(*options, faces, "-o", tmp_path / f"{place}.png")[0] == 0
        assert is_swapped(tmp_path / f"{place}.png")
    code, _, err = fsdeploy(*options, write_landmarks(tmp_path / "l.json", {"b.png": [FACE]}), "-o", tmp_path / "x.png")
    assert code == 2 and "b.png" in err and not (tmp_path / "x.png").exists()


def test_what_is_for_many_frames_is_refused_for_one_image(tmp_path, dimmer, fsdeploy, picture, bare) -> None:
    options = ("convert", "-m", dimmer, "-i", picture, "-l", bare, "-o", tmp_path / "x.png")
    for extra in (("--resume",), ("--shard", "1/2")):
        code, _, err = fsdeploy(*options, *extra)
        assert code == 2 and extra[0] in err and not (tmp_path / "x.png").exists()
    picture.write_bytes(b"\x89PNG damaged")
    code, _, err = fsdeploy(*options)
    assert code == 2 and "picture.png is not a readable image" in err and not (tmp_path / "x.png").exists()
