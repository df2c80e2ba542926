"""The file that a conversion's report is written to, at its start, while frames pass and at its end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from fsdeploy.errors import InputError
from fsdeploy.files import write_bytes

EVERY_S = 3.0
"""Least time between two writes while frames pass."""
SHARE = 0.02
"""Largest part of the time that these writes may take: reports of long clips are large."""


class Account:
    """Keeps the report's file up to date, and an earlier one as long as nothing has replaced what it tells of.

    Args:
        save: writes the report as it stands.

    Raises:
        InputError: an earlier report cannot be read.
    """

    def __init__(self, path: Path, save: Callable[[], None]) -> None:
        self.save = save
        self._path = path
        self._due = -math.inf
        try:
            self._earlier = path.read_bytes() if path.exists() else None
            self._written_at = path.stat().st_mtime_ns if path.exists() else 0
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}: move it away") from error

    def keep_up(self) -> None:
        """Save if the last time is long enough ago: what a killed run leaves must be known."""
        begin = time.monotonic()
        if begin >= self._due:
            self.save()
            spent = time.monotonic() - begin
            self._due = begin + spent + max(EVERY_S, spent / SHARE)

    def finish(self, *, written: bool, worth_telling: bool) -> None:
        """Save for the last time.

        Args:
            written: the output holds something of this run. If not, an earlier report still tells of what is there.
            worth_telling: the report says why nothing was written.
        """
        if written or (worth_telling and self._earlier is None):
            self.save()
        elif self._earlier is not None:
            write_bytes(self._path, self._earlier)
            os.utime(self._path, ns=(self._written_at, self._written_at))  # images that are younger are in doubt
        elif self._path.exists():
            self._path.unlink()
