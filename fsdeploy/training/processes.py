"""Several training processes: starting them, and joining them into one `torch.distributed` group."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from fsdeploy.errors import FsdeployError, InputError

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_SAME_CAUSE_S = 1.0
_GRACE_S = 30.0
_SAVING_GRACE_S = 600.0
"""For the process that saves what was trained."""


class PeerLostError(FsdeployError):
    """Another process of the training has ended; the cause is in its own message (exit code 75)."""

    exit_code = 75


def is_worker() -> bool:
    """True in a process that `launch` or torchrun started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """True in the one process that writes and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(processes: int, command: Sequence[str]) -> int:
    """Run a command in several processes of this machine, ranks in their environment, and wait for all.

    Ctrl-C reaches them by the terminal; SIGTERM and SIGHUP are passed on. When one fails, the others are stopped, the
    first with time to save.

    Returns:
        Exit status: 0, or that of the process that failed first.
    """
    environment = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    with tempfile.TemporaryFile() as quiet:
        running = [
            subprocess.Popen(
                command,
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                # One voice, and one ear: what the others say is shown only if one of them fails first.
                stdin=None if rank == 0 else subprocess.DEVNULL,
                stdout=None if rank == 0 else quiet,
                stderr=None if rank == 0 else quiet,
            )
            for rank in range(processes)
        ]
        with _passed_on(running):
            failed = _wait(running)
        if failed > 0 and running[0].returncode != running[failed].returncode:
            _repeat(quiet)
        return 0 if failed < 0 else running[failed].returncode & 0xFF


@contextmanager
def _passed_on(running: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Ask the processes to save and end when this one is asked to, or loses its terminal."""
    numbers = [signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: _send(running, signal.SIGTERM)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: list[subprocess.Popen[bytes]]) -> int:
    """The rank that failed first, -1 when all ended well."""
    while True:
        try:
            states = [process.poll() for process in running]
            if any(states):
                return _stop(running)
            if all(state == 0 for state in states):
                return -1
            time.sleep(_POLL_S)
        except KeyboardInterrupt:
            continue  # the processes got it too: they save and end


def _send(running: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in running:
        if process.poll() is None:
            process.send_signal(number)


def _stop(running: list[subprocess.Popen[bytes]]) -> int:
    """End what still runs after a failure, and return the rank that caused it."""
    time.sleep(_SAME_CAUSE_S)  # what fails everywhere, such as a wrong folder, is not cut off in mid-sentence
    codes = [process.poll() for process in running]
    _send(running, signal.SIGTERM)
    started = time.monotonic()
    for rank, process in enumerate(running):
        patience = _GRACE_S if rank else _SAVING_GRACE_S
        try:
            process.wait(max(started + patience - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    causes = [rank for rank, code in enumerate(codes) if code and code != PeerLostError.exit_code]
    return causes[0] if causes else next(rank for rank, code in enumerate(codes) if code)


def _repeat(quiet: IO[bytes]) -> None:
    quiet.seek(0)
    lines = quiet.read().decode("utf-8", "replace").splitlines()
    with suppress(OSError):  # nobody may be there to read it
        for line in dict.fromkeys(line for line in lines if line.startswith("Error")):
            print(line, file=sys.stderr)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def joined() -> Iterator[None]:
    """Be part of the group that the environment describes while the block runs; no-op for a process on its own.

    Uses nccl with one GPU per process, gloo without GPUs.

    Raises:
        InputError: this machine has GPUs, but fewer than processes.
    """
    if not is_worker():
        yield
        return
    import torch
    from torch import distributed

    place, neighbours = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    gpus = torch.cuda.device_count()
    if 0 < gpus < neighbours:
        raise InputError(f"{neighbours} processes need {neighbours} GPUs, this machine has {gpus}: lower --nproc")
    if gpus:
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if gpus else "gloo")
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise PeerLostError("another process of this training has ended: see its message") from error
        raise
    finally:
        distributed.destroy_process_group()
