"""What the program's loggers say, on stderr."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path

from fsdeploy.errors import InputError


class _Stderr(logging.Handler):
    """Writes to whatever stderr is at that moment, so that lines appear above a live progress bar.

    A line that nobody can read any more, as after the end of the terminal or of `tee`, is dropped: no work ends for it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: "
        line = prefix + self.format(record)
        with suppress(OSError, ValueError):  # ValueError: stderr was closed
            print(line, file=sys.stderr, flush=True)


class _LogFile(logging.FileHandler):
    """Appends to a file. One that cannot be written any more (a full disk) is given up with a warning."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name is logging's
        logger = logging.getLogger("fsdeploy")
        logger.removeHandler(self)
        logger.warning(
            "%s cannot be written any more (%s): messages are only shown", self.baseFilename, sys.exc_info()[1]
        )


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
            handler = _LogFile(file, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror}: name a file in a folder you may write") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
