"""The pipeline: bounded memory, order, and an end in every case."""

import threading
import time
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from drawn import colour_model, spec_landmarks

from fsdeploy.convert.conversion import Conversion
from fsdeploy.convert.frame import Frame, OutputFullError, OutputInfo, Picture, SourceInfo, Status
from fsdeploy.convert.landmarks import FaceIndex
from fsdeploy.convert.pipeline import convert
from fsdeploy.convert.plugin import Writer
from fsdeploy.convert.report import Report
from fsdeploy.convert.settings import Choice, build_look
from fsdeploy.errors import InputError
from fsdeploy.faces.records import FaceRecord
from fsdeploy.runtime import Swapper

FACE = FaceRecord(0, 0, 9, 9, spec_landmarks((32, 30), 22), {}, {}, None, {})


class Endless:
    """A source of drawn frames that knows how many of them are alive."""

    def __init__(self, count: int, broken_at: int | None = None) -> None:
        self.count, self.broken_at = count, broken_at
        self.info = SourceInfo(Path("drawn"), False, 64, 60, None)
        self.alive, self.most_alive, self.given = 0, 0, 0
        self._lock = threading.Lock()

    def keys(self) -> None:
        return None

    def _gone(self) -> None:
        with self._lock:
            self.alive -= 1

    def frames(self, first: int = 0, last: int | None = None) -> Iterator[Frame]:
        for index in range(first, min(self.count, last or self.count)):
            if index == self.broken_at:
                raise InputError("the disk with the source is gone")
            image = np.full((60, 64, 3), index % 251, np.uint8)
            with self._lock:
                self.alive += 1
                self.most_alive = max(self.most_alive, self.alive)
            weakref.finalize(image, self._gone)
            self.given += 1
            yield Frame(index, f"{index}", index, image)


class Memory(Writer):
    """Remembers the order of what it was given, as slowly as told."""

    def __init__(self, seconds: float = 0.0, room: int | None = None) -> None:
        super().__init__()
        self.seconds, self.room = seconds, room
        self.seen: list[int] = []
        self.statuses: list[Status] = []
        self.closed: list[bool] = []

    def open(self, info: OutputInfo) -> None:
        self.info = info

    def write(self, picture: Picture, encoded: object) -> None:
        if self.room is not None and len(self.seen) >= self.room:
            raise OutputFullError("no space left")
        time.sleep(self.seconds)
        self.seen.append(picture.index)
        self.statuses.append(picture.status)

    def close(self, complete: bool) -> None:
        self.closed.append(complete)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Swapper:
    return Swapper(colour_model(tmp_path_factory.mktemp("m") / "m.onnx", size=32, output=32, gain=(0.5, 0.5, 0.5)))


def job(source: Endless, writer: Writer, model: object, faces: dict | None = None, **more) -> Conversion:
    known = FaceIndex(Path("l.json"), faces or {}, by_index=True)
    return Conversion(source, known, model, build_look(Choice()), writer, Path("o"), rate=Fraction(25), **more)


def test_ten_thousand_frames_without_faces_keep_memory_flat(model) -> None:
    source, writer = Endless(10_000), Memory()
    report = convert(job(source, writer, model))
    assert writer.seen == list(range(10_000)) and writer.closed == [True]
    assert report.status[Status.UNCHANGED] == report.read == report.written == 10_000
    assert source.most_alive <= 2 * 2 + 2 + 4 + 2  # permits, the frame being drawn, the last one written


def test_a_slow_writer_holds_the_reader_back(model) -> None:
    source, writer = Endless(60), Memory(seconds=0.005)
    convert(job(source, writer, model, {str(n): [FACE] for n in range(0, 60, 3)}))
    assert writer.seen == list(range(60)) and source.most_alive <= 12


def test_order_is_kept_whatever_takes_longer(model) -> None:
    faces = {str(n): [FACE] * (1 + n % 4) for n in range(0, 80, 2)}
    writer = Memory()
    report = convert(job(Endless(80), writer, model, faces, jobs=4, batch=3))
    assert writer.seen == list(range(80))
    assert report.faces == sum(map(len, faces.values()))
    assert [status is Status.SWAPPED for status in writer.statuses] == [n % 2 == 0 for n in range(80)]


def test_a_source_that_fails_closes_the_output_and_says_why(model) -> None:
    writer = Memory()
    with pytest.raises(InputError, match="the source is gone"):
        convert(job(Endless(50, broken_at=20), writer, model))
    assert writer.closed == [False] and writer.seen == list(range(len(writer.seen)))


def test_a_full_output_stops_the_source_at_once(model) -> None:
    source, writer, report = Endless(100_000), Memory(room=5), Report()
    with pytest.raises(OutputFullError):
        convert(job(source, writer, model), report)
    assert source.given < 40 and writer.closed == [False] and report.written == 5 and report.stopped


