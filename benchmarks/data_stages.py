"""Where the time of a varied face goes: CPU milliseconds per face of each stage, in one thread.

    OMP_NUM_THREADS=1 python benchmarks/data_stages.py -A faces_a -B faces_b

Each stage runs over a whole batch at a time; the fastest of several batches counts, for other work on the machine only
adds. The sum is what a sample costs on an idle core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.training.config import TrainConfig
from fsdeploy.training.data.collate import Collate, write_planes
from fsdeploy.training.data.data_set import TrainSet
from fsdeploy.training.data.sampler import EndlessSampler, batch_random

BATCH = 32


class Stages:
    """Fastest time of each stage so far, milliseconds per face."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.fastest: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        cost = (time.process_time() - start) / self.rows * 1e3
        self.fastest[name] = min(cost, self.fastest.get(name, np.inf))


def run_batch(collate: Collate, sets: list[TrainSet], indices: NDArray[np.int64], number: int, stage: Stages) -> None:
    """Make one batch stage by stage."""
    rows = [(side, item, int(indices[side, item])) for side in range(len(sets)) for item in range(BATCH)]
    for side, _, index in rows:
        sets[side].crop(index)  # decode, the first time
    with stage("random numbers"):
        raw = collate.start(indices, batch_random(0, number))
    varied = raw.variation
    with stage("kept crops"):
        crops = [sets[side].crop(index) for side, _, index in rows]
    with stage("colour"):
        pictures = [varied.picture(row, face, masks[0]) for row, (face, masks) in enumerate(crops)]
    with stage("target"):
        targets = [varied.target(row, picture) for row, picture in enumerate(pictures)]
    with stage("eye and mouth mask"):
        others = [varied.spots(row, masks[1:]) for row, (_, masks) in enumerate(crops)]
    with stage("warped feed"):
        feeds = [varied.feed(row, picture, picture) for row, picture in enumerate(pictures)]
    with stage("channels first"):
        for row, (side, item, _) in enumerate(rows):
            masks = raw.masks[0][:, item, side, 0]
            write_planes(targets[row], raw.targets[0][item, side], masks[:1])
            for channel in range(2):
                cv2.extractChannel(others[row], channel, masks[1 + channel])
            write_planes(feeds[row], raw.feed[side, item])
    with stage("to float"):
        collate.finish(raw)


def measure(folders: tuple[Path, Path], size: int, rounds: int) -> dict[str, float]:
    """Stage -> milliseconds per face."""
    cv2.setNumThreads(1)
    sets = [TrainSet("", folder, size, cache_budget=1 << 34) for folder in folders]
    collate = Collate(size, (size,), "bgr", TrainConfig(folders, BATCH))
    sampler = EndlessSampler([len(one) for one in sets], BATCH, seed=0)
    stages = Stages(len(sets) * BATCH)
    for number in range(rounds):
        run_batch(collate, sets, sampler.indices(number), number, stages)
    return stages.fastest


def main() -> None:
    """Print a table: a row per stage, a column per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-A", type=Path, required=True, help="faces of A")
    parser.add_argument("-B", type=Path, required=True, help="faces of B")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--rounds", type=int, default=10, help="batches per size")
    arguments = parser.parse_args()
    columns = [measure((arguments.A, arguments.B), size, arguments.rounds) for size in arguments.sizes]
    print(f"{'':20s}" + "".join(f"{size:6d} px" for size in arguments.sizes))
    for stage in columns[0]:
        print(f"{stage:20s}" + "".join(f"{column[stage]:9.3f}" for column in columns))
    print(f"{'sum':20s}" + "".join(f"{sum(column.values()):9.3f}" for column in columns))


if __name__ == "__main__":
    main()
