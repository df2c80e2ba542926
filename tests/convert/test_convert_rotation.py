"""Videos that are to be shown turned: every output is upright when it is shown, whatever its container can say."""

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_landmarks

FACE = spec_landmarks((32, 24), 18)


def corners() -> np.ndarray:
    """(48, 64, 3) BGR: four quarters of four greys, so that every turn and mirroring shows."""
    picture = np.empty((48, 64, 3), np.uint8)
    picture[:24, :32], picture[:24, 32:], picture[24:, :32], picture[24:, 32:] = 40, 100, 160, 220
    return picture


def turned_clip(path: Path, degrees: int, count: int = 12) -> Path:
    """A clip whose display matrix says `degrees` (counterclockwise)."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(degrees)
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(corners(), format="bgr24")))
        container.mux(stream.encode(None))
    return path


def as_shown(path: Path) -> np.ndarray:
    """The first picture (H, W) grey as a player shows it."""
    if path.is_dir():
        picture = cv2.imread(str(min(path.glob("*.png"))), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        return picture
    with av.open(str(path)) as video:
        frame = next(video.decode(video=0))
        return np.rot90(frame.to_ndarray(format="gray"), round(frame.rotation / 90))


# A telephone held upright writes -90: its stored pictures are to be turned clockwise.
@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (-90, -1), (180, 2)])
@pytest.mark.parametrize("output", ["images", "o.gif", "o.avi", "o.ts", "o.flv", "o.mp4", "o.mkv", "o.webm"])
def test_a_turned_video_is_upright_in_every_output(
    tmp_path, dimmer, fsdeploy, degrees: int, quarters: int, output: str
) -> None:
    clip = turned_clip(tmp_path / "c.mp4", degrees)
    faces = write_landmarks(tmp_path / "l.json", {"0": []})
    out = tmp_path / output
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces)
    assert code == 0, err
    wanted = np.rot90(corners()[..., 0], quarters)
    shown = as_shown(out)
    assert shown.shape == wanted.shape
    assert np.abs(shown.astype(int) - wanted).mean() < 6


def test_faces_of_a_turned_video_are_swapped_where_their_stored_landmarks_lie(tmp_path, dimmer, fsdeploy) -> None:
    clip = turned_clip(tmp_path / "c.mp4", 90)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    common = ("convert", "-m", dimmer, "-i", clip, "-l", faces, "-c", "none")
    assert fsdeploy(*common, "-o", tmp_path / "kept.mp4")[0] == 0
    assert fsdeploy(*common, "-o", tmp_path / "turned", "--transparent")[0] == 0
    picture = cv2.imread(str(tmp_path / "turned" / "c_000001.png"), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (64, 48, 4)
    # the face is darker than the corners that nobody swapped: in both outputs at the same shown place
    assert picture[32, 24, 3] == 255 and picture[2, 2, 3] == 0
    assert abs(int(as_shown(tmp_path / "kept.mp4")[28, 20]) - int(picture[28, 20, 0])) < 12


def test_turned_pictures_are_scaled_and_resumed_at_their_own_size(tmp_path, dimmer, fsdeploy) -> None:
    clip = turned_clip(tmp_path / "c.mp4", -90)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    common = ("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", tmp_path / "o", "--scale", 50)
    assert fsdeploy(*common)[0] == 0
    assert as_shown(tmp_path / "o").shape == (32, 24)
    assert "12 kept" in fsdeploy(*common, "--resume")[1]


def test_parts_of_a_turned_video_are_joined_turned(tmp_path, dimmer, fsdeploy) -> None:
    clip = turned_clip(tmp_path / "c.mp4", 90)
    faces = write_landmarks(tmp_path / "l.json", {"0": []})
    parts = [tmp_path / f"p{n}.mp4" for n in (1, 2)]
    for number, part in enumerate(parts, 1):
        options = ("--shard", f"{number}/2", "--set", "writer.video.encoder=libx264")
        assert fsdeploy("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", part, *options)[0] == 0
    code, _, err = fsdeploy("join", *parts, "-o", tmp_path / "whole.mp4")
    assert code == 0, err
    assert np.abs(as_shown(tmp_path / "whole.mp4").astype(int) - np.rot90(corners()[..., 0])).mean() < 6


def test_an_angle_that_no_turn_makes_upright_is_said(tmp_path, dimmer, fsdeploy) -> None:
    clip = turned_clip(tmp_path / "c.mp4", 45)
    faces = write_landmarks(tmp_path / "l.json", {"0": []})
    code, out, _ = fsdeploy("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", tmp_path / "o")
    assert code == 0 and "45 degrees" in out and as_shown(tmp_path / "o").shape == (48, 64)
    report = json.loads((tmp_path / "o" / "convert_report.json").read_text())
    assert any("45 degrees" in note for note in report["notes"])
