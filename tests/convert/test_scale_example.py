"""The Ray example of docs/scale.md, run as it stands on this machine."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from drawn import colour_model, spec_landmarks, write_clip, write_landmarks

EXAMPLE = Path(__file__).parents[2] / "examples" / "scale" / "ray_convert.py"


def test_the_note_of_a_part_tells_when_the_alignments_beside_its_input_change(tmp_path, monkeypatch) -> None:
    plain = SimpleNamespace(remote=lambda **options: lambda function: function)
    monkeypatch.setitem(sys.modules, "ray", plain)
    spec = importlib.util.spec_from_file_location("ray_convert_under_test", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("m.onnx", "c.mp4", "frames/1.png"):
        (tmp_path / name).write_bytes(b"data")
    for source, alignments in (("c.mp4", "c_alignments.fsa"), ("frames", "frames/alignments.fsa")):
        notes = [example.describe_job(tmp_path / "m.onnx", tmp_path / source, 2, [])]
        for content in (b"faces", b"other faces"):
            (tmp_path / alignments).write_bytes(content)
            notes.append(example.describe_job(tmp_path / "m.onnx", tmp_path / source, 2, []))
        assert notes[0] != notes[1] != notes[2]
        assert notes[2] == example.describe_job(tmp_path / "m.onnx", tmp_path / source, 2, [])


@pytest.mark.slow
def test_a_clip_is_spread_over_ray_tasks_and_joined(tmp_path, dimmer) -> None:
    pytest.importorskip("ray", reason="the example needs the ray package")
    clip = write_clip(
        tmp_path / "c.mp4", [np.full((60, 64, 3), 50 + n, np.uint8) for n in range(12)], sound_seconds=0.4
    )
    faces = write_landmarks(tmp_path / "l.json", {str(n): [spec_landmarks((32, 30), 22)] for n in range(12)})
    out = tmp_path / "o.mp4"
    command = [sys.executable, EXAMPLE, "--parts", "2", "-m", dimmer, "-i", clip, "-o", out, "--", "-l", faces]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "part 1 of 2" in done.stdout and "part 2 of 2" in done.stdout and "12 frames" in done.stdout
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 12 and video.streams.audio


@pytest.mark.slow
def test_parts_of_another_model_are_converted_again_and_those_of_this_one_are_not(tmp_path, dimmer) -> None:
    pytest.importorskip("ray", reason="the example needs the ray package")
    clip = write_clip(tmp_path / "c.mp4", [np.full((60, 64, 3), 120, np.uint8) for _ in range(4)])
    faces = write_landmarks(tmp_path / "l.json", {str(n): [spec_landmarks((32, 30), 22)] for n in range(4)})
    out = tmp_path / "o.mp4"
    more = ["--", "-l", faces, "--color", "none", "--no-audio"]
    model = tmp_path / "m.onnx"

    def run(original) -> tuple[str, float]:
        """What was printed, and how bright the face is."""
        model.write_bytes(original.read_bytes())
        command = [sys.executable, EXAMPLE, "--parts", "2", "-m", model, "-i", clip, "-o", out, *more]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
        with av.open(str(out)) as video:
            picture = next(video.decode(video=0)).to_ndarray(format="bgr24")
        return done.stdout, float(picture[28:33, 30:35].mean())

    printed, dim = run(dimmer)
    assert "part 1 of 2" in printed and dim < 80
    printed, again = run(dimmer)
    assert "part 1 of 2" not in printed and again == dim
    brighter = colour_model(tmp_path / "bright.onnx", size=32, output=32, gain=(1.5, 1.5, 1.5))
    printed, bright = run(brighter)
    assert "part 1 of 2" in printed and "part 2 of 2" in printed and bright > 150
