"""Load a model folder over and over while a training saves into it, and see whether what loads is always one save.

    python benchmarks/load_during_saves.py --seconds 30

Every tensor of a save holds the iteration's number, so weights that are described by another save's state are noticed.
Each load must also be without a warning (nothing is damaged) and no older than the load before it. Every fourth load
only looks at the files, the optimizer's too, as `fsdeploy inspect` does.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from kill_during_saves import SavedModel, forked, save_in_a_loop

from fsdeploy.model.folder import load_model
from fsdeploy.model.saved_set import FileSet


class Warnings(logging.Handler):
    """Collects the warnings of one load."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


def one_load(folder: Path, warnings: Warnings, older: int, looking: bool) -> tuple[str, int]:
    """What was wrong with one load (empty when nothing was), and its iteration (0 for none)."""
    warnings.seen.clear()
    try:
        if looking:
            found = FileSet(folder, SavedModel.name).find()
            iteration = int(found.state["iterations"])
            values = {float(iteration)}  # not looked at
        else:
            model = load_model(folder)
            iteration = model.iterations
            values = {float(value) for tensor in model.model.state_dict().values() for value in tensor.unique()}
    except Exception as error:
        return f"{type(error).__name__}: {error}", 0
    if values != {float(iteration)}:
        return f"weights of {sorted(values)} described as iteration {iteration}", iteration
    if warnings.seen:
        return f"warning: {warnings.seen[0]}", iteration
    return (f"older: iteration {iteration} after {older}" if iteration < older else ""), iteration


def load_in_a_loop(folder: Path, seconds: float) -> tuple[int, int, list[str]]:
    """(loads, iterations saved meanwhile, what was wrong)."""
    pid, handle = forked(lambda report: save_in_a_loop(folder, 1_000_000, report))
    os.read(handle, 64)  # the first save is done
    os.set_blocking(handle, False)
    warnings = Warnings()
    logging.getLogger("fsdeploy").addHandler(warnings)
    loads, newest, wrong = 0, 0, []
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            problem, iteration = one_load(folder, warnings, newest, looking=loads % 4 == 3)
            loads, newest = loads + 1, max(newest, iteration)
            wrong += [problem] if problem else []
            try:
                os.read(handle, 1 << 16)  # or the pipe fills up and the saves stop
            except BlockingIOError:
                continue
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(handle)
    return loads, newest, wrong


def main() -> None:
    """Run the experiment and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # forking after threads were started would hang
    with tempfile.TemporaryDirectory() as folder:
        loads, saves, wrong = load_in_a_loop(Path(folder) / SavedModel.name, options.seconds)
    if options.json:
        print(json.dumps({"loads": loads, "saves": saves, "wrong": wrong}))
    else:
        print(f"{loads} loads while {saves} saves were made: {len(wrong)} were wrong")
        kinds = Counter(re.sub(r"(/\S*/|\.?\d+(\.\d+)?)", "..", problem)[:150] for problem in wrong)
        print("".join(f"{count:6} {kind}\n" for kind, count in kinds.most_common()), end="")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
