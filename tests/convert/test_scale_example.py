"""The Ray example of docs/scale.md, run as it stands on this machine."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from drawn import spec_landmarks, write_clip, write_landmarks

EXAMPLE = Path(__file__).parents[2] / "examples" / "scale" / "ray_convert.py"


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
