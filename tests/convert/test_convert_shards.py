"""Parts of a conversion hold the frames that are theirs, and join to what one run would have made."""

import json
import re
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert.shard import frame_count
from fsdeploy.convert.sources import VideoFile, frame_times

FACE = spec_landmarks((32, 30), 22)
QUICK = {"crf": "8", "preset": "ultrafast", "g": "25", "bf": "2"}


def greys(count: int) -> list[np.ndarray]:
    return [np.full((60, 64, 3), 10 + 2 * n, np.uint8) for n in range(count)]


@pytest.fixture
def trimmed(tmp_path: Path) -> Path:
    """A clip of 100 frames whose first 20 an edit list hides, as trimming without encoding again leaves it."""
    whole = write_clip(tmp_path / "whole.mp4", greys(100), options=QUICK)
    path = tmp_path / "c.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as cut:
        video = source.streams.video[0]
        stream = cut.add_stream_from_template(video)
        begin = int(Fraction(20, 25) / video.time_base)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - begin, packet.dts - begin, stream
                cut.mux(packet)
    return path


def level(path: Path) -> int:
    return int(cv2.imread(str(path))[5, 5, 0])


def test_frames_that_an_edit_list_hides_are_no_frames(trimmed) -> None:
    source = VideoFile(trimmed)
    whole = {frame.index: int(frame.image[5, 5, 0]) for frame in source.frames()}
    assert len(whole) == frame_count(source) == 80 and abs(whole[0] - 50) <= 2
    for first in (1, 24, 25, 30, 59, 79):
        frame = next(source.frames(first))
        assert (frame.index, int(frame.image[5, 5, 0])) == (first, whole[first])


def test_parts_of_a_trimmed_clip_hold_the_frames_of_one_run(tmp_path, dimmer, fsdeploy, trimmed) -> None:
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    common = ("convert", "-m", dimmer, "-i", trimmed, "-l", faces)
    for n in (1, 2, 3):
        code, _, err = fsdeploy(*common, "-o", tmp_path / "parts", "--shard", f"{n}/3")
        assert code == 0, err
    assert fsdeploy("join", tmp_path / "parts", "-o", tmp_path / "parts")[0] == 0
    assert fsdeploy(*common, "-o", tmp_path / "one")[0] == 0
    names = sorted(path.name for path in (tmp_path / "one").glob("*.png"))
    assert len(names) == 80 and names == sorted(path.name for path in (tmp_path / "parts").glob("*.png"))
    for name in names:
        assert level(tmp_path / "parts" / name) == level(tmp_path / "one" / name)


@pytest.mark.parametrize(("suffix", "codec", "options"), [
    (".mp4", "libx264", QUICK),
    (".mkv", "libx265", {"x265-params": "log-level=error:keyint=12:open-gop=1:bframes=3", "preset": "ultrafast"}),
    (".avi", "mpeg4", {"g": "10"}),
])  # fmt: skip
def test_a_part_starts_at_its_own_frame_in_every_container(tmp_path, suffix: str, codec: str, options: dict) -> None:
    clip = write_clip(tmp_path / f"c{suffix}", greys(60), codec=codec, options=options)
    source = VideoFile(clip)
    whole = [int(frame.image[5, 5, 0]) for frame in source.frames()]
    assert frame_count(source) == len(whole) == 60
    for first in (1, 11, 12, 13, 25, 47):
        part = [(frame.index, int(frame.image[5, 5, 0])) for frame in source.frames(first, first + 5)]
        assert part == [(n, whole[n]) for n in range(first, first + 5)]


def test_frames_before_the_first_that_can_be_decoded_do_not_count(tmp_path) -> None:
    whole = write_clip(tmp_path / "w.ts", greys(60), options={**QUICK, "g": "20", "bf": "0"})
    cut = tmp_path / "c.ts"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number >= 10:  # a recording that starts between two key frames
                packet.stream = stream
                out.mux(packet)
    source = VideoFile(cut)
    decoded = [int(frame.image[5, 5, 0]) for frame in source.frames()]
    times = frame_times(cut)
    assert times is not None and len(times) == len(decoded) == frame_count(source)
    assert int(next(source.frames(25)).image[5, 5, 0]) == decoded[25]


