"""The one writer of files."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from fsdeploy.errors import InputError
from fsdeploy.files import write_bytes


def test_threads_that_write_the_same_file_leave_one_whole_version_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    errors: list[BaseException] = []

    def write(letter: bytes) -> None:
        try:
            for _ in range(40):
                write_bytes(target, letter * 100_000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert target.read_bytes() in {letter * 100_000 for letter in (b"a", b"b", b"c")}
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_an_error_inside_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="exists already"):
        write_bytes(target, b"new", overwrite=False)
    assert target.read_bytes() == b"old"


def test_data_is_flushed_through_a_handle_that_may_write_as_windows_demands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows itself demands it")
    flushed: list[int] = []

    def fsync_of_windows(handle: int) -> None:
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode) and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flushed.append(mode)

    monkeypatch.setattr(os, "fsync", fsync_of_windows)
    write_bytes(tmp_path / "state.json", b"{}")
    assert (tmp_path / "state.json").read_bytes() == b"{}"
    assert any(stat.S_ISREG(mode) for mode in flushed)
