"""However a conversion ends, its report says so, and nothing half-written is left."""

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

from fsdeploy.convert import sources, video
from fsdeploy.convert.conversion import Conversion
from fsdeploy.convert.frame import OutputInfo, Picture, Status
from fsdeploy.convert.landmarks import FaceIndex
from fsdeploy.convert.pipeline import INTERRUPTED, convert
from fsdeploy.convert.plugin import Writer
from fsdeploy.convert.report import UNFINISHED, Report
from fsdeploy.convert.settings import Choice, build_look
from fsdeploy.convert.swap import crop_faces
from fsdeploy.faces.records import FaceRecord
from fsdeploy.runtime import Swapper

FACE = spec_landmarks((32, 30), 22)


def clip_of(path: Path, count: int = 40, **more) -> Path:
    return write_clip(path, [np.full((60, 64, 3), 40 + 2 * n, np.uint8) for n in range(count)], **more)


def report_of(output: Path) -> dict:
    return json.loads(output.with_name(f"{output.stem}.convert_report.json").read_text())


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def fail_at(number: int, error: Exception, original):
    """A function that raises at its n-th call."""
    calls = 0

    def call(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return original(*arguments, **named)

    return call


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a bug"), av.error.ExternalError(1, "gone")])
def test_whatever_fails_in_the_reader_ends_in_a_report_that_is_not_complete(
    tmp_path, dimmer, fsdeploy, monkeypatch, error: Exception
) -> None:
    clip = clip_of(tmp_path / "c.mp4")
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    monkeypatch.setattr(sources, "to_bgr", fail_at(20, error, sources.to_bgr))
    code, _, _ = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces)
    report = report_of(tmp_path / "o.mp4")
    assert code != 0 and report["complete"] is False and report["stopped"]
    assert report["frames"]["read"] == report["frames"]["written"] == 19  # what was read is written
    assert not hidden(tmp_path)


@pytest.mark.parametrize("method", ["_converted", "_flush"])
def test_a_part_whose_encoder_failed_is_not_joined(tmp_path, dimmer, fsdeploy, monkeypatch, method: str) -> None:
    clip = clip_of(tmp_path / "c.mp4")
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    common = ("convert", "-m", dimmer, "-i", clip, "-l", faces)
    broken = fail_at(15 if method == "_converted" else 1, av.error.ExternalError(1, "the encoder is gone"),
                     getattr(video.VideoOutput, method))  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(video.VideoOutput, method, lambda self, *arguments: broken(self, *arguments))
        code, _, err = fsdeploy(*common, "-o", tmp_path / "1.mp4", "--shard", "1/2")
    assert code == 2 and "encoder is gone" in err and len(err.splitlines()) == 1
    assert report_of(tmp_path / "1.mp4")["complete"] is False and not hidden(tmp_path)
    assert fsdeploy(*common, "-o", tmp_path / "2.mp4", "--shard", "2/2")[0] == 0
    code, _, err = fsdeploy("join", tmp_path / "1.mp4", tmp_path / "2.mp4", "-o", tmp_path / "o.mp4")
    assert code == 2 and "1.mp4 is not finished" in err and not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("method", ["_flush", "_finish_sound", "_mark_box"])
def test_an_interrupt_while_the_file_is_closed_leaves_nothing_half_written(
    tmp_path, dimmer, fsdeploy, monkeypatch, method: str, force: bool
) -> None:
    clip = clip_of(tmp_path / "c.mp4")
    faces = write_landmarks(tmp_path / "l.json", {"c_000001.mp4": [FACE]})
    out = tmp_path / "o.mp4"
    if force:
        out.write_bytes(b"an earlier one")

    def interrupt(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(video.VideoOutput, method, interrupt)
    code, _, _ = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", out, "-l", faces, *(["--force"] if force else []))
    assert code not in (0, 1) and not hidden(tmp_path)
    assert report_of(out)["stopped"] == INTERRUPTED and report_of(out)["complete"] is False
    assert out.exists() == force and (not force or out.read_bytes() == b"an earlier one")


class Collected(Writer):
    """Keeps what it is given."""

    def __init__(self, broken_end: bool = False) -> None:
        super().__init__()
        self.broken_end, self.seen = broken_end, []

    def open(self, info: OutputInfo) -> None:
        pass

    def write(self, picture: Picture, encoded: object) -> None:
        self.seen.append(picture.index)

    def close(self, complete: bool) -> None:
        if self.broken_end:
            raise OSError("the disk is gone")


def folder_job(folder: Path, model: object, writer: Writer, faces: dict, **more) -> Conversion:
    folder.mkdir()
    for n in range(8):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((60, 64, 3), 100 + n, np.uint8))
    known = FaceIndex(Path("l.json"), faces, by_index=True)
    return Conversion(
        sources.open_source(folder), known, model, build_look(Choice()), writer, folder / "o", rate=Fraction(25), **more
    )


def record() -> FaceRecord:
    return FaceRecord(0, 0, 9, 9, FACE, {}, {}, None, {})


def test_an_output_that_cannot_be_closed_is_not_complete(tmp_path, dimmer) -> None:
    report = Report()
    with pytest.raises(OSError, match="disk is gone"):
        convert(folder_job(tmp_path / "in", Swapper(dimmer), Collected(broken_end=True), {}), report)
    assert report.written == 8 and not report.complete and "disk is gone" in report.stopped


def test_a_report_is_complete_only_when_its_conversion_ended(tmp_path, dimmer) -> None:
    report = Report()
    seen: list[bool] = []
    convert(
        folder_job(tmp_path / "in", Swapper(dimmer), Collected(), {}), report, lambda now: seen.append(now.complete)
    )
    assert report.complete and seen == [False] * 9  # once for the open output, once for each frame
    report.written -= 1
    assert not report.complete


