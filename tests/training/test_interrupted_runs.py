"""Runs that are ended from outside: signals, terminals and pipes that go away, keys. What was trained is saved."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from training_process import Training, command, saved_iterations

from fsdeploy.cli.log import show_log
from fsdeploy.model.folder import load_model
from fsdeploy.progress import Progress, stage
from fsdeploy.training.requests import Requests, signals

Folders = tuple[Path, Path]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of that kind are POSIX")
ENDS = [signal.SIGINT, signal.SIGTERM, *([] if sys.platform == "win32" else [signal.SIGHUP])]


@pytest.mark.parametrize("number", ENDS)
def test_one_signal_saves_and_ends(tmp_path: Path, drawn_faces: Folders, number: int) -> None:
    training = Training(tmp_path, drawn_faces)
    code, errors = training.end(number)
    assert code == 0, errors
    assert "saved to" in errors
    assert training.iterations > 1, "the first save is after one iteration"
    assert training.has_optimizer


@posix
def test_a_pipe_that_nobody_reads_any_more_costs_nothing(tmp_path: Path, drawn_faces: Folders) -> None:
    """Ctrl-C on `fsdeploy train 2>&1 | tee log`: tee is the first to go."""
    training = Training(tmp_path, drawn_faces, "-s", 10)
    assert training.process.stderr is not None
    training.process.stderr.close()
    training.process.stderr = None
    code, _ = training.end(signal.SIGINT)
    assert code == 0
    assert training.iterations > 1
    assert training.has_optimizer


@posix
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_costs_nothing(tmp_path: Path, drawn_faces: Folders, ignored: bool) -> None:
    """Without nohup the end of the terminal ends the run, with it the run goes on until it is told."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        line = command(tmp_path, drawn_faces, "-s", 5)
        os.execv(line[0], line)
    said = b""
    while b"#0000" not in said:
        said += os.read(terminal, 65536)
    os.close(terminal)  # the system sends SIGHUP
    if ignored:
        seen = saved_iterations(tmp_path)
        while saved_iterations(tmp_path) < seen + 10:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it goes on"
        os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert load_model(tmp_path).iterations > 1
    assert (tmp_path / "compact_optimizer.safetensors").exists()


def script(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


@posix
def test_a_second_interrupt_cuts_off_even_a_save_and_the_set_before_loads(tmp_path: Path, drawn_faces: Folders) -> None:
    done = script(
        """
        import os, signal, sys, time
        from fsdeploy.cli import main
        from fsdeploy.model.saved_set import FileSet

        publish, saves = FileSet._publish, []

        def interrupted(self, records):
            if self.suffix == "":
                saves.append(records)
                if len(saves) > 1:
                    os.kill(os.getpid(), signal.SIGINT)
                if len(saves) > 2:  # the last save, asked for by the first interrupt
                    time.sleep(60)
            publish(self, records)

        FileSet._publish = interrupted
        sys.argv = ["fsdeploy", *sys.argv[1:]]
        main()
        """,
        *command(tmp_path, drawn_faces, "-s", 2)[3:],
    )
    assert done.returncode == 130, done.stderr
    assert "once more: stop now without saving" in done.stderr
    assert "stopped without saving: the last saved set is good" in done.stderr
    assert load_model(tmp_path).iterations >= 2


@posix
def test_two_interrupts_give_the_terminal_back_as_it_was() -> None:
    import termios

    terminal, kept_open = os.openpty()
    before = termios.tcgetattr(kept_open)
    child = os.fork()
    if child == 0:
        os.login_tty(kept_open)
        code = """
        import os, signal, sys
        from fsdeploy.training.requests import Keys, Requests, signals

        requests = Requests()
        with signals(requests), Keys(requests):
            requests.running.set()
            print("ready", flush=True)
            sys.stdin.read()
        """
        os.execv(sys.executable, [sys.executable, "-c", textwrap.dedent(code)])
    said = b""
    try:
        while b"ready" not in said:
            said += os.read(terminal, 1024)
        assert not termios.tcgetattr(kept_open)[3] & termios.ECHO, "single keys are read"
        os.write(terminal, b"\x03")
        while b"once more" not in said:
            said += os.read(terminal, 1024)
        os.write(terminal, b"\x03")
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 130
        assert termios.tcgetattr(kept_open) == before
    finally:
        os.close(kept_open)
        os.close(terminal)


@posix
def test_an_interrupt_before_there_is_anything_to_save_ends_at_once() -> None:
    before = [signal.getsignal(number) for number in ENDS]
    for number in ENDS:
        with pytest.raises(KeyboardInterrupt), signals(Requests()):
            os.kill(os.getpid(), number)
    assert [signal.getsignal(number) for number in ENDS] == before


@posix
def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    requests = Requests()
    requests.running.set()
    try:
        with signals(requests):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not requests.stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


class Gone:
    """A stderr whose other end is gone."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    flush = fileno = write  # type: ignore[assignment]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_that_is_only_shown_ends_the_work(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    monkeypatch.setattr(sys, "stderr", Gone(is_terminal))
    monkeypatch.setattr("fsdeploy.progress._LOG_INTERVAL_S", 0.0)
    show_log()
    with stage("Reading"), Progress("Training", 3) as progress:
        for _ in range(3):
            progress.advance()
            logging.getLogger("fsdeploy").warning("said to nobody")
    assert progress.done == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_file_on_a_full_disk_is_given_up_with_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    show_log(file=Path("/dev/full"))
    for _ in range(3):
        logging.getLogger("fsdeploy").info("a line")
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("a line") == 3
    (warning,) = [line for line in lines if line != "a line"]
    assert "/dev/full" in warning
    assert "No space left" in warning


@posix
def test_enter_in_a_terminal_saves_and_ends(tmp_path: Path, drawn_faces: Folders) -> None:
    import pty

    child, terminal = pty.fork()
    if child == 0:
        line = command(tmp_path, drawn_faces)
        os.execv(line[0], line)
    said = b""
    try:
        while chunk := os.read(terminal, 65536):
            said += chunk
            if b"#0000" in said and b"\r" not in said[-1:]:
                os.write(terminal, b"\n")
    except OSError:  # the terminal closes with the process
        pass
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said.decode("utf-8", "replace")
    assert b"Enter saves and ends" in said
    assert b"saved to" in said.replace(b"\r\n", b" ")