def test_stopping_writes_what_is_in_flight(model) -> None:
    source, writer, stop = Endless(100_000), Memory(), threading.Event()

    def progress(report: Report) -> None:
        if report.written == 30:
            stop.set()

    report = convert(job(source, writer, model, {str(n): [FACE] for n in range(500)}), None, progress, stop)
    assert report.stopped == "interrupted" and writer.closed == [False]
    assert writer.seen == list(range(source.given)) and 30 <= source.given < 60


def test_a_model_that_fails_or_gives_no_numbers_leaves_valid_frames(model) -> None:
    class Broken:
        metadata, crop_size, face_size = model.metadata, model.crop_size, model.face_size

        def swap(self, crops):
            if crops.max() % 2:
                raise RuntimeError("out of memory")
            return np.full((len(crops), 32, 32, 3), np.nan, np.float32), None

    writer = Memory()
    report = convert(job(Endless(20), writer, Broken(), {str(n): [FACE] for n in range(20)}, batch=1))
    assert writer.seen == list(range(20)) and report.status[Status.FAILED] == 20
    reasons = {reason for _, reason in report.failed}
    assert "RuntimeError: out of memory" in reasons and "the model gave values that are no numbers" in reasons


def test_frames_of_another_size_are_fitted_into_a_video(tmp_path, dimmer, fsdeploy) -> None:
    import av
    import cv2
    from drawn import write_landmarks

    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "1.png"), np.full((60, 80, 3), 200, np.uint8))
    cv2.imwrite(str(tmp_path / "in" / "2.png"), np.full((80, 60, 3), 200, np.uint8))
    faces = write_landmarks(tmp_path / "l.json", {"1.png": []})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", tmp_path / "in", "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 0, err
    with av.open(str(tmp_path / "o.mp4")) as video:
        second = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)][1]
    assert second.shape == (60, 80) and second[30, 5] < 30 and second[30, 40] > 180


def test_images_become_a_video_with_the_rate_and_sound_of_another(tmp_path, dimmer, fsdeploy) -> None:
    import av
    import cv2
    from drawn import write_clip, write_landmarks

    (tmp_path / "in").mkdir()
    for n in range(6):
        cv2.imwrite(str(tmp_path / "in" / f"{n}.png"), np.full((60, 80, 3), 20 * n, np.uint8))
    reference = write_clip(tmp_path / "r.mp4", [np.zeros((60, 80, 3), np.uint8)] * 6, rate=12, sound_seconds=0.5)
    faces = write_landmarks(tmp_path / "l.json", {"1.png": []})
    common = ("convert", "-m", dimmer, "-i", tmp_path / "in", "-l", faces)
    code, _, err = fsdeploy(*common, "-o", tmp_path / "o.mp4", "--reference-video", reference, "--scale", 50)
    assert code == 0, err
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert video.streams.audio and video.streams.video[0].average_rate == 12
        frames = list(video.decode(video=0))
    assert len(frames) == 6 and (frames[0].width, frames[0].height) == (40, 30)


@pytest.mark.parametrize("degrees", [90, -90])
def test_a_rotated_phone_video_stays_rotated(tmp_path, dimmer, fsdeploy, degrees: int) -> None:
    import av
    from drawn import write_landmarks

    clip = tmp_path / "c.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(degrees)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")))
        container.mux(stream.encode(None))
    faces = write_landmarks(tmp_path / "l.json", {"0": []})
    code, _, err = fsdeploy("convert", "-m", dimmer, "-i", clip, "-o", tmp_path / "o.mp4", "-l", faces)
    assert code == 0, err
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert next(video.decode(video=0)).rotation == degrees


def test_a_model_folder_is_exported_once_and_again_when_it_changes(tmp_path, monkeypatch) -> None:
    from fsdeploy.convert import model as models

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "original_state.json").write_text("{}")
    monkeypatch.setenv("FSDEPLOY_CACHE", str(tmp_path / "cache"))
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        commands.append(command)
        Path(command[command.index("-o") + 1]).write_bytes(b"onnx")
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(models.subprocess, "run", run)
    first = models.exported_model(folder)
    assert models.exported_model(folder) == first and len(commands) == 1 and "--swap-sides" not in commands[0]
    assert models.exported_model(folder, swap_sides=True) != first and "--swap-sides" in commands[1]
    (folder / "original_state.json").write_text('{"iterations": 2}')
    assert models.exported_model(folder) != first and len(commands) == 3
    with pytest.raises(InputError, match="state"):
        models.exported_model(tmp_path / "cache")
