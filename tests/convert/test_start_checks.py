"""What convert refuses before its first frame, and what it does not: folders, names, ranges, masks."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert.sources import ImageFolder
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource, StoredMask

FACE = spec_landmarks((32, 30), 22)
GREY = np.full((60, 64, 3), 180, np.uint8)


def frames_in(folder: Path, *names: str, picture: np.ndarray = GREY) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        assert cv2.imwrite(str(folder / name), picture)
    return folder


def face_png(path: Path, frame_name: str, dims: tuple[int, int], masks: dict | None = None) -> None:
    record = FaceRecord(0, 0, 5, 5, FACE, masks or {}, {}, None, {})
    write_face(
        path,
        np.zeros((16, 16, 3), np.uint8),
        FaceHeader(record, FaceSource(2.4, path.name, 0, frame_name, False, dims)),
    )


def is_swapped(path: Path) -> bool:
    return bool(cv2.imread(str(path))[30, 32, 0] < 150)


def test_openexr_frames_are_refused_with_the_remedy(tmp_path, dimmer, fsdeploy, caplog) -> None:
    """The wheels of OpenCV are built without OpenEXR."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f_1.exr").write_bytes(b"\x76\x2f\x31\x01")
    faces = write_landmarks(tmp_path / "l.json", {"f_1": [FACE]})
    options = ("convert", "-m", dimmer, "-i", tmp_path / "in", "-o", tmp_path / "o", "-l", faces)
    code, _, err = fsdeploy(*options)
    assert code == 2 and "f_1.exr" in err and "16-bit .png" in err and "damaged" not in err
    frames_in(tmp_path / "in", "f_1.png")
    with caplog.at_level("WARNING"):
        assert ImageFolder(tmp_path / "in").keys() == ["f_1.png"]
    assert ".exr is not read" in caplog.text


def test_files_with_a_dot_before_their_name_are_no_frames(tmp_path) -> None:
    frames_in(tmp_path, "a.png", ".thumb.png")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    assert ImageFolder(tmp_path).keys() == ["a.png"]


def test_two_frames_that_would_be_one_file_are_refused(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "a.png", "a.jpg", "b.png")
    faces = write_landmarks(tmp_path / "l.json", {"b.png": [FACE]})
    options = ("convert", "-m", dimmer, "-i", frames, "-l", faces)
    code, _, err = fsdeploy(*options, "-o", tmp_path / "o")
    assert code == 2 and "a.jpg" in err and "a.png" in err and not (tmp_path / "o").exists()
    assert fsdeploy(*options, "-o", tmp_path / "o.mp4")[0] == 0  # a film has a place for both


def test_images_that_are_there_are_replaced_only_when_that_is_asked_for(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "f_1.png", "f_2.png", "f_3.png")
    mine = frames_in(tmp_path / "mine", "f_2.png", picture=np.zeros((60, 64, 3), np.uint8))
    before = (mine / "f_2.png").read_bytes()
    faces = write_landmarks(tmp_path / "l.json", {f"f_{n}.png": [FACE] for n in (1, 2, 3)})
    options = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "-o", mine, "-c", "none")
    code, _, err = fsdeploy(*options)
    assert code == 2 and all(word in err for word in ("f_2.png", "--force", "--resume"))
    assert (mine / "f_2.png").read_bytes() == before and not (mine / "f_1.png").exists()
    assert fsdeploy(*options, "-r", "1-1")[0] == 0 and (mine / "f_2.png").read_bytes() == before
    assert fsdeploy(*options, "--set", "writer.opencv.format=jpg")[0] == 0  # other names
    assert fsdeploy(*options, "--force")[0] == 0 and is_swapped(mine / "f_2.png")


def test_images_of_a_video_are_protected_too_and_parts_share_a_folder(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", [GREY] * 4)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    options = ("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", tmp_path / "o")
    assert fsdeploy(*options, "--shard", "1/2")[0] == 0
    assert fsdeploy(*options, "--shard", "2/2")[0] == 0
    assert len(list((tmp_path / "o").glob("c_*.png"))) == 4
    code, _, err = fsdeploy(*options, "--shard", "2/2")
    assert code == 2 and "c_000003.png" in err
    code, _, err = fsdeploy(*options)
    assert code == 2 and "c_000001.png" in err
    assert fsdeploy(*options, "--resume")[0] == 0


def test_patches_that_are_there_are_replaced_only_when_that_is_asked_for(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "f_1.png")
    faces = write_landmarks(tmp_path / "l.json", {"f_1.png": [FACE]})
    options = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "-o", tmp_path / "o", "-w", "patch")
    assert fsdeploy(*options)[0] == 0
    code, _, err = fsdeploy(*options)
    assert code == 2 and "matrices.json" in err
    assert fsdeploy(*options, "--force")[0] == 0


