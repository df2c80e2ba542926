"""The one progress display: rich bars on a terminal, plain lines at intervals in a log, silence when asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from fsdeploy.terminal import console, guarded_streams, is_guarded

_LOG_INTERVAL_S = 10.0


class Progress:
    """A bar with a total that may be unknown. Use as a context manager; writes to stderr only.

    When stderr goes away (the terminal was closed, `tee` has ended) nothing is shown any more; the work goes on.

    Example:
        with Progress("Exporting", total=3, unit="graph") as progress:
            progress.advance()
    """

    def __init__(self, title: str, total: int | None = None, unit: str = "it", quiet: bool = False) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._started = time.monotonic()
        self._last_line = self._started
        self._note = ""
        self._guard = ExitStack()

    def __enter__(self) -> Self:
        if self._live:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console(stderr=True),
            )
            guarded = is_guarded()  # asked before rich puts its stand-ins over the streams
            try:
                self._bar.start()
                self._task = self._bar.add_task(self.title, total=self.total, note="")
            except (OSError, ValueError):
                self._live, self._quiet = False, True
            if self._live and guarded:  # while a bar is alive rich reads colours out of what others print
                self._guard.enter_context(guarded_streams())
        return self

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count `steps` more; `note` is shown behind the bar (figures such as fps or losses)."""
        self.done += steps
        if note is not None:
            self._note = note
        if self._live:
            self._bar.update(self._task, completed=self.done, note=self._note)
        elif not self._quiet and time.monotonic() - self._last_line >= _LOG_INTERVAL_S:
            self._last_line = time.monotonic()
            self._print_line()

    def _print_line(self) -> None:
        elapsed = time.monotonic() - self._started
        of_total = f"/{self.total}" if self.total is not None else ""
        left = ""
        if self.total and self.done:
            left = f", {elapsed / self.done * (self.total - self.done):.0f} s left"
        _print(f"{self.title}: {self.done}{of_total} {self.unit}, {elapsed:.0f} s{left} {self._note}".rstrip())

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._guard.close()
            with _nobody_reads():
                self._bar.stop()


@contextmanager
def stage(title: str, quiet: bool = False) -> Iterator[None]:
    """Announce a step of unknown length and say how long it took."""
    started = time.monotonic()
    if not quiet:
        _print(f"{title} ...")
    yield
    if not quiet:
        _print(f"{title}: {time.monotonic() - started:.1f} s")


def _nobody_reads() -> suppress:
    """Passes over the errors of a stderr that is gone or closed."""
    return suppress(OSError, ValueError)


def _print(line: str) -> None:
    with _nobody_reads():
        print(line, file=sys.stderr, flush=True)