def test_a_stage_that_dies_ends_the_conversion(tmp_path, dimmer, monkeypatch) -> None:
    from fsdeploy.convert import pipeline

    report, faces = Report(), {str(n): [record()] for n in range(8)}
    job = folder_job(tmp_path / "in", Swapper(dimmer), Collected(), faces)
    monkeypatch.setattr(pipeline._Run, "_run_batch", fail_at(1, MemoryError(), None))
    with pytest.raises(MemoryError):
        convert(job, report)
    assert not report.complete and report.stopped


@pytest.mark.parametrize("raises", [False, True])
def test_one_face_without_a_swap_costs_no_other_frame_of_its_batch(tmp_path, dimmer, raises: bool) -> None:
    plain = Swapper(dimmer)

    class Moody:
        """Fails at the frame of grey 105, whatever is in the batch with it."""

        metadata, crop_size, face_size = plain.metadata, plain.crop_size, plain.face_size

        def swap(self, crops):
            faces, masks = plain.swap(crops)
            bad = np.array([np.isclose(float(np.asarray(crop, np.float64).max()), level, atol=1e-3) for crop in crops])
            if raises and bad.any():
                raise RuntimeError("no such face")
            faces[bad] = np.nan
            return faces, masks

    image = np.full((60, 64, 3), 105, np.uint8)
    level = float(np.asarray(crop_faces(image, [record()], plain)[0].feed, np.float64).max())
    report, writer = Report(), Collected()
    faces = {str(n): [record()] for n in range(8)}
    convert(folder_job(tmp_path / "in", Moody(), writer, faces, batch=8), report)
    assert [key for key, _ in report.failed] == ["5.png"]
    assert report.status[Status.SWAPPED] == 7 and writer.seen == list(range(8))


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_a_killed_conversion_leaves_no_report_that_says_complete(tmp_path, dimmer, fsdeploy) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(600):
        cv2.imwrite(str(folder / f"{n:04d}.png"), np.full((300, 320, 3), 100, np.uint8))
    faces = write_landmarks(
        tmp_path / "l.json", {f"{n:04d}.png": [spec_landmarks((160, 150), 100)] for n in range(600)}
    )
    out = tmp_path / "o"
    out.mkdir()
    (out / "convert_report.json").write_text('{"complete": true}')  # of an earlier run
    command = [sys.executable, "-m", "fsdeploy", "convert", "-m", dimmer, "-i", folder, "-o", out, "-l", faces]
    running = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.poll() is None and not list(out.glob("0*.png")):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    report = json.loads((out / "convert_report.json").read_text())
    assert report["complete"] is False and report["stopped"] == UNFINISHED


def test_recordings_put_one_after_the_other_go_on_without_a_gap_and_with_their_sound(
    tmp_path, dimmer, fsdeploy
) -> None:
    """Transport streams may be concatenated byte by byte: times start again at the seam."""
    one = clip_of(tmp_path / "a.ts", 40, sound_seconds=1.6, options={"crf": "8", "preset": "ultrafast", "bf": "0"})
    twice = tmp_path / "c.ts"
    twice.write_bytes(one.read_bytes() * 2)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    out = tmp_path / "o.mp4"
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", twice, "-o", out, "-l", faces)
    assert code == 0, err
    with av.open(str(twice)) as source:
        read = sum(1 for _ in source.decode(video=0))
    with av.open(str(out)) as container:
        shown = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    steps = np.diff([float(moment) for moment in shown])
    assert len(shown) == read and np.abs(steps - 0.04).max() < 1e-3
    with av.open(str(out)) as container:
        heard = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    gaps = np.diff(heard)
    assert gaps.min() > 0 and gaps.max() < 0.05 and abs(heard[-1] - float(shown[-1])) < 0.1
    report = report_of(out)
    assert report["complete"] and any("timestamps go back" in note for note in report["notes"])
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", twice, "-o", tmp_path / "p.mp4", "-l", faces, "--shard", "1/2"
    )
    assert code == 2 and "timestamps go back" in err and not (tmp_path / "p.mp4").exists()


def test_sound_of_a_reference_ends_with_the_pictures(tmp_path, dimmer, fsdeploy) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(10):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((60, 64, 3), 20 * n, np.uint8))
    reference = clip_of(tmp_path / "r.mp4", 25, sound_seconds=5.0)
    faces = write_landmarks(tmp_path / "l.json", {"1.png": []})
    out = tmp_path / "o.mp4"
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", folder, "-o", out, "-l", faces, "--reference-video", reference
    )
    assert code == 0, err
    with av.open(str(out)) as container:
        heard = [float((p.pts + p.duration) * p.time_base) for p in container.demux(audio=0) if p.size]
    assert 0.35 < heard[-1] < 0.45  # ten pictures at 25 a second


@pytest.mark.parametrize("name", ["plain", "folder.gif"])
def test_the_gif_writer_wants_a_file_name(tmp_path, dimmer, fsdeploy, name: str) -> None:
    clip = clip_of(tmp_path / "c.mp4", 3)
    faces = write_landmarks(tmp_path / "l.json", {"0": [FACE]})
    if name != "plain":
        (tmp_path / name).mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    code, _, err = fsdeploy(
        "convert", "-m", dimmer, "-i", clip, "-o", tmp_path / name, "-l", faces, "-w", "gif", "--force"
    )
    assert code == 2 and ".gif" in err and len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
