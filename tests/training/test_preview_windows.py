"""Preview windows for real, under a virtual display, with keys pressed by xdotool; and the file where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from fsdeploy.training import preview_window, preview_zoom
from fsdeploy.training.preview_cv import PreviewBuffer, PreviewCV, new_triggers
from fsdeploy.training.preview_window import open_preview

WAIT_S = 30.0


def until(condition, seconds=WAIT_S):
    """Wait until a condition holds; returns what it gives last."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


@pytest.fixture(scope="module")
def display():
    """DISPLAY of a virtual screen of 1280x1024 that lives for these tests."""
    if not shutil.which("Xvfb") or not shutil.which("xdotool"):
        pytest.skip("no virtual display here: install xvfb and xdotool")
    read, write = os.pipe()
    # -noreset: else the server starts anew when its last window goes, and refuses who comes at that moment.
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as stream:
        number = stream.readline().strip()
    if not number:
        server.wait(10)
        pytest.skip("Xvfb does not start here")
    yield f":{number}"
    server.terminate()
    server.wait(10)


@pytest.fixture
def screen(display, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def xdotool(*words):
    return subprocess.run(["xdotool", *words], capture_output=True, text=True, timeout=WAIT_S).stdout.split()


def window_named(name):
    """The id of the visible window whose title holds `name`."""
    found = until(lambda: xdotool("search", "--onlyvisible", "--name", name))
    assert found, f"no window '{name}'"
    return found[-1]


def focused(window):
    xdotool("windowfocus", "--sync", window)
    return window


def press(key, has_arrived):
    """Press a key until it has its effect: a busy machine may take the focus late."""

    def once():
        xdotool("key", key)
        return until(has_arrived, 2.0)

    result = until(once)
    assert result, f"{key} did not arrive"
    return result


def saved_pictures(folder, shape):
    """Whether the pictures that Ctrl+s saved in a folder include one of this shape."""
    found = [cv2.imread(str(path)) for path in folder.glob("preview_*.png")]
    return [image for image in found if image is not None and image.shape == shape]


def sheet(height=200, width=300):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["tk", "opencv"])
def test_a_window_opens_and_its_keys_reach_the_training(screen, tmp_path, kind):
    if kind == "tk":
        pytest.importorskip("tkinter")
    buffer, triggers = PreviewBuffer(), new_triggers()
    with open_preview(buffer, triggers, tmp_path / "preview.png", kinds=(kind,)) as preview:
        buffer.add_image("Training of original", sheet())
        window = focused(window_named("Training of original"))
        assert preview.kind == kind
        for key, name in (("m", "toggle_mask"), ("r", "refresh"), ("s", "save"), ("Return", "quit")):
            assert not triggers[name].is_set()
            press(key, triggers[name].is_set)
        # The training clears an event when it acts on it, and the key works again.
        triggers["toggle_mask"].clear()
        press("m", triggers["toggle_mask"].is_set)
        title = " ".join(xdotool("getwindowname", window))
        assert "m: mask, r: refresh, s: save, Enter: save and quit" in title
    assert not xdotool("search", "--onlyvisible", "--name", "Training of original")
    assert not (tmp_path / "preview.png").exists()


def test_the_tk_window_zooms_saves_and_takes_new_pictures(screen, tmp_path):
    pytest.importorskip("tkinter")
    buffer, triggers = PreviewBuffer(), new_triggers()
    with open_preview(buffer, triggers, tmp_path / "preview.png", kinds=("tk",)):
        buffer.add_image("Zoomed", sheet())
        focused(window_named("Zoomed"))
        for key in ("plus", "i", "Right", "Down", "minus"):
            xdotool("key", key)
        (first, *_) = press("ctrl+s", lambda: saved_pictures(tmp_path, (200, 300, 3)))
        assert np.array_equal(first, sheet())
        assert not triggers["save"].is_set()
        buffer.add_image("Zoomed", sheet(100, 400))
        (second, *_) = press("ctrl+s", lambda: saved_pictures(tmp_path, (100, 400, 3)))
        assert np.array_equal(second, sheet(100, 400))


