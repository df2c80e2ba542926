"""`fsdeploy train` in a process of its own, for tests of what happens to a process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TINY = ["-t", "compact", "--set", "width=8", "-b", "2", "--set", "num_processes=1"]


def command(model: Path, faces: tuple[Path, Path], *more: object) -> list[str]:
    """The command line of a small training without end."""
    return [*map(str, (sys.executable, "-m", "fsdeploy", "train", "-A", *faces[:1], "-B", faces[1], "-m", model)),
            *TINY, *map(str, more)]  # fmt: skip


def saved_iterations(model: Path) -> int:
    """Iterations of the saved set; 0 before the first save."""
    state = model / "compact_state.json"
    return int(json.loads(state.read_text())["iterations"]) if state.exists() else 0


class Training:
    """A training whose first save is on disk, and that trains on."""

    def __init__(self, model: Path, faces: tuple[Path, Path], *more: object, **popen: Any) -> None:
        self.model = model
        self.state = model / "compact_state.json"
        options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, **popen}
        self.process = subprocess.Popen(command(model, faces, *more), **options)
        deadline = time.monotonic() + 60
        while not self.state.exists() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)

    def end(self, *signals: int) -> tuple[int, str]:
        """Send signals and wait; the exit status and what was said on stderr."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.02)
        try:
            _, errors = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode, errors

    @property
    def iterations(self) -> int:
        """Iterations of the saved set."""
        return saved_iterations(self.model)

    @property
    def has_optimizer(self) -> bool:
        """Whether an optimizer state is saved, as it is with the last save of a run only."""
        return (self.model / "compact_optimizer.safetensors").exists()
