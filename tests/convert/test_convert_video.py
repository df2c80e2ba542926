"""A converted video is its source with other faces: same frames, timing, size, colours and sound."""

import errno
import json
import signal
import subprocess
import sys
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from drawn import spec_frame, spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert import storage, video
from fsdeploy.errors import InputError

FACE = spec_landmarks((48, 40), 26)


def pictures(count: int, height: int = 80, width: int = 96) -> list[np.ndarray]:
    return [np.full((height, width, 3), 60 + 3 * (n % 50), np.uint8) for n in range(count)]


def every_frame(stem: str, count: int, suffix: str = ".mp4") -> dict[str, list[np.ndarray]]:
    return {f"{stem}_{n + 1:06d}{suffix}": [FACE] for n in range(count)}


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_timing_size_tags_and_sound_are_those_of_the_source(tmp_path, dimmer, fsdeploy) -> None:
    pts = [0, 3, 4, 9, 10, 11, 12, 20, 21, 22, 30, 31]
    clip = write_clip(
        tmp_path / "c.mp4",
        pictures(12),
        pts=pts,
        time_base=Fraction(1, 30),
        rate=30,
        tags=(1, 1, 1, 1),
        sound_seconds=1.3,
    )
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 12))
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces, "-c", "none")
    assert code == 0, err
    assert times(tmp_path / "o.mp4") == times(clip) == [Fraction(n, 30) for n in pts]
    assert sound(tmp_path / "o.mp4") == sound(clip)
    with av.open(str(tmp_path / "o.mp4")) as out:
        context = out.streams.video[0].codec_context
        assert (context.width, context.height, context.name) == (96, 80, "h264")
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tuple(map(int, tags)) == (1, 1, 1, 1)
        first = next(out.decode(video=0)).to_ndarray(format="bgr24")
    assert first[42, 48, 0] < 40 and first[5, 5, 0] > 55  # the face, and only the face, is darker
    assert json.loads((tmp_path / "o.convert_report.json").read_text())["frames"]["swapped"] == 12


def test_full_hd_keeps_its_size_and_its_colours(tmp_path, dimmer, fsdeploy) -> None:
    bars = np.zeros((1080, 1920, 3), np.uint8)
    colours = [
        (235, 235, 235),
        (16, 180, 180),
        (180, 180, 16),
        (16, 180, 16),
        (180, 16, 180),
        (16, 16, 180),
        (0, 191, 0),
    ]
    for n, colour in enumerate(colours):
        bars[:, n * 274 : (n + 1) * 274] = colour
    clip = write_clip(tmp_path / "c.mp4", [bars] * 2, tags=(1, 1, 1, 1), options={"crf": "1", "preset": "ultrafast"})
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": []})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 0, err
    with av.open(str(tmp_path / "o.mp4")) as out:
        frame = next(out.decode(video=0))
        assert (frame.width, frame.height) == (1920, 1080)
        shown = frame.to_ndarray(format="bgr24", src_colorspace=1, interpolation=4 | 0x42000)
    for n, colour in enumerate(colours):
        np.testing.assert_allclose(shown[500, n * 274 + 137], colour, atol=3)


def test_an_odd_size_is_padded_by_one_line_and_column(tmp_path, dimmer, fsdeploy) -> None:
    import cv2

    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "1.png"), np.full((51, 63, 3), 90, np.uint8))
    faces = write_landmarks(tmp_path / "l.json", {"1.png": []})
    assert fsdeploy("convert", "-m", dimmer, "-i", tmp_path / "in", "-o", tmp_path / "o.mkv", "-l", faces)[0] == 0
    with av.open(str(tmp_path / "o.mkv")) as out:
        frame = next(out.decode(video=0)).to_ndarray(format="bgr24")
    assert frame.shape == (52, 64, 3) and np.abs(frame.astype(int) - 90).max() <= 3


def test_ranges_keep_the_sound_in_step(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", pictures(50), sound_seconds=2.0)
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 50))
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces, "-r", "11-20", "-r", "31-45"
    )
    assert code == 0, err
    assert times(tmp_path / "o.mp4") == [Fraction(n, 25) for n in range(25)]
    with av.open(str(tmp_path / "o.mp4")) as out:
        stamps = [packet.pts * packet.time_base for packet in out.demux(audio=0) if packet.size]
    packet = Fraction(1024, 48000)
    assert abs(float(stamps[-1] + packet) - 1.0) <= float(2 * packet)
    assert all(b > a for a, b in pairwise(stamps))