def test_a_window_closes_when_training_says_so(screen, tmp_path):
    buffer, triggers = PreviewBuffer(), new_triggers()
    preview = open_preview(buffer, triggers, kinds=("opencv",))
    buffer.add_image("Shut", sheet())
    window_named("Shut")
    triggers["shutdown"].set()
    assert until(lambda: not xdotool("search", "--onlyvisible", "--name", "Shut"))
    preview.close()


def test_a_killed_window_leaves_training_with_a_file(screen, tmp_path, caplog):
    buffer, triggers = PreviewBuffer(), new_triggers()
    path = tmp_path / "preview.png"
    with open_preview(buffer, triggers, path, kinds=("opencv",)) as preview:
        buffer.add_image("Killed", sheet())
        window_named("Killed")
        os.kill(preview._process.pid, signal.SIGKILL)
        assert until(lambda: preview.kind == "file")
        assert until(path.exists)
        assert np.array_equal(cv2.imread(str(path)), sheet())
        buffer.add_image("Killed", sheet(50, 60))
        assert until(lambda: cv2.imread(str(path)).shape == (50, 60, 3))
    assert not triggers["quit"].is_set()


def test_without_a_display_the_newest_picture_is_in_a_file(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("DISPLAY", raising=False)
    path = tmp_path / "model" / "training_preview.png"
    buffer = PreviewBuffer()
    with open_preview(buffer, new_triggers(), path) as preview:
        for width in (40, 50):
            buffer.add_image("Training", sheet(20, width))
    assert preview.kind == "file"
    assert cv2.imread(str(path)).shape == (20, 50, 3)
    assert any("no display" in record.message for record in caplog.records)


@pytest.mark.skipif(sys.platform != "linux", reason="displays are named by a variable on Linux alone")
def test_a_display_that_does_not_answer_ends_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":987")
    path = tmp_path / "preview.png"
    buffer = PreviewBuffer()
    with open_preview(buffer, new_triggers(), path) as preview:
        buffer.add_image("Training", sheet())
        assert until(lambda: preview.kind == "file")
    assert np.array_equal(cv2.imread(str(path)), sheet())


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("DISPLAY", raising=False)
    (tmp_path / "blocked").write_text("a file, not a folder")
    buffer = PreviewBuffer()
    with open_preview(buffer, new_triggers(), tmp_path / "blocked" / "preview.png"):
        buffer.add_image("Training", sheet())
    assert any("training goes on" in record.message for record in caplog.records)


def test_without_a_display_and_without_a_file_training_hears_it_once(monkeypatch, caplog):
    monkeypatch.delenv("DISPLAY", raising=False)
    buffer = PreviewBuffer()
    with open_preview(buffer, new_triggers()) as preview:
        buffer.add_image("Training", sheet())
        assert until(lambda: preview.kind == "none")
    assert sum("cannot be shown" in record.message for record in caplog.records) == 1