def test_a_frame_of_another_size_at_the_front_hides_no_fitting_ones(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "0_title.png", picture=np.zeros((30, 40, 3), np.uint8))
    frames_in(frames, "f_1.png", "f_2.png")
    faces = tmp_path / "faces"
    faces.mkdir()
    for n in (1, 2):
        face_png(faces / f"f_{n}_0.png", f"f_{n}.png", (60, 64))
    options = ("convert", "-m", dimmer, "-i", frames, "-f", faces, "-c", "none")
    code, _, err = fsdeploy(*options, "-o", tmp_path / "o")
    assert code == 0, err
    assert is_swapped(tmp_path / "o" / "f_1.png") and is_swapped(tmp_path / "o" / "f_2.png")
    for n in (1, 2):
        face_png(faces / f"f_{n}_0.png", f"f_{n}.png", (120, 128))
    code, _, err = fsdeploy(*options, "-o", tmp_path / "none")
    assert code == 2 and "128x120" in err and not (tmp_path / "none").exists()


@pytest.mark.parametrize("way", ["option", "file", "flag"])
def test_every_way_to_ask_for_transparent_images_gives_them(tmp_path, dimmer, fsdeploy, way: str) -> None:
    frames = frames_in(tmp_path / "in", "f_1.png")
    faces = write_landmarks(tmp_path / "l.json", {"f_1.png": [FACE]})
    (tmp_path / "c.toml").write_text("[convert.writer.opencv]\ndraw_transparent = true\n")
    asked = {
        "option": ("--set", "writer.opencv.draw_transparent=true"), "file": ("--config", tmp_path / "c.toml"),
        "flag": ("--transparent",),
    }[way]  # fmt: skip
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-l", faces, "-o", tmp_path / "o", *asked)
    assert code == 0, err
    picture = cv2.imread(str(tmp_path / "o" / "f_1.png"), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (60, 64, 4) and picture[30, 32, 3] == 255 and picture[0, 0, 3] == 0


def test_ranges_need_frames_that_have_numbers(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "a_1.png", "a_2.png", "title.png")
    faces = write_landmarks(tmp_path / "l.json", {"a_1.png": [FACE]})
    options = ("convert", "-m", dimmer, "-i", frames, "-l", faces, "-o", tmp_path / "o", "-r", "1-1")
    code, _, err = fsdeploy(*options)
    assert code == 2 and "title.png" in err and "--range" in err and not (tmp_path / "o").exists()


def test_a_mask_that_nobody_draws_or_stores_is_refused(tmp_path, dimmer, fsdeploy) -> None:
    frames = frames_in(tmp_path / "in", "a_1.png", "a_2.png")
    faces = tmp_path / "faces"
    faces.mkdir()
    mask = StoredMask.from_pixels(np.full((32, 32), 255, np.uint8), np.eye(2, 3), "face")
    face_png(faces / "1.png", "a_1.png", (60, 64), {"bisenet-fp_face": mask})
    face_png(faces / "2.png", "a_2.png", (60, 64))
    options = ("convert", "-m", dimmer, "-i", frames, "-f", faces, "-o", tmp_path / "o")
    code, _, err = fsdeploy(*options, "--mask", "extendd")
    assert code == 2 and "'extended'" in err and not (tmp_path / "o").exists()
    code, _, err = fsdeploy(*options, "--mask", "unet-dfl")
    assert code == 2 and "bisenet-fp_face" in err
    code, _, err = fsdeploy(*options, "--mask", "stored", "--set", "mask.stored.name=unet-dfl")
    assert code == 2 and "unet-dfl" in err
    plain = write_landmarks(tmp_path / "l.json", {"a_1.png": [FACE]})
    bare = ("convert", "-m", dimmer, "-i", frames, "-l", plain, "-o", tmp_path / "o")
    code, _, err = fsdeploy(*bare, "--mask", "stored")
    assert code == 2 and "l.json" in err and "extended" in err
    code, out, err = fsdeploy(*options, "--mask", "bisenet-fp_face")  # one face of two has it
    assert code == 0 and "no mask 'bisenet-fp_face' for a face" in out, err


@pytest.mark.parametrize(("name", "hint"), [("o.tiff", "format=tif"), ("o.jpeg", "format=jpg"), ("o.exr", "folder")])
def test_a_single_image_as_output_is_refused_with_options_that_exist(tmp_path, dimmer, fsdeploy, name, hint) -> None:
    frames = frames_in(tmp_path / "in", "a_1.png")
    faces = write_landmarks(tmp_path / "l.json", {"a_1.png": [FACE]})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", frames, "-l", faces, "-o", tmp_path / name)
    assert code == 2 and err.strip().endswith(hint) and not (tmp_path / name).exists()
