"""What reaches the terminal: the one place where text from files loses its power over it.

Names, versions and messages come from files of strangers. An escape sequence in them could colour the screen, write
over it or answer for the user. So the command line writes through `guarded_streams`, and tables through `console`.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNLIMITED = 100_000

# Control characters but tab and newline, line separators, lone surrogates, and marks that change the reading direction.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, encoding: str = "utf-8") -> str:
    """Text that a terminal shows and never obeys, and that `encoding` can hold: all else as a backslash escape.

    Bytes of a file name that are not UTF-8, which Python keeps as lone surrogates, become `\\xff` again.
    """
    harmless = _CONTROL.sub(_escape, text)
    return harmless if harmless.isascii() else harmless.encode(encoding, "backslashreplace").decode(encoding)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class GuardedStream(io.TextIOBase):
    """A stream whose `write` passes on `printable` text only. It has no `buffer`: nothing is written around it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def rich_proxied_file(self) -> TextIO:
        """The stream behind; rich gives the same name to the stream behind its own stand-ins."""
        return self._stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        self._stream.write(printable(text, self.encoding))
        return len(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def is_guarded() -> bool:
    """Whether standard output or error is guarded at this moment."""
    return isinstance(sys.stdout, GuardedStream) or isinstance(sys.stderr, GuardedStream)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Let standard output and error pass on harmless text only, until the context ends."""
    before = sys.stdout, sys.stderr
    # A program without a console has no streams.
    guarded = [None if stream is None else cast("TextIO", GuardedStream(stream)) for stream in before]
    sys.stdout, sys.stderr = guarded
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _behind(stream: TextIO) -> TextIO:
    """The stream behind all guards and stand-ins: rich writes its own colours and cursor movements there."""
    while (behind := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = behind
    return stream


def console(stderr: bool = False) -> Console:
    """The rich console of all tables and bars: what it is given is text, neither markup nor control sequences."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class PlainTextConsole(Console):
        def render_str(self, text: str, **style: Any) -> Text:
            # Before the width is taken, so that columns stay columns.
            return super().render_str(printable(text, self.encoding), **style)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            # Control segments are rich's own cursor movements; everything else is text, by whatever way it came.
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment
                else:
                    yield Segment(printable(segment.text, self.encoding), segment.style)

    stream = _behind(sys.stderr if stderr else sys.stdout)
    # Nobody looks at a file or a pipe through a window: a line there is as long as what it says.
    width = None if stream.isatty() else _UNLIMITED
    return PlainTextConsole(file=stream, stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def folding_table(*columns: str, title: str | None = None) -> Table:
    """A table that cuts nothing off: a word that is wider than its column goes on in the next line."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