def test_a_truncated_video_is_converted_as_far_as_it_goes_and_said_so(tmp_path, dimmer, fsdeploy) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (80, 96, 3), np.uint8) for _ in range(60)]
    whole = write_clip(tmp_path / "c.mkv", noise)
    data = whole.read_bytes()
    whole.write_bytes(data[: int(len(data) * 0.6)])
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 60, ".mkv"))
    code, out, err = fsdeploy("convert", "-m", dimmer, "-i", whole, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 1 and "damaged" in out + err
    assert 20 < len(times(tmp_path / "o.mp4")) < 60


def test_a_file_that_is_no_video_is_refused(tmp_path, dimmer, fsdeploy) -> None:
    (tmp_path / "c.mp4").write_bytes(b"not a video at all" * 100)
    faces = write_landmarks(tmp_path / "l.json", {"0": []})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", tmp_path / "c.mp4", "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 2 and "c.mp4" in err and len(err.splitlines()) == 1


def test_a_full_disk_leaves_a_video_that_plays(tmp_path, dimmer, fsdeploy, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    clip = write_clip(tmp_path / "c.mp4", [rng.integers(0, 255, (240, 320, 3), np.uint8) for _ in range(40)])
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 40))

    class SmallDisk:
        """A raw file on a disk of 300 kB; the reserve's room counts again once it is given free."""

        def __init__(self, stream, reserve: Path) -> None:
            self.stream, self.reserve = stream, reserve

        def write(self, data) -> int:
            room = 300_000 + (0 if self.reserve.exists() else 1 << 20)
            if self.stream.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.stream.write(data)

        def __getattr__(self, name: str):
            return getattr(self.stream, name)

    original = storage.ReservedFile.__init__

    def init(self, path: Path, reserve: int = 1 << 20) -> None:
        original(self, path, 1 << 20)
        self._stream = SmallDisk(self._stream, self._reserve_path)

    monkeypatch.setattr(storage.ReservedFile, "__init__", init)
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 2 and "no space left" in err and len(err.splitlines()) == 1
    assert 2 <= len(times(tmp_path / "o.mp4")) < 40
    assert json.loads((tmp_path / "o.convert_report.json").read_text())["stopped"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "o"))) == [
        "o.convert_report.json", "o.mp4",
    ]  # fmt: skip


def test_ctrl_c_ends_with_a_video_that_plays(tmp_path, dimmer) -> None:
    clip = write_clip(tmp_path / "c.mp4", pictures(60, 240, 320) * 20)
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 1200))
    command = [
        sys.executable,
        "-m",
        "fsdeploy",
        "convert",
        "-m",
        dimmer,
        "-i",
        clip,
        "-o",
        tmp_path / "o.mp4",
        "-l",
        faces,
    ]
    running = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    partial = tmp_path / ".o.part.mp4"
    while time.monotonic() < deadline and not (partial.exists() and partial.stat().st_size > 0):
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert 0 < len(times(tmp_path / "o.mp4")) < 1200


def test_parts_join_to_the_whole_with_its_timing_and_sound(tmp_path, dimmer, fsdeploy) -> None:
    pts = [2 * n + (n % 3 == 0) for n in range(31)]
    clip = write_clip(tmp_path / "c.mp4", pictures(31), pts=pts, time_base=Fraction(1, 60), rate=30, sound_seconds=1.0)
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 31))
    parts = [tmp_path / f"p{n}.mp4" for n in (1, 2, 3)]
    for n, part in enumerate(parts, 1):
        code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", part, "-l", faces, "--shard", f"{n}/3")
        assert code == 0, err
    code, out, err = fsdeploy("join", parts[2], parts[0], parts[1], "-o", tmp_path / "o.mp4")
    assert code == 0, err
    assert "31 frames" in out
    assert times(tmp_path / "o.mp4") == times(clip)
    assert sound(tmp_path / "o.mp4") == sound(clip)
    code, _, err = fsdeploy("join", parts[0], parts[2], "-o", tmp_path / "x.mp4")
    assert code == 2 and "part 2 of 3 is missing" in err and not (tmp_path / "x.mp4").exists()


def test_a_part_made_with_other_settings_is_not_joined(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", pictures(8))
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 8))
    common = ("convert", "-m", dimmer, "-i", clip, "-l", faces)
    fsdeploy(*common, "-o", tmp_path / "1.mp4", "--shard", "1/2")
    fsdeploy(*common, "-o", tmp_path / "2.mp4", "--shard", "2/2", "--mask", "components")
    code, _, err = fsdeploy("join", tmp_path / "1.mp4", tmp_path / "2.mp4", "-o", tmp_path / "o.mp4")
    assert code == 2 and "other" in err and "settings" in err


