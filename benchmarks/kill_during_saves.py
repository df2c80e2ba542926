"""Kill a process that saves a model in a loop, and see whether the folder still loads.

    python benchmarks/kill_during_saves.py --rounds 100

Two experiments. `random`: SIGKILL at random moments of a loop of saves (weights, optimizer, backup). `every step`: one
save is cut short before each single system call that changes the folder (open for writing, rename, unlink, sync).
Every tensor of a save holds the iteration's number, so a set that is mixed from two saves is noticed. Each round must
load, be of one iteration throughout, and be no older than the last save that was done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsdeploy.config.training import OptimizerOptions, TrainingOptions
from fsdeploy.model.base import ModelBase
from fsdeploy.model.folder import load_model
from fsdeploy.model.io import FEWEST_AVERAGED
from fsdeploy.model.network import SharedEncoderNetwork, SwapNetwork
from fsdeploy.model.registry import register
from fsdeploy.nn import SameConv2d

ALWAYS = TrainingOptions(optimizer=OptimizerOptions(save_optimizer="always"))
_AUDITED = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate"}


@register
class SavedModel(ModelBase):
    """A network whose size makes one save take some milliseconds."""

    name = "saved"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 8, 8)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        def part() -> nn.Module:
            return SameConv2d(3, 3 * WIDTH, 5)

        return SharedEncoderNetwork(part(), part(), part())


WIDTH = 100


class Moments:
    """Optimizer state that holds the iteration's number."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def state_tensors(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return {"moments": torch.full((50_000,), float(self.iteration))}, {"iteration": self.iteration}


def save_in_a_loop(folder: Path, saves: int, report: int, best_every: int = 4) -> None:
    """Save `saves` times; write the number of each iteration to `report` when its save is done.

    Every `best_every`-th save is the best so far and writes the backup; the others must hold up without a fresh one.
    """
    model = SavedModel(folder, training=ALWAYS)
    model.build()
    for _ in range(saves):
        model.state.increment_iterations()
        with torch.no_grad():
            for tensor in model.model.parameters():
                tensor.fill_(float(model.iterations))
        loss = 1.0 / model.iterations if model.iterations % best_every == 0 else 2.0
        for _ in range(FEWEST_AVERAGED):
            model.add_history([loss])
        model.io.save(Moments(model.iterations))
        model.io.wait()
        os.write(report, b"%d\n" % model.iterations)
        if model.iterations % 5 == 0:
            model.io.snapshot(Moments(model.iterations))
            shutil.rmtree(folder / f"{model.name}_snapshot_{model.iterations - 5}", ignore_errors=True)


def check(folder: Path, at_least: int) -> tuple[str, int]:
    """Why the folder is not a good set of iteration `at_least` or later (empty when it is), and its iteration."""
    try:
        model = load_model(folder, predict=False)
        optimizer = model.io.load_optimizer()
        model.close()
    except Exception as error:
        return f"{type(error).__name__}: {error}" if at_least else "", 0  # nothing was ever saved
    values = {float(value) for tensor in model.model.state_dict().values() for value in tensor.unique()}
    values |= {float(value) for value in optimizer["tensors"]["moments"].unique()} if optimizer else set()
    if values != {float(model.iterations)}:
        return f"iteration {model.iterations} holds values {sorted(values)}", model.iterations
    older = f"iteration {model.iterations} was loaded after {at_least} had been saved"
    return "" if model.iterations >= at_least else older, model.iterations


def forked(work: Any) -> tuple[int, int]:
    """Run `work(report)` in a forked process; returns (pid, file handle to read reports from)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            work(write)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    return pid, read


def last_report(handle: int, already_read: bytes = b"") -> int:
    """The last number that was reported, 0 for none; waits for the end of the process."""
    with os.fdopen(handle, "rb") as stream:
        return max((int(line) for line in (already_read + stream.read()).split()), default=0)


def kill_at_random(folder: Path, rounds: int, seed: int) -> list[str]:
    """Failures of `rounds` rounds, each going on from what the one before left."""
    chance = random.Random(seed)
    failures = []
    saved = 0
    for number in range(rounds):
        pid, handle = forked(lambda report: save_in_a_loop(folder, 10_000, report))
        # Mostly during later saves of a process, sometimes while it starts; on a busy machine, too.
        reported = b"" if chance.random() < 0.25 else os.read(handle, 64)
        time.sleep(chance.uniform(0.0, 0.3))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            failures.append(f"round {number}: the process ended by itself")
        problem, saved = check(folder, max(saved, last_report(handle, reported)))
        failures += [f"round {number}: {problem}"] if problem else []
    return failures


def stop_before(step: int) -> None:
    """End this process, as SIGKILL does, before its `step`-th system call that changes files."""
    seen = count(1)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if event in _AUDITED and writes and next(seen) == step:
            os._exit(9)

    sys.addaudithook(audit)


def kill_at_every_step(folder: Path, best_every: int) -> tuple[int, list[str]]:
    """Number of steps of one save, and the failures of cutting it short before each."""
    failures = []
    pid, handle = forked(lambda report: save_in_a_loop(folder, 2, report, best_every))
    os.waitpid(pid, 0)
    saved = last_report(handle)

    def one_save(report: int, step: int) -> None:
        stop_before(step)
        save_in_a_loop(folder, 1, report, best_every)

    for step in count(1):
        pid, handle = forked(lambda report, step=step: one_save(report, step))
        _, status = os.waitpid(pid, 0)
        problem, saved = check(folder, max(saved, last_report(handle)))
        failures += [f"step {step}: {problem}"] if problem else []
        if os.waitstatus_to_exitcode(status) == 1:
            failures.append(f"step {step}: the process failed")
        if os.waitstatus_to_exitcode(status) == 0:
            return step - 1, failures
    raise AssertionError("unreachable")


def main() -> None:
    """Run both experiments and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # forking after threads were started would hang
    with tempfile.TemporaryDirectory() as folder:
        failures = kill_at_random(Path(folder) / "random", options.rounds, options.seed)
        saved = load_model(Path(folder) / "random").iterations
        steps, step_failures = kill_at_every_step(Path(folder) / "with_backup", best_every=1)
        more_steps, more_failures = kill_at_every_step(Path(folder) / "without_backup", best_every=1000)
    steps, step_failures = steps + more_steps, step_failures + more_failures
    result = {
        "rounds": options.rounds, "saves": saved, "failures": failures, "steps": steps, "step_failures": step_failures,
    }  # fmt: skip
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{options.rounds} random kills during {saved} saves: {len(failures)} folders did not load")
        print(f"two saves, with and without backup, cut short before each of their {steps} steps: ", end="")
        print(f"{len(step_failures)} folders did not load")
        print("\n".join(failures + step_failures), end="")
    sys.exit(bool(failures or step_failures))


if __name__ == "__main__":
    main()
