"""Text from files reaches the terminal as text: never as colours, cursor movements or anything else it would obey."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from rich.table import Table
from rich.text import Text

from fsdeploy.cli import main
from fsdeploy.errors import InputError
from fsdeploy.progress import Progress, stage
from fsdeploy.terminal import GuardedStream, console, guarded_streams, printable

EVIL = "3.\x1b[31mRED\x1b]0;title\x07\x9b2J\rover\x08\x7f\u202egnp.exe\u2028"


class Terminal(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard output and error a terminal. Called inside a test: pytest sets both between its phases."""
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def type_in(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the whole program; its exit code."""
    monkeypatch.setattr(sys, "argv", ["fsdeploy", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def assert_harmless(text: str) -> None:
    for part in ("\x1b[31m", "\x1b]", "\x07", "\x9b", "\rover", "\x08", "\x7f", "\u202e", "\u2028"):
        assert part not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("größe 顔 é \N{GRINNING FACE}", "größe 顔 é \N{GRINNING FACE}"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m \x85", "\\x9b31m \\x85"),
        ("\r\x00\x7f", "\\x0d\\x00\\x7f"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        (os.fsdecode(b"caf\xe9.h5"), "caf\\xe9.h5"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_text_can_be_encoded(encoding: str) -> None:
    for text in (EVIL, "顔", os.fsdecode(b"\xff")):
        printable(text, encoding).encode(encoding)
    assert printable("顔", "ascii") == "\\u9854"


def test_whatever_is_printed_under_guard_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with guarded_streams():
        print(EVIL)
        sys.stderr.writelines([EVIL])
        with pytest.raises(AttributeError):
            _ = sys.stdout.buffer  # no way around it
    assert sys.stdout is screen
    assert_harmless(screen.getvalue())
    assert screen.getvalue().count("\\x1b[31mRED") == 2


def test_tables_keep_their_own_style_and_take_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with guarded_streams():
        table = Table("name", title=EVIL)
        table.add_row(EVIL)
        table.add_row("[red]kept[/red] /data/[/x] :smile:")
        table.add_row(Text(EVIL, style="bold"))
        console().print(table)
        console().print(EVIL)
    sent = screen.getvalue()
    assert_harmless(sent)
    assert "[red]kept[/red] /data/[/x] :smile:" in sent
    assert "\x1b[1m" in sent, "our own bold reaches the terminal"


def test_columns_stay_columns_beside_escaped_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with guarded_streams():
        table = Table("name", "kind", box=None, header_style="", show_header=False)
        table.add_row("a\x1bb", "first")
        table.add_row("plain name", "second")
        console().print(table)
    first, second = (line for line in terminal.getvalue().splitlines() if line.strip())
    assert first.index("first") == second.index("second")


def test_a_live_bar_neither_obeys_its_title_nor_what_is_printed_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with guarded_streams():
        with stage(EVIL), Progress(f"[/x] {EVIL}", total=2) as progress:
            print(EVIL, file=sys.stderr)
            print(EVIL)
            progress.advance(note=f"[red] {EVIL}")
        assert isinstance(sys.stdout, GuardedStream)
        print("after", EVIL)
    sent = screen.getvalue()
    assert_harmless(sent)
    assert "\r\x1b[2K" in sent, "the bar itself moves the cursor and draws over its line"
    assert "\\x1b[2K" not in sent
    assert "\\x1b[38;5" not in sent, "its movements and colours are not shown as text"
    assert sys.stdout is screen


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_metadata_of_a_file_cannot_colour_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    screen = terminal(monkeypatch)
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({EVIL: np.zeros(2, np.float32)}, path, {"note": EVIL})
    assert type_in(monkeypatch, "inspect", path, *extra) == 0
    assert_harmless(screen.getvalue())
    assert "RED" in screen.getvalue()


def test_an_error_cannot_colour_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)

    def fail(*_: object) -> None:
        raise InputError(EVIL)

    monkeypatch.setattr("fsdeploy.cli.inspect.describe", fail)
    assert type_in(monkeypatch, "inspect", "x") == 2
    assert_harmless(screen.getvalue())


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are always Unicode")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_file_name_that_is_not_utf8_is_shown(tmp_path: Path, encoding: str) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(2, np.float32)}, tmp_path / "x")
    (tmp_path / "x").rename(os.fsdecode(path))
    options = os.fsencode(tmp_path) + b"/caf\xe9.toml"
    Path(os.fsdecode(options)).write_text("[optimizer]\nlearning_rate = 1e-4\n")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "300"}
    program = [sys.executable, "-m", "fsdeploy"]
    for arguments in (["inspect", path], ["inspect", path, "--json"], ["config", "check", options]):
        done = subprocess.run([*program, *arguments], capture_output=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        if "--json" in arguments:
            assert json.loads(done.stdout)["path"] == os.fsdecode(path)
        else:
            assert b"caf\\xe9" in done.stdout


def test_json_is_json_whatever_numbers_a_file_holds(tmp_path: Path, monkeypatch, capsys) -> None:
    metadata = {"a": "NaN", "b": '{"x": 1e999, "y": -Infinity}', "c": "1.5"}
    safetensors.numpy.save_file({"x": np.zeros(2, np.float32)}, tmp_path / "x.safetensors", metadata)
    assert type_in(monkeypatch, "inspect", tmp_path / "x.safetensors", "--json") == 0

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["metadata"] == {**metadata, "c": 1.5}, "what is no JSON stays the text it was"


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_a_group_typed_alone_prints_its_help_as_it_is(monkeypatch, capsys, arguments: list[str]) -> None:
    type_in(monkeypatch, *arguments)
    alone = "".join(capsys.readouterr())
    assert type_in(monkeypatch, *arguments, "--help") == 0
    asked = capsys.readouterr().out
    assert alone.strip() == asked.strip()
    assert "\n  fsdeploy " in alone or "\n    fsdeploy " in alone
    assert "Error" not in alone