@pytest.mark.parametrize(("option", "message"), [
    (("--set", "writer.video.encoder=h264_nonsense"), "h264_nonsense"),
    (("--set", "writer.video.level=banana"), "level=banana"),
    (("--set", "writer.video.level=banana", "--set", "writer.video.encoder=libx264"), "level=banana"),
    (("--set", "writer.video.profile=high422", "--set", "writer.video.tune=film", "--set", "writer.video.level=9.9",
      "--set", "writer.video.encoder=libx264"), "level=9.9"),
    (("--set", "writer.video.crf=99"), "0..51"),
    (("--set", "writer.video.crv=20"), "crv"),
    (("--color", "mkll"), "mkl"),
    (("--set", "nonsense"), "kind.plugin.option=value"),
    (("--shard", "4/3"), "I/N"),
])  # fmt: skip
def test_a_wrong_option_is_named_before_anything_is_written(tmp_path, dimmer, fsdeploy, option, message) -> None:
    clip = write_clip(tmp_path / "c.mp4", pictures(3))
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 3))
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces, *option)
    assert code == 2 and message in err and len(err.splitlines()) == 1
    assert not list(tmp_path.glob("*o*.mp4")) and not list(tmp_path.glob(".*"))


def test_sound_that_the_container_cannot_hold_is_said_at_once(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", pictures(5), sound_seconds=0.3)
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 5))
    out = tmp_path / "o.webm"
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces, "--set", "writer.video.encoder=libvpx-vp9"
    )
    assert code == 2 and "aac" in err and "--no-audio" in err


def test_a_transport_stream_takes_aac_sound(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", pictures(5), sound_seconds=0.3)
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 5))
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.ts", "-l", faces)
    assert code == 0, err

    def heard(path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])

    # The stream has no edit list, so what the encoder put before the first sample is heard too.
    assert np.array_equal(heard(tmp_path / "o.ts")[-heard(clip).size :], heard(clip))


def test_a_gif_moves_at_the_speed_of_its_source(tmp_path, dimmer, fsdeploy) -> None:
    clip = write_clip(tmp_path / "c.mp4", [spec_frame(96, 80) // (1 + n % 2) for n in range(10)], rate=10)
    faces = write_landmarks(tmp_path / "l.json", every_frame("c", 10))
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.gif", "-l", faces)
    assert code == 0, err
    assert times(tmp_path / "o.gif") == [Fraction(n, 10) for n in range(10)]
    from PIL import Image

    with Image.open(tmp_path / "o.gif") as gif:
        shown = np.asarray(gif.convert("RGB"))[..., ::-1].astype(int)
    assert np.abs(shown[:20] - spec_frame(96, 80)[:20]).mean() < 12


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".ts", ".flv"])
def test_timing_is_kept_in_other_containers(tmp_path, dimmer, fsdeploy, suffix: str) -> None:
    pts = [200 + 40 * n + 9 * (n % 3) for n in range(12)]
    clip = write_clip(tmp_path / "c.mkv", pictures(12), pts=pts, time_base=Fraction(1, 1000))
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    out = tmp_path / f"o{suffix}"
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces)
    assert code == 0, err
    assert [round(float(moment), 3) for moment in times(out)] == [n / 1000 for n in pts]


def test_a_profile_of_another_depth_is_named(tmp_path) -> None:
    deep = video.VideoFormat(64, 64, Fraction(25), bit_depth=10, options={"profile": "high", "tune": "grain"})
    with pytest.raises(InputError, match=r"libx265 does not take profile=high for 10 bit video"):
        video.VideoOutput(tmp_path / "o.mp4", deep)
    assert not list(tmp_path.iterdir())


def test_ten_bits_in_are_ten_bits_out(tmp_path, dimmer, fsdeploy) -> None:
    ramp = np.repeat(np.linspace(20000, 24000, 320, dtype=np.uint16)[None, :, None], 240, 0).repeat(3, 2)
    clip = tmp_path / "c.mp4"
    with av.open(str(clip), "w") as container:
        options = {"crf": "1", "x265-params": "log-level=error"}
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p10le"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp, format="bgr48le")))
        container.mux(stream.encode(None))
    faces = write_landmarks(tmp_path / "l.json", {"0": [spec_landmarks((60, 120), 60)]})
    out = tmp_path / "o.mp4"
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces, "-c", "none",
                            "--set", "writer.video.crf=4")  # fmt: skip
    assert code == 0, err
    with av.open(str(out)) as video:
        context = video.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.codec_tag) == ("hevc", "yuv420p10le", "hvc1")
        first = next(video.decode(video=0)).to_ndarray(format="gray16le").astype(float)
    assert len(np.unique(first[20] // 64)) > 40  # 8 bits would leave about 16 levels
    assert first[125, 60] < 0.7 * first[20, 60]  # and the face is swapped