def test_a_window_module_without_arguments_and_without_a_display_says_so(tmp_path):
    pytest.importorskip("tkinter")
    cv2.imwrite(str(tmp_path / "a.png"), sheet())
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    for words in ([], ["missing.png"], [str(tmp_path / "a.png")]):
        command = [sys.executable, "-m", "fsdeploy.training.preview_tk", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        if sys.platform == "linux":
            assert done.returncode == 1
            assert done.stderr.startswith("Error: ")
            assert done.stderr.count("\n") == 1


def test_the_viewer_shows_a_file_until_it_is_closed(screen, tmp_path):
    pytest.importorskip("tkinter")
    cv2.imwrite(str(tmp_path / "looked_at.png"), sheet())
    command = [sys.executable, "-m", "fsdeploy.training.preview_tk", str(tmp_path / "looked_at.png")]
    viewer = subprocess.Popen(command, cwd=tmp_path)
    try:
        focused(window_named("looked_at.png"))
        press("ctrl+s", lambda: saved_pictures(tmp_path, (200, 300, 3)))
    finally:
        viewer.terminate()
        viewer.wait(10)


def test_the_tk_preview_sits_inside_another_programs_window(screen, tmp_path):
    pytest.importorskip("tkinter")
    script = """
import sys, tkinter as tk
from tkinter import ttk
import numpy as np
from fsdeploy.training.preview_cv import PreviewBuffer
from fsdeploy.training.preview_tk import PreviewTk
root = tk.Tk(); root.geometry("400x300")
bar = ttk.Frame(root); bar.pack()
buffer = PreviewBuffer()
preview = PreviewTk(buffer, root, bar)
preview.pack(fill="both", expand=True)
assert preview.master_frame.master is root
buffer.add_image("x", np.full((600, 900, 3), 128, np.uint8))
def later():
    preview.save(sys.argv[1])
    assert bar.winfo_children()[0].winfo_manager() == "pack"
    preview.remove_option_controls()
    assert bar.winfo_children()[0].winfo_manager() == ""
    root.destroy()
root.after(1500, later)
root.mainloop()
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (saved,) = tmp_path.glob("preview_*.png")
    assert cv2.imread(str(saved)).shape == (600, 900, 3)


def test_a_preview_buffer_is_read_as_a_whole_and_keeps_newer_updates():
    buffer = PreviewBuffer()
    assert not buffer.is_updated
    source = sheet()
    buffer.add_image("a", source)
    source[:] = 0
    buffer.add_image("b", sheet(10, 10))
    assert buffer.is_updated
    images = buffer.get_images()
    name, image = next(images)
    assert name == "a"
    assert np.array_equal(image, sheet())
    assert buffer.is_updated
    buffer.add_image("a", sheet(5, 5))
    assert [name for name, _ in images] == ["b"]
    assert buffer.is_updated  # the newer "a" has not been read
    assert dict(buffer.get_images())["a"].shape == (5, 5, 3)
    assert not buffer.is_updated


def test_a_window_that_never_gets_a_picture_ends_with_the_training():
    triggers = new_triggers()
    window = PreviewCV(PreviewBuffer(), triggers)
    thread = threading.Thread(target=window.run)
    thread.start()
    triggers["shutdown"].set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("image", "screen_size", "expected"),
    [
        ((768, 462), (1920, 1080), (100, 800)),  # fits half the screen as it is
        ((1920, 1080), (1920, 1080), (50, 800)),
        ((4000, 3000), (1920, 1080), (20, 280)),  # 540/3000 = .18 up; 8640/3000 = 2.88 down
        ((30000, 100), (1920, 1080), (10, 100)),  # never below full size at the upper end
    ],
)
def test_zoom_limits_are_half_a_screen_and_eight_screens(image, screen_size, expected):
    assert preview_zoom.limits(image, screen_size) == expected


def test_the_zoom_list_holds_presets_and_limits():
    assert preview_zoom.choices((20, 280)) == [20, 25, 50, 75, 100, 200, 280]


def test_fitting_is_the_largest_zoom_that_shows_everything():
    assert preview_zoom.fitting((400, 200), (800, 300), (10, 800)) == 150
    assert preview_zoom.fitting((400, 200), (8000, 8000), (10, 800)) == 800


@pytest.mark.parametrize("zoom", [25, 60, 100, 150, 300, 800])
def test_the_visible_part_is_that_part_of_the_zoomed_picture(zoom):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8), (9, 9), 0)
    width, height = preview_zoom.scaled_size((120, 80), zoom)
    whole = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if zoom < 100 else cv2.INTER_CUBIC)
    left, top, size = width // 3, height // 4, (width // 2, height // 2)
    part = preview_zoom.visible_part(image, zoom, left, top, size, smooth=True)
    assert np.abs(part.astype(int) - whole[top : top + size[1], left : left + size[0]]).max() <= 3


def test_nearest_enlargement_repeats_pixels():
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    whole = image.repeat(3, axis=0).repeat(3, axis=1)
    part = preview_zoom.visible_part(image, 300, 100, 50, (200, 150), smooth=False)
    assert np.array_equal(part, whole[50:200, 100:300])


def test_pictures_and_keys_cross_the_pipe_in_one_piece():
    import io

    pipe = io.BytesIO()
    preview_window._send(pipe, "Größe", sheet(3, 5))
    data = pipe.getvalue()
    assert preview_window.FRAME.unpack(data[:12]) == (len("Größe".encode()), 3, 5)
    assert data.endswith(sheet(3, 5).tobytes())
