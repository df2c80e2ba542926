"""One run of training, from the first iteration to the last save: limits, intervals, signals, keys, progress."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from fsdeploy.errors import FsdeployError
from fsdeploy.progress import Progress
from fsdeploy.training.preview_cv import TriggerName
from fsdeploy.training.train import NonFiniteLossError, Trainer, Viewer

logger = logging.getLogger(__name__)

DEFAULT_ITERATIONS = 1_000_000


@dataclass
class Requests:
    """What somebody wants of the running training. Set from signal handlers, keys and windows."""

    stop: threading.Event = field(default_factory=threading.Event)
    """Save and end the run."""
    save: threading.Event = field(default_factory=threading.Event)
    """Save after this iteration."""
    refresh: threading.Event = field(default_factory=threading.Event)
    """Make a new preview."""
    toggle_mask: threading.Event = field(default_factory=threading.Event)
    """Switch the mask overlay of the preview."""
    shutdown: threading.Event = field(default_factory=threading.Event)
    """Close the preview window."""
    running: threading.Event = field(default_factory=threading.Event)
    """Set by the run when there is something to save."""

    def triggers(self) -> dict[TriggerName, threading.Event]:
        """The events as a preview window names them."""
        return {
            "toggle_mask": self.toggle_mask,
            "refresh": self.refresh,
            "save": self.save,
            "quit": self.stop,
            "shutdown": self.shutdown,
        }


def run(
    trainer: Trainer,
    requests: Requests,
    iterations: int | None = None,
    save_interval: int = 250,
    viewer: Viewer | None = None,
    timelapse: bool = False,
    quiet: bool = False,
) -> None:
    """Train until a limit or a request to stop, and save.

    Args:
        iterations: Iterations of this run; None for `DEFAULT_ITERATIONS`, with no time left shown.
        save_interval: Iterations between saves; the first iteration is saved too, so that a folder that cannot be
            written is found at once.
        viewer: Shows previews.
        timelapse: Write a picture of the time-lapse at each save.

    Raises:
        NonFiniteLossError: a loss was not finite; nothing was saved since.
        InputError: a save failed.
    """
    limit = DEFAULT_ITERATIONS if iterations is None else iterations
    keys = _Keys(requests)
    with Progress("Training", iterations, "it", quiet) as progress, keys, _saving_on_errors(trainer):
        shows_preview = viewer is not None
        requests.running.set()
        for count in range(1, limit + 1):
            due = count % save_interval == 0 or count == 1
            if requests.toggle_mask.is_set():
                requests.toggle_mask.clear()
                trainer.toggle_mask()
                shows_preview = True
            if requests.refresh.is_set():
                requests.refresh.clear()
                shows_preview = True
            trainer.train_one_step(viewer if shows_preview else None, timelapse and due)
            shows_preview = False
            _show(trainer, progress, count)
            keys.poll()
            if trainer.plugin.agree(requests.stop.is_set()) or count == limit:
                break
            if due or requests.save.is_set():
                requests.save.clear()
                trainer.save()
                shows_preview = viewer is not None
        trainer.fetch_figures()
        _show(trainer, progress, progress.done)
    trainer.save(is_exit=True)
    if not quiet:
        logger.info("iteration %d saved to %s", trainer.iterations, trainer.model.io.model_dir)


def _show(trainer: Trainer, progress: Progress, count: int) -> None:
    figures = trainer.figures
    if figures is None or not trainer.take_news():
        return
    pace, waiting = trainer.pace.measure()
    losses = " ".join(f"{label} {total:.5f}" for label, total in zip("AB", figures.totals, strict=False))
    data = f", {waiting:.0%} waiting for data" if waiting >= 0.1 else ""
    progress.advance(count - progress.done, f"#{figures.iteration:05d} loss {losses}, {pace:.2f} it/s{data}")


@contextmanager
def _saving_on_errors(trainer: Trainer) -> Iterator[None]:
    """Keep what was trained when faces vanish or memory runs out; never weights that a loss has spoilt."""
    try:
        yield
    except NonFiniteLossError:
        raise
    except FsdeployError:
        with suppress(FsdeployError):  # the first error tells more
            trainer.save(is_exit=True)
            logger.warning("iteration %d was saved", trainer.iterations)
        raise


@contextmanager
def signals(requests: Requests) -> Iterator[None]:
    """Ctrl-C once or SIGTERM: save and end; Ctrl-C twice: end now. Only in the main thread of a program.

    Before the run has started there is nothing to save: either raises KeyboardInterrupt.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not requests.running.is_set():
            raise KeyboardInterrupt
        if requests.stop.is_set():
            # Saves are transactions: even one under way may be cut off. A progress bar may have hidden the cursor.
            tail = "\033[?25h\n" if sys.stderr.isatty() else ""
            os.write(2, f"\nstopped without saving: the last saved set is good{tail}\n".encode())
            os._exit(130)
        requests.stop.set()
        os.write(2, b"\nsaving and stopping; once more: stop now without saving\n")

    def terminate(number: int, frame: FrameType | None) -> None:
        if not requests.running.is_set():
            raise KeyboardInterrupt
        requests.stop.set()

    before = {signal.SIGINT: signal.signal(signal.SIGINT, interrupt)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Keys:
    """Keys of the terminal while training runs: Enter saves and ends, S saves. Nothing where there is no terminal."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._restore: Any = None

    def __enter__(self) -> _Keys:
        if sys.platform != "win32" and sys.stdin is not None and sys.stdin.isatty():
            import termios
            import tty

            handle = sys.stdin.fileno()
            if os.getpgrp() == os.tcgetpgrp(handle):  # a background job must leave the terminal alone
                self._restore = termios.tcgetattr(handle)
                tty.setcbreak(handle)
                logger.info("keys: Enter saves and ends, S saves now")
        return self

    def poll(self) -> None:
        """Take the keys that were pressed."""
        while self._restore is not None and select.select([sys.stdin], [], [], 0)[0]:
            key = os.read(sys.stdin.fileno(), 1)
            if not key:
                return
            if key in b"\r\n":
                self._requests.stop.set()
            elif key in b"sS":
                self._requests.save.set()

    def __exit__(self, *error: object) -> None:
        if self._restore is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._restore)
            self._restore = None
