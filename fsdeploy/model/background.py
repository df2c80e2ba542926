"""Writing files beside the training: one thread at a time, and what becomes of a write that fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Literal

from fsdeploy.errors import InputError

logger = logging.getLogger(__name__)

Kind = Literal["save", "snapshot"]

TOLERATED_SAVES = 20
"""A run ends when so many saves in a row have failed: what it trains could be lost."""


class BackgroundWriter:
    """Runs one write at a time.

    A disk that is full for a while, or a network folder that is away, must not end days of training: the last good set
    is on disk, the new one in memory, and the next save tries again. Only the first save of a run has to succeed, so
    that a folder that cannot be written is found while nothing is lost yet.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: tuple[Kind, BaseException] | None = None
        self._failed_saves = 0
        self.has_saved = False
        """Whether a save of this run has succeeded."""

    def start(self, kind: Kind, work: Callable[[], object]) -> None:
        """Run `work` in a thread. The one before must have been joined."""
        self._thread = threading.Thread(target=self._run, args=(kind, work), name=kind)
        self._thread.start()

    def _run(self, kind: Kind, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._failure = (kind, error)
        else:
            if kind == "save":
                self.has_saved, self._failed_saves = True, 0

    def join(self) -> None:
        """Wait for the write under way; a failure is kept."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def fail(self, kind: Kind, error: Exception) -> None:
        """Keep the failure of a write that could not even be started."""
        self._failure = (kind, error)

    def raise_failure(self) -> None:
        """Raise the error of a write that failed."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure[1]

    def weigh_failure(self, may_end: bool = True) -> None:
        """Warn of a write that failed; does not wait.

        Raises:
            InputError: it was the first save of the run, or the last of `TOLERATED_SAVES` in a row, and `may_end`.
        """
        failure, self._failure = self._failure, None
        if failure is None:
            return
        kind, error = failure
        if kind == "snapshot":
            logger.warning("%s; training goes on without this snapshot", _told(error), exc_info=_unforeseen(error))
            return
        self._failed_saves += 1
        if may_end and (not self.has_saved or self._failed_saves >= TOLERATED_SAVES):
            raise error
        logger.warning(
            "%s; training goes on, the last saved set is good, the next save tries again (%d failed in a row, "
            "the run ends at %d)", _told(error), self._failed_saves, TOLERATED_SAVES, exc_info=_unforeseen(error),
        )  # fmt: skip


def _unforeseen(error: BaseException) -> BaseException | None:
    """The error when it is none of a disk, a folder or memory, but one of the program: it is shown whole."""
    return None if isinstance(error, InputError | OSError | MemoryError) else error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if _unforeseen(error) else str(error)
