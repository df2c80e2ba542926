"""The example programs give what our own runtime gives."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DRIVER = Path(__file__).with_name("drive_page.mjs")


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


def packages(example: str, *names: str) -> Path:
    folder = EXAMPLES / example / "node_modules"
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: run 'npm ci --ignore-scripts' in examples/{example}")
    return folder


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def test_the_python_example_swaps_as_our_runtime_does(job, tmp_path):
    output = tmp_path / "swapped.png"
    program = EXAMPLES / "python" / "swap.py"
    subprocess.run([sys.executable, program, job.model, job.picture, job.landmarks, output], check=True, timeout=120)
    job.assert_swapped(read(output))


def test_the_python_example_is_short_and_needs_nothing_of_ours():
    lines = (EXAMPLES / "python" / "swap.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 20
    assert not any(line.startswith(("import fsdeploy", "from fsdeploy")) for line in lines)


def test_the_node_example_swaps_as_our_runtime_does(job, tmp_path):
    packages("node", "onnxruntime-node", "pngjs")
    output = tmp_path / "swapped.png"
    program = EXAMPLES / "node" / "swap.mjs"
    subprocess.run([node(), program, job.model, job.picture, job.landmarks, output], check=True, timeout=120)
    job.assert_swapped(read(output))


class _Server(http.server.SimpleHTTPRequestHandler):
    # Some systems have no type for the newer endings.
    extensions_map: ClassVar[dict[str, str]] = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    handler = functools.partial(_Server, directory=str(EXAMPLES / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def drive(url: str, files: list[Path], clicks: list[list[float]], screenshot: Path | None = None) -> dict[str, Any]:
    """Drop files on the page in headless Chromium, click in the picture, wait for the swap or an error."""
    playwright = packages("web", "onnxruntime-web", "playwright-core") / "playwright-core" / "index.js"
    wish = {
        "playwright": playwright.as_uri(),
        "chromium": chromium(),
        "url": url,
        "files": [str(path) for path in files],
        "clicks": clicks,
        "screenshot": None if screenshot is None else str(screenshot),
    }
    done = subprocess.run([node(), DRIVER, json.dumps(wish)], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["image"] = cv2.imdecode(np.frombuffer(base64.b64decode(answer["png"]), np.uint8), cv2.IMREAD_COLOR)
    return answer


def test_the_web_page_swaps_a_dropped_picture_as_our_runtime_does(job, page_url, tmp_path):
    shot = tmp_path / "page.png"
    answer = drive(page_url, [job.model, job.picture, job.landmarks], [], shot)
    assert answer["status"].startswith("Swapped on"), answer["status"]
    assert answer["problems"] == []
    assert answer["hosts"] == ["127.0.0.1"]  # nothing is fetched from or sent to anywhere else
    job.assert_swapped(answer["image"])
    assert read(shot).std() > 10


def test_the_web_page_swaps_a_real_face_as_our_runtime_does(real_job, page_url):
    answer = drive(page_url, [real_job.model, real_job.picture, real_job.landmarks], [])
    assert answer["status"].startswith("Swapped on"), answer["status"]
    real_job.assert_swapped(answer["image"])


def test_the_web_page_swaps_by_three_clicks_where_the_landmarks_would_swap(job, page_url):
    points = np.array(json.loads(job.landmarks.read_text()))
    clicks = [points[part].mean(axis=0).tolist() for part in (slice(36, 42), slice(42, 48), slice(48, 60))]
    answer = drive(page_url, [job.model, job.picture], clicks)
    assert answer["status"].startswith("Swapped on"), answer["status"]
    changed, wanted = (
        np.abs(image.astype(int) - job.frame).max(axis=2) > 4 for image in (answer["image"], job.expected)
    )
    assert (changed & wanted).sum() / (changed | wanted).sum() > 0.6


def test_the_web_page_says_what_is_wrong_with_a_landmark_file(job, page_url, tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[[1, 2], [3, 4]]")
    answer = drive(page_url, [job.model, job.picture, wrong], [])
    assert answer["status"] == "wrong.json must be a list of 68 [x, y] pixels"
