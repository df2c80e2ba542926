"""What the program's loggers say, on stderr."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from fsdeploy.errors import InputError


class _Stderr(logging.Handler):
    """Writes to whatever stderr is at that moment, so that lines appear above a live progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: "
        print(prefix + self.format(record), file=sys.stderr, flush=True)


def show_log(level: str = "INFO", file: Path | None = None) -> None:
    """Print messages of fsdeploy's loggers from `level` on, and append them with their time to `file`.

    Raises:
        InputError: the file cannot be written.
    """
    logger = logging.getLogger("fsdeploy")
    logger.setLevel(level)
    logger.propagate = False
    logger.handlers[:] = [_Stderr()]
    if file is not None:
        try:
            handler = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror}: name a file in a folder you may write") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
