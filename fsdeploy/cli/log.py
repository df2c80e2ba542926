"""What the program's loggers say, on stderr."""

from __future__ import annotations

import logging
import sys


class _Stderr(logging.Handler):
    """Writes to whatever stderr is at that moment, so that lines appear above a live progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: "
        print(prefix + self.format(record), file=sys.stderr, flush=True)


def show_log(level: str = "INFO") -> None:
    """Print messages of fsdeploy's loggers from `level` on."""
    logger = logging.getLogger("fsdeploy")
    logger.setLevel(level)
    logger.propagate = False
    logger.handlers[:] = [_Stderr()]
