"""Previews beside the training: a window in a process of its own, or a picture file where there is no display.

The window runs in another process because toolkits want the main thread for themselves, and some end the whole program
when there is no display. Pictures go to it through a pipe, pressed keys come back through another. Whatever happens to
the window, training goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal, Self, cast

import fsdeploy
from fsdeploy.errors import FsdeployError
from fsdeploy.images import write_image
from fsdeploy.training.preview_cv import Image, PreviewBuffer, TriggerName, Triggers

logger = logging.getLogger(__name__)

WindowKind = Literal["tk", "opencv"]
PreviewKind = Literal["starting", "tk", "opencv", "file", "none"]

FRAME: Final = struct.Struct(">III")
"""Head of one picture in the pipe: bytes of the name, height, width; then the name and the BGR pixels."""
READY: Final = "ready"
_MODULE: Final = "fsdeploy.training.preview_process"
_POLL_S: Final = 0.2
_GRACE_S: Final = 5.0


class Preview:
    """An open preview; made by `open_preview`. Usable as a context manager."""

    def __init__(
        self, buffer: PreviewBuffer, triggers: Triggers, image_path: Path | None, kinds: Sequence[WindowKind]
    ) -> None:
        self._buffer = buffer
        self._triggers = triggers
        self._image_path = image_path
        self._kind: PreviewKind = "starting"
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._last: dict[str, Image] = {}
        self._thread = threading.Thread(target=self._serve, args=(kinds,), name="preview", daemon=True)
        self._thread.start()

    @property
    def kind(self) -> PreviewKind:
        """How pictures are shown now; "starting" until a window is up, "none" if there is nothing to show them on."""
        return self._kind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the window. A picture that is still waiting is written if there is a file for it."""
        self._stop.set()
        self._thread.join(_GRACE_S)
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        self._thread.join(_GRACE_S)

    @property
    def _is_over(self) -> bool:
        return self._stop.is_set() or self._triggers["shutdown"].is_set()

    def _serve(self, kinds: Sequence[WindowKind]) -> None:
        """Try one way after the other; runs in a thread of its own."""
        reasons = []
        for kind in kinds if has_display() else ():
            reason = self._serve_window(kind)
            if self._is_over:
                return
            reasons.append(f"{kind}: {reason}")
        why = "; ".join(reasons) or "no display"
        if self._image_path is None:
            self._kind = "none"
            logger.warning("previews cannot be shown (%s); training goes on without", why)
            return
        logger.warning("previews cannot be shown in a window (%s); they are written to %s", why, self._image_path)
        self._serve_file(self._image_path)

    def _serve_window(self, kind: WindowKind) -> str:
        """Feed a window until it ends. Returns why it did."""
        packages = str(Path(fsdeploy.__file__).resolve().parents[1])
        paths = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
        folder = self._image_path.parent if self._image_path is not None else Path()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, kind, str(folder.resolve())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
        except OSError as error:
            return error.strerror or str(error)
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        said: list[str] = []
        reader = threading.Thread(target=self._listen, args=(process.stdout, kind, said), daemon=True)
        reader.start()
        try:
            for name, image in self._last.items():
                _send(process.stdin, name, image)
            while not self._is_over and process.poll() is None:
                if self._buffer.wait(_POLL_S):
                    for name, image in self._buffer.get_images():
                        self._last[name] = image
                        _send(process.stdin, name, image)
        except OSError:
            logger.debug("the %s preview window is gone", kind)
        finally:
            _close(process)
            reader.join(_GRACE_S)
        return said[-1] if said else f"the window ended with code {process.returncode}"

    def _listen(self, stream: IO[bytes], kind: WindowKind, said: list[str]) -> None:
        """Turn what the window says into events; keep other lines, which are its excuses."""
        for line in stream:
            word = line.decode("utf-8", "replace").strip()
            if word == READY:
                self._kind = kind
            elif word in self._triggers and word != "shutdown":
                self._triggers[cast(TriggerName, word)].set()
            elif word:
                said.append(word)

    def _serve_file(self, path: Path) -> None:
        self._kind = "file"
        warned = False
        images = list(self._last.values())
        while True:
            over = self._is_over
            if self._buffer.wait(0.0 if over else _POLL_S):
                images = [image for _, image in self._buffer.get_images()]
            if images:
                try:
                    write_image(path, images[-1])
                except FsdeployError as error:
                    if not warned:
                        logger.warning("%s; training goes on without previews", error)
                    warned = True
                images = []
            if over:
                return


def open_preview(
    buffer: PreviewBuffer,
    triggers: Triggers,
    image_path: Path | None = None,
    *,
    kinds: Sequence[WindowKind] = ("tk", "opencv"),
) -> Preview:
    """Show the pictures of a buffer: in a Tk window, else an OpenCV window, else in a file.

    Returns at once; what is not possible here is found out beside the training, which it never ends.

    Args:
        buffer: Put pictures in here.
        triggers: Events that keys in the window set; `shutdown` closes it.
        image_path: File for the newest picture where there is no display; its folder also takes the pictures that
            are saved from the window. None: without a display nothing is shown.
        kinds: Windows to try, in this order.

    Returns:
        The open preview; close it when training ends.
    """
    return Preview(buffer, triggers, image_path, kinds)


def has_display() -> bool:
    """Whether a window could be opened here. On Linux and BSD an X display must be named."""
    return os.name == "nt" or sys.platform == "darwin" or bool(os.environ.get("DISPLAY"))


def _send(stream: IO[bytes], name: str, image: Image) -> None:
    label = name.encode("utf-8")
    stream.write(FRAME.pack(len(label), *image.shape[:2]) + label)
    stream.write(image.tobytes())
    stream.flush()


def _close(process: subprocess.Popen[bytes]) -> None:
    """End a window by ending its input; kill it if it does not follow."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it may be gone already, with what was still to be sent
        process.stdin.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
