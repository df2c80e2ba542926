"""A folder of faces that cannot be read for a while: a network share that went away, a disk that was unplugged."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

_LOG = logging.getLogger(__name__)

PATIENCE_S = 120.0
"""How long training waits for a folder that it needs."""
RETRY_S = 2.0
"""Seconds between two attempts to read a folder that is away."""
FAILURES_OF_AN_OUTAGE = 8
"""Files in a row that the storage refuses before it counts as away: fewer are damaged files."""


class Outage:
    """Whether a folder's storage answers at the moment. Safe in any thread.

    Args:
        folder: For messages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._failures = 0
        self._since: float | None = None
        self._next_attempt = 0.0
        self._closed = threading.Event()

    def may_ask(self) -> bool:
        """False while the storage is away and was asked a moment ago. Every True is taken for an attempt."""
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                return True
            if now < self._next_attempt:
                return False
            self._next_attempt = now + RETRY_S
            return True

    def failed(self, error: Exception) -> bool:
        """Count a file that the storage refused; True if the storage is away."""
        with self._lock:
            self._failures += 1
            if self._since is None and self._failures >= FAILURES_OF_AN_OUTAGE:
                self._begin(error)
            return self._since is not None

    def begin(self, error: Exception) -> None:
        """The storage is away, however few files were tried."""
        with self._lock:
            if self._since is None:
                self._begin(error)

    def _begin(self, error: Exception) -> None:
        self._since = time.monotonic()
        self._next_attempt = self._since + RETRY_S
        _LOG.warning(
            "%s cannot be read at the moment (%s): training goes on with kept crops, and waits up to %d s for others",
            self._folder, error, PATIENCE_S,
        )  # fmt: skip

    def answered(self) -> None:
        """The storage gave a file."""
        if not self._failures and self._since is None:
            return
        with self._lock:
            self._failures = 0
            if self._since is not None:
                _LOG.warning("%s can be read again", self._folder)
                self._since = None

    def wait(self) -> bool:
        """Wait until the storage may be asked again; False if that is of no use any more: it has been away for too
        long, or nobody needs the answer."""
        since = self._since
        if since is not None and time.monotonic() - since >= PATIENCE_S:
            return False
        return not self._closed.wait(RETRY_S) and threading.main_thread().is_alive()

    def close(self) -> None:
        """End all waits."""
        self._closed.set()
