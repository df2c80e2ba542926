"""The window's side of a preview: a process that shows what comes in and says which keys were pressed.

Started by preview_window as `python -m fsdeploy.training.preview_process tk|opencv FOLDER`. It ends with its input.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Final

import numpy as np

from fsdeploy.training.preview_cv import PreviewBase, PreviewBuffer, PreviewCV, TriggerName
from fsdeploy.training.preview_window import FRAME, READY

_GRACE_S: Final = 3.0


class _Reported(threading.Event):
    """An event that says its name each time it is set."""

    def __init__(self, name: str, output: IO[str]) -> None:
        super().__init__()
        self._name = name
        self._output = output

    def set(self) -> None:
        super().set()
        _say(self._output, self._name)


def _say(output: IO[str], word: str) -> None:
    try:
        output.write(f"{word}\n")
        output.flush()
    except OSError:
        os._exit(0)  # nobody listens any more


def _receive(stream: IO[bytes], buffer: PreviewBuffer, shutdown: threading.Event) -> None:
    """Fill the buffer until the input ends, then end the window, and the process if the window hangs."""
    while len(head := stream.read(FRAME.size)) == FRAME.size:
        length, height, width = FRAME.unpack(head)
        name = stream.read(length).decode("utf-8")
        pixels = stream.read(height * width * 3)
        if len(pixels) < height * width * 3:
            break
        buffer.add_image(name, np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
    shutdown.set()
    timer = threading.Timer(_GRACE_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def main() -> None:
    """Run the window that the first argument names; the second is the folder for saved pictures."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    # Ctrl+C in the terminal goes to the whole group: the training decides when the window closes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what toolkits print must not look like keys
    names: tuple[TriggerName, ...] = ("toggle_mask", "refresh", "save", "quit")
    triggers: dict[TriggerName, threading.Event] = {name: _Reported(name, output) for name in names}
    triggers["shutdown"] = threading.Event()
    buffer = PreviewBuffer()
    try:
        window = _window(kind, buffer, triggers, folder)
    except Exception as error:  # a missing toolkit or display, in the toolkit's own words
        _say(output, " ".join(f"{type(error).__name__}: {error}".split()))
        sys.exit(1)
    _say(output, READY)
    receiver = threading.Thread(target=_receive, args=(sys.stdin.buffer, buffer, triggers["shutdown"]), daemon=True)
    receiver.start()
    window.run()
    os._exit(0)  # the receiver may still wait in a read; toolkits have nothing to tidy up


def _window(
    kind: str, buffer: PreviewBuffer, triggers: dict[TriggerName, threading.Event], folder: Path
) -> PreviewBase:
    if kind == "opencv":
        import cv2

        # Opened here and closed again, so that a display that does not answer is found out before "ready".
        cv2.namedWindow("fsdeploy")
        cv2.destroyWindow("fsdeploy")
        return PreviewCV(buffer, triggers)
    from fsdeploy.training.preview_tk import PreviewTk

    return PreviewTk(buffer, triggers=triggers, save_folder=folder)


if __name__ == "__main__":
    main()