def test_ranges_of_parts_need_the_frames_between_them(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", greys(40))
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    common = ("convert", "-m", dimmer, "-i", clip, "-l", faces, "-r", "1-5")
    code, _, err = fsdeploy(*common, "-o", tmp_path / "1.mp4", "--shard", "1/2")
    assert code == 2 and "--keep-unchanged" in err and len(err.splitlines()) == 1
    for n in (1, 2):
        assert fsdeploy(*common, "-k", "-o", tmp_path / f"{n}.mp4", "--shard", f"{n}/2")[0] == 0
    code, _, err = fsdeploy("join", tmp_path / "1.mp4", tmp_path / "2.mp4", "-o", tmp_path / "o.mp4")
    assert code == 0, err
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert [frame.pts * frame.time_base for frame in video.decode(video=0)] == [Fraction(n, 25) for n in range(40)]


def test_parts_that_could_not_be_joined_are_not_made(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", greys(4))
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", tmp_path / "o.gif", "--shard", "1/2"
    )
    assert code == 2 and "--shard" in err and not (tmp_path / "o.gif").exists()


def test_parts_of_a_folder_join_to_a_video_at_their_rate(tmp_path, dimmer, fsdeploy) -> None:
    (tmp_path / "in").mkdir()
    for n, picture in enumerate(greys(30)):
        cv2.imwrite(str(tmp_path / "in" / f"{n:03d}.png"), picture)
    faces = write_landmarks(tmp_path / "l.json", {"000.png": [FACE]})
    for n in (1, 2, 3):
        code, _, err = fsdeploy("convert", "-m", dimmer, "-i", tmp_path / "in", "-l", faces, "--fps", 10,
                                "-o", tmp_path / f"{n}.mp4", "--shard", f"{n}/3")  # fmt: skip
        assert code == 0, err
    parts = [tmp_path / f"{n}.mp4" for n in (1, 2, 3)]
    code, _, err = fsdeploy("join", *parts, "-o", tmp_path / "o.mp4")
    assert code == 0, err
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert [frame.pts * frame.time_base for frame in video.decode(video=0)] == [Fraction(n, 10) for n in range(30)]


@pytest.fixture
def two_parts(tmp_path, dimmer, fsdeploy) -> list[Path]:
    clip = write_clip(tmp_path / "c.mp4", greys(20))
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    parts = [tmp_path / "1.mp4", tmp_path / "2.mp4"]
    for n, part in enumerate(parts, 1):
        assert fsdeploy("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", part, "--shard", f"{n}/2")[0] == 0
    return parts


def change_report(part: Path, change) -> None:
    path = part.with_name(f"{part.stem}.convert_report.json")
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


@pytest.mark.parametrize("change", [
    lambda report: report["frames"].update(read=8, written=8),
    lambda report: report["frames"].update(written=9),
    lambda report: report.update(stopped="the conversion did not run to its end"),
])  # fmt: skip
def test_a_part_that_lacks_frames_is_not_joined(tmp_path, fsdeploy, two_parts, change) -> None:
    change_report(two_parts[0], change)
    code, _, err = fsdeploy("join", *two_parts, "-o", tmp_path / "o.mp4")
    assert code == 2 and "1.mp4 is not finished" in err and not (tmp_path / "o.mp4").exists()


def test_a_part_that_was_cut_off_after_its_report_is_not_joined(tmp_path, fsdeploy, two_parts) -> None:
    with av.open(str(two_parts[0])) as part, av.open(str(tmp_path / "short.mp4"), "w") as short:
        stream = short.add_stream_from_template(part.streams.video[0])
        for packet in [packet for packet in part.demux(video=0) if packet.dts is not None][:7]:
            packet.stream = stream
            short.mux(packet)
    (tmp_path / "short.mp4").replace(two_parts[0])
    code, _, err = fsdeploy("join", *two_parts, "-o", tmp_path / "o.mp4")
    assert code == 2 and "holds 7 pictures where 10 were written" in err and not (tmp_path / "o.mp4").exists()


def test_joined_images_replace_others_only_when_asked(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", greys(4))
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    for n in (1, 2):
        assert fsdeploy("convert", "-m", dimmer, "-i", clip, "-l", faces, "-o", tmp_path / f"p{n}",
                        "--shard", f"{n}/2")[0] == 0  # fmt: skip
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "c_000003.png").write_bytes(b"precious")
    parts = (tmp_path / "p1", tmp_path / "p2")
    code, _, err = fsdeploy("join", *parts, "-o", tmp_path / "o")
    assert (
        code == 2 and "c_000003.png" in err and [path.name for path in (tmp_path / "o").iterdir()] == ["c_000003.png"]
    )
    assert fsdeploy("join", *parts, "-o", tmp_path / "o", "--force")[0] == 0
    assert len(list((tmp_path / "o").glob("*.png"))) == 4


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_the_kubernetes_job_repeats_only_parts_that_are_not_there(tmp_path, monkeypatch, code: int, ends: int) -> None:
    """Exit code 1 means that frames failed: the part is complete, and converting it again changes nothing."""
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")
    found = re.search(r'args: \["(.*)"\]', text)
    assert found is not None
    (tmp_path / "fsdeploy").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "fsdeploy").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    done = subprocess.run(["sh", "-c", found.group(1)], check=False)
    assert min(done.returncode, 1) == ends
