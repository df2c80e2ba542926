"""What somebody wants of a running training, and the ways to say so: signals of the system, keys of the terminal."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from fsdeploy.training.preview_cv import TriggerName

logger = logging.getLogger(__name__)


@dataclass
class Requests:
    """What somebody wants of the running training. Set from signal handlers, keys and windows."""

    stop: threading.Event = field(default_factory=threading.Event)
    """Save and end the run."""
    save: threading.Event = field(default_factory=threading.Event)
    """Save after this iteration."""
    refresh: threading.Event = field(default_factory=threading.Event)
    """Make a new preview, of other faces."""
    toggle_mask: threading.Event = field(default_factory=threading.Event)
    """Switch the mask overlay of the preview."""
    shutdown: threading.Event = field(default_factory=threading.Event)
    """Close the preview window."""
    running: threading.Event = field(default_factory=threading.Event)
    """Set by the run when there is something to save."""
    on_cut_off: list[Callable[[], None]] = field(default_factory=list)
    """Called when the run is ended without saving, from a signal handler: what must not be left behind."""

    def triggers(self) -> dict[TriggerName, threading.Event]:
        """The events as a preview window names them."""
        return {
            "toggle_mask": self.toggle_mask,
            "refresh": self.refresh,
            "save": self.save,
            "quit": self.stop,
            "shutdown": self.shutdown,
        }


@contextmanager
def signals(requests: Requests) -> Iterator[None]:
    """Ctrl-C once, SIGTERM, or the terminal's end: save and end; Ctrl-C twice: end now.

    Only in the main thread of a program. Before the run has started there is nothing to save: any of them raises
    KeyboardInterrupt. A SIGHUP that is ignored, as under nohup, stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not requests.running.is_set():
            raise KeyboardInterrupt
        if requests.stop.is_set():
            # Saves are transactions: even one under way may be cut off. A progress bar may have hidden the cursor.
            for restore in requests.on_cut_off:
                restore()
            tail = "\033[?25h" if os.isatty(2) else ""
            _say(f"\nstopped without saving: the last saved set is good{tail}\n")
            os._exit(130)
        requests.stop.set()
        _say("\nsaving and stopping; once more: stop now without saving\n")

    def terminate(number: int, frame: FrameType | None) -> None:
        if not requests.running.is_set():
            raise KeyboardInterrupt
        requests.stop.set()

    handlers: dict[int, Any] = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handlers[signal.SIGHUP] = terminate
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """Write to stderr from a signal handler. Nobody may be there to read: the terminal or a pipe may be gone."""
    with suppress(OSError):
        os.write(2, text.encode())


class Keys:
    """Keys of the terminal while training runs: Enter saves and ends, S saves. Nothing where there is no terminal.

    A terminal that goes away, or is another program's meanwhile, is left alone: keys are never worth a training.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._terminal = -1
        self._before: Any = None
        self._listens = False

    def __enter__(self) -> Keys:
        if sys.platform != "win32" and sys.stdin is not None and sys.stdin.isatty():
            import termios
            import tty

            self._terminal = sys.stdin.fileno()
            if self._is_in_front():  # a background job must leave the terminal alone
                with suppress(OSError, termios.error):
                    self._before = termios.tcgetattr(self._terminal)
                    tty.setcbreak(self._terminal)
                    self._listens = True
                    self._requests.on_cut_off.append(self.restore)
                    logger.info("keys: Enter saves and ends, S saves now")
        return self

    def _is_in_front(self) -> bool:
        """Whether the terminal is ours to read and set; the system stops a background job that tries."""
        try:
            return os.getpgrp() == os.tcgetpgrp(self._terminal)
        except OSError:
            return False

    def poll(self) -> None:
        """Take the keys that were pressed."""
        while self._listens and select.select([self._terminal], [], [], 0)[0] and self._is_in_front():
            try:
                key = os.read(self._terminal, 1)
            except OSError:
                key = b""
            if not key:  # the terminal is gone
                self._listens = False
            elif key in b"\r\n":
                self._requests.stop.set()
            elif key in b"sS":
                self._requests.save.set()

    def restore(self) -> None:
        """Give the terminal back as it was found."""
        if self._before is None:
            return
        import termios

        before, self._before = self._before, None
        self._listens = False
        if self._is_in_front():
            with suppress(OSError, termios.error):
                # At once: waiting for what is still to be shown could last for ever.
                termios.tcsetattr(self._terminal, termios.TCSANOW, before)

    def __exit__(self, *error: object) -> None:
        self.restore()
        if self.restore in self._requests.on_cut_off:
            self._requests.on_cut_off.remove(self.restore)
