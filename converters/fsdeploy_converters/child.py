"""The child process that looks HDF5 files over: started when it is first needed, replaced when it hangs or crashes.

Requests and answers are lines of JSON. The child only reads; it is given paths, never names from inside a file.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

from fsdeploy_converters.errors import damaged, hostile

SECONDS = 60.0
"""Time that one file may take; real ones take well under one."""


class _Child:
    def __init__(self) -> None:
        # One thread is enough for reading structure, and keeps the child small.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        places = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fsdeploy_converters.child_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": places},
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def ask(self, request: dict[str, Any]) -> bytes:
        """One line of answer; b"" when the child died.

        Raises:
            queue.Empty: no answer in time.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return b""
        return self._lines.get(timeout=SECONDS)

    def stop(self) -> None:
        """End the child at once."""
        self._process.kill()
        self._process.wait()


_lock = threading.Lock()
_current: list[_Child] = []


def ask(request: dict[str, Any], source: str) -> dict[str, Any]:
    """Have a file looked over.

    Raises:
        HostileFileError: it takes too long or too much memory.
        CorruptModelError: it crashes the library.
    """
    with _lock:
        if not _current:
            _current.append(_Child())
        try:
            line = _current[0].ask(request)
        except queue.Empty:
            stop()
            raise hostile(source, f"HDF5 does not come to an end with it in {SECONDS:.0f} s") from None
        if not line:
            stop()
            raise damaged(source, "HDF5 crashes on it")
    found: dict[str, Any] = json.loads(line)
    return found


def stop() -> None:
    """End the child process, if there is one."""
    while _current:
        _current.pop().stop()


atexit.register(stop)
