"""`fsdeploy inspect` on faces, pictures, videos and JSON files, and how its tables show them."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from fsdeploy.cli.config import config
from fsdeploy.cli.describe import media
from fsdeploy.cli.describe.tables import print_tables
from fsdeploy.cli.inspect import inspect
from fsdeploy.errors import FsdeployError, InputError
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource

COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
XMP = (
    "<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description "
    f'Iptc4xmpExt:DigitalSourceType="{COMPOSITE}" xmp:CreatorTool="maker &amp; son 3"/></x:xmpmeta>'
).encode()
MODEL = {"file": "a2b.onnx", "sha256": "ab" * 32, "weights_sha256": "cd" * 32, "direction": "a2b", "provider": "CPU"}
REPORT = {
    "report_version": 1, "complete": False, "frames": {"read": 3, "written": 3, "swapped": 2, "failed": 1}, "faces": 2,
    "failed": [{"frame": "2.png", "reason": "why"}], "stopped": "", "output": "out.mkv", "model": MODEL,
    "marked": COMPOSITE,
}  # fmt: skip
STATE = {
    "name": "original", "iterations": 12, "lowest_avg_loss": 0.0, "lr_finder": -1.0, "sessions": {"1": {}},
    "config": {}, "fsdeploy": {"version": "9.9", "saved": 86400.0 * 365},
}  # fmt: skip
MANIFEST = {
    "manifest_version": 1, "file": "a2b.onnx", "sha256": "ab" * 32, "bytes": 2_000_000, "inputs": [], "outputs": [],
    "parity": [], "metadata": {"direction": "a2b", "plugin": "compact", "iterations": 5, "producer_version": "9.9"},
}  # fmt: skip
POINTS = [[1.0, 2.0]] * 68


def facts(path: Path) -> dict[str, Any]:
    result = CliRunner().invoke(inspect, [str(path), "--json"], standalone_mode=False)
    if result.exception:
        raise result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def shown(path: Path) -> str:
    return CliRunner().invoke(inspect, [str(path)], standalone_mode=False, catch_exceptions=False).stdout


def refusal(path: Path) -> str:
    with pytest.raises(FsdeployError) as caught:
        facts(path)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value), "whoever only asks what a file is does not want to lose it"
    assert path.name in str(caught.value)
    return str(caught.value)


def a_face(path: Path, frame: str, is_video: bool) -> None:
    points = np.random.default_rng(3).uniform(2, 14, (68, 2)).astype(np.float32)
    record = FaceRecord(x=2, y=2, w=12, h=12, landmarks=points, masks={}, identity={}, thumb=None, extra={})
    source = FaceSource(2.4, path.name, 0, frame, is_video, (60, 64))
    write_face(path, np.zeros((16, 16, 3), np.uint8), FaceHeader(record, source))


def a_video(path: Path, frames: int = 6, comment: str = "") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        container.metadata["comment"] = comment
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 32, 3), np.uint8), format="bgr24")))
        container.mux(stream.encode())
    return path


def test_a_folder_of_faces_is_counted(tmp_path: Path) -> None:
    for number in (1, 2):
        a_face(tmp_path / f"{number}.png", f"my_clip_00000{number}.mp4", True)
    a_face(tmp_path / "3.png", "photo_1.jpg", False)
    cv2.imwrite(str(tmp_path / "sheet.png"), np.zeros((4, 9, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("x")
    found = facts(tmp_path)
    assert (found["kind"], found["faces"], found["sizes"]) == ("folder of faces", 3, {"16 px": 3})
    assert found["sources"] == {"my_clip.mp4": 2, "image files": 1}
    assert (found["centerings"], found["other_files"]) == ({"head": 3}, 1)
    assert found["no_faces"] == [{"file": "sheet.png", "reason": "an image of 9x4 pixels is not square"}]
    assert "my_clip.mp4: 2, image files: 1" in shown(tmp_path), "names of files are shown as they are"


def test_a_real_folder_of_faces_names_its_clip(real_data: Path) -> None:
    found = facts(real_data / "faces" / "A")
    assert (found["faces"], found["masks"], found["sources"]) == (111, {"custom_face": 111}, {"clip_A.mp4": 111})


@pytest.mark.parametrize("size", [(8, 8), (1156, 332), (5000, 3)])
def test_a_picture_that_is_no_face_is_a_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    for name in ("sheet.png", "photo.jpg", "photo.webp"):
        path = tmp_path / name
        cv2.imwrite(str(path), np.zeros((size[1], size[0], 3), np.uint8))
        expected = {"path": str(path), "kind": "image", "width": size[0], "height": size[1], "marked": False}
        assert facts(path) == expected


def test_the_mark_of_a_picture_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    body = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    found = facts(path)
    assert found["marked"] == "compositeWithTrainedAlgorithmicMedia"
    assert found["made_with"] == "maker & son 3"


def test_a_folder_of_frames_counts_the_marked(tmp_path: Path) -> None:
    for name in ("1.bmp", "2.bmp"):
        cv2.imwrite(str(tmp_path / name), np.zeros((6, 8, 3), np.uint8))
    with (tmp_path / "2.bmp").open("ab") as stream:
        stream.write(XMP)
    found = facts(tmp_path)
    assert (found["kind"], found["images"], found["marked_images"]) == ("folder of images", 2, 1)
    assert (found["width"], found["height"]) == (8, 6)


def test_of_a_very_large_folder_the_first_images_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_LOOKED_INTO", 2)
    for name in ("1.bmp", "2.bmp", "3.bmp"):
        cv2.imwrite(str(tmp_path / name), np.zeros((6, 8, 3), np.uint8))
        with (tmp_path / name).open("ab") as stream:
            stream.write(XMP)
    found = facts(tmp_path)
    assert (found["images"], found["marked_images"], found["looked_into"]) == (3, 2, 2)


def test_a_video_and_its_mark(tmp_path: Path) -> None:
    plain = facts(a_video(tmp_path / "plain.mp4"))
    assert (plain["kind"], plain["width"], plain["height"], plain["frames"]) == ("video", 32, 16, 6)
    assert (plain["frames_per_second"], plain["seconds"], plain["marked"]) == (12.0, 0.5, False)
    assert re.search(r"marked +no\b", shown(tmp_path / "plain.mp4"))
    tagged = facts(a_video(tmp_path / "tagged.mkv", comment=f"DigitalSourceType: {COMPOSITE}"))
    assert tagged["marked"] == "compositeWithTrainedAlgorithmicMedia"
    marked = a_video(tmp_path / "marked.mp4")
    uuid = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
    with marked.open("ab") as stream:
        stream.write(struct.pack(">I4s", 24 + len(XMP), b"uuid") + uuid + XMP)
    assert (facts(marked)["marked"], facts(marked)["made_with"]) == (tagged["marked"], "maker & son 3")


def test_the_report_beside_a_marked_video_names_its_model(tmp_path: Path) -> None:
    report = tmp_path / "out.convert_report.json"
    report.write_text(json.dumps(REPORT))
    path = a_video(tmp_path / "out.mkv", comment=COMPOSITE)
    assert facts(path)["model"] == {"file": "a2b.onnx", "sha256": "ab" * 32, "direction": "a2b"}
    report.write_text(json.dumps({**REPORT, "output": "out.mp4"}))
    assert "model" not in facts(path), "a report of another file with that stem"
    report.write_text("[")
    assert "report" not in facts(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("convert_report.json", REPORT, {"kind": "conversion report", "complete": False, "faces": 2}),
        ("a2b.onnx.json", MANIFEST, {"kind": "export manifest", "megabytes": 2.0, "written_by": "fsdeploy 9.9"}),
        ("original_state.json", STATE, {"kind": "model state", "plugin": "original", "iterations": 12}),
        ("original_state.json.bk", STATE, {"kind": "model state", "lowest_avg_loss": None, "lr_finder": None}),
        ("demo.json", {"seed": 1}, {"kind": "demo summary", "seed": 1}),
        ("l.json", {"1.png": [POINTS]}, {"kind": "landmarks", "frames": 1, "faces": 1, "landmarks": {"68": 1}}),
    ],
)
def test_our_json_files_say_what_they_are(
    tmp_path: Path, name: str, content: object, expected: dict[str, object]
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    assert expected.items() <= facts(tmp_path / name).items()
    assert str(expected["kind"]) in shown(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"{"), ("b.json", b"3"), ("c.json", b'{"report_version": 1}'), ("d.json", b'{"sessions": 7}'),
        ("e.json", b"[" * 100_000), ("f.json", b'{"manifest_version": 1, "metadata": []}'), ("g.csv", b"\xff"),
        ("x.mp4", b"no video"), ("x.jpg", b"no picture"), ("cut.png", b"\x89PNG\r\n\x1a\n\0\0"), ("y.gif", b""),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_in_one_line_without_bad_advice(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)


def test_a_damaged_face_is_refused_without_bad_advice(tmp_path: Path) -> None:
    a_face(tmp_path / "f.png", "1.png", False)
    data = bytearray((tmp_path / "f.png").read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    (tmp_path / "f.png").write_bytes(data)
    assert "checksum" in refusal(tmp_path / "f.png")


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(InputError, match="no model, no faces and no images"):
        facts(tmp_path)


def test_what_was_not_measured_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "original_state.json").write_text(json.dumps(STATE))
    text = shown(tmp_path / "original_state.json")
    assert re.search(r"lowest avg loss +not measured yet", text)
    assert re.search(r"lr finder +not used", text)


def test_tables_say_everything_once_and_nothing_raw(capsys: pytest.CaptureFixture[str]) -> None:
    metadata = {"direction": "a2b", "opset": 17, "ir_version": 8, "scaler": None, "extra": {"crop": {"size": 64}}}
    print_tables({
        "kind": "k", "ir_version": 8, "opsets": {"ai.onnx": 17}, "output_size": 128, "output_sizes": [64, 128],
        "fsdeploy": metadata, "clip": None, "loss": 0.625201792518,
    })  # fmt: skip
    lines = [re.sub(r" {2,}", "=", line.rstrip()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "kind=k", "ir version=8", "opsets=ai.onnx: 17", "output sizes=[64, 128]", "direction=a2b",
        "extra crop size=64", "loss=0.625202",
    ]  # fmt: skip


def test_lines_in_a_pipe_are_as_long_as_what_they_say() -> None:
    digest = "0123456789abcdef" * 8
    facts = {"path": digest, "files": [{"file": "long" * 10, "sha256": digest}, {"file": "more" * 10, "sha256": ""}]}
    code = f"from fsdeploy.cli.describe.tables import print_tables; print_tables({facts!r})"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert piped.count(digest) == 2
    assert "long" * 10 in piped


def test_a_narrow_terminal_folds_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    print_tables({"kind": "0" * 70, "files": [{"file": "z" * 40, "sha256": "1" * 64}]})
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert (text.count("z"), text.count("0"), text.count("1")) == (40, 70, 64)


def test_config_show_tells_what_each_option_means(tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text("[lr_finder]\nlr_finder_iterations = 500\n")
    result = CliRunner().invoke(config, ["show", str(tmp_path / "o.toml")], catch_exceptions=False)
    line = next(line for line in result.stdout.splitlines() if "lr_finder_iterations" in line)
    assert "500 (default 1000)" in line
    assert "Steps of the scan. 100 to 10000" in line
