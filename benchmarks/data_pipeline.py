"""What a face sample costs, from the loader's `next` to tensors.

    python benchmarks/data_pipeline.py -A faces_a -B faces_b --json result.json

For every size and number of workers, a process of its own measures CPU time per face (all threads together, so that a
busy machine matters less than on the clock): the scan, the first epoch (decode, crop, masks), and later epochs
(variation alone); the wall time of a `next` that crosses the border of an epoch against one that does not; and the
memory that the loader adds. Threads are held to one per worker.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

TARGETS = {64: 0.4, 128: 1.2, 256: 4.0, 512: 15.0}
"""CPU milliseconds per face to reach from the second epoch on."""
FIRST_TARGETS = {64: 5.0}
ORIGINAL = {64: (14.0, 17.0, 0.5), 256: (14.0, 16.0, 6.0), 512: (23.0, 23.0, 26.0)}
"""The original's cost per face in every epoch: of an item (from, to), and of its variation, in milliseconds."""


@dataclass(frozen=True)
class Result:
    """One row of the table; times in milliseconds."""

    size: int
    workers: int
    scan: float
    """CPU per face of the folders, once."""
    first: float
    """CPU per face in the first epoch, the scan not counted."""
    later: float
    """CPU per face from the second epoch on: the fastest of several rounds, for other work on the machine only adds."""
    later_median: float
    inside: float
    """Wall time of a `next` inside an epoch (median)."""
    border: float
    """Wall time of a `next` that ends an epoch (median)."""
    crops_mb: float
    """Crops kept."""
    batch_mb: float
    """Tensors of one batch, as they are handed over."""
    memory_mb: float
    """Peak memory beyond the imports, the crops and two batches of tensors (the one in use and the one being made)."""


def measure(folders: tuple[Path, Path], size: int, workers: int, batch: int, seconds: float) -> Result:
    """Measure one row in this process."""
    import torch

    from fsdeploy.config.training import LoaderOptions, TrainingOptions
    from fsdeploy.training.config import TrainConfig
    from fsdeploy.training.data.loader import TrainLoader

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.div(torch.ones(4), 2)
    resident = _resident_mb()
    options = TrainingOptions(loader=LoaderOptions(num_processes=workers, cache_budget=16384))
    config = TrainConfig(folders, batch)
    start = time.process_time()
    loader = TrainLoader(size, (size,), "bgr", config, options=options, augment_on="cpu")
    faces = sum(map(len, loader.datasets))
    scan = (time.process_time() - start) / faces * 1e3
    rows = batch * len(folders)
    per_epoch = -(-max(map(len, loader.datasets)) // batch)
    start = time.process_time()
    for _ in range(per_epoch):
        feeds, targets, meta = next(loader)
    _wait_for_workers()
    first = (time.process_time() - start) / ((per_epoch + loader.get_loader().ahead) * rows) * 1e3
    tensors = [*feeds, *targets, *meta.mask_face, *meta.mask_eye, *meta.mask_mouth]
    batch_mb = sum(tensor.nbytes for tensor in tensors) / 2**20
    inside, border, costs = [], [], []
    for _ in range(loader.get_loader().ahead + 1):
        next(loader)  # ready already: these would look quicker than they are
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(border) < 3:
        epoch, began = int(loader.epoch), time.perf_counter()
        next(loader)
        (border if int(loader.epoch) > epoch else inside).append((time.perf_counter() - began) * 1e3)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(costs) < 3:
        _wait_for_workers()
        start = time.process_time()
        for _ in range(per_epoch):
            next(loader)
        _wait_for_workers()
        costs.append((time.process_time() - start) / (per_epoch * rows) * 1e3)
    crops = sum(dataset.cache.filled * dataset.cache.row_bytes for dataset in loader.datasets) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Result(
        size, workers, scan, first, min(costs), statistics.median(costs), statistics.median(inside),
        statistics.median(border), crops, batch_mb, peak - resident - crops - 2 * batch_mb,
    )  # fmt: skip


def _wait_for_workers() -> None:
    """Wait until the batches prepared ahead are done, so that their cost is counted with their number."""
    before = -1.0
    while time.process_time() - before > 0.002:
        before = time.process_time()
        time.sleep(0.1)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def table(results: list[Result]) -> str:
    """The results as text."""
    lines = [
        "  px  workers  scan ms  first ms  later ms (median)  target  next ms  at border ms  crops MB  batch MB"
        "  other MB"
    ]
    for r in results:
        lines.append(
            f"{r.size:4d}  {r.workers:7d}  {r.scan:7.2f}  {r.first:8.2f}  {r.later:8.3f}  ({r.later_median:6.3f})"
            f"  {TARGETS.get(r.size, float('nan')):6.1f}  {r.inside:7.1f}  {r.border:12.1f}  {r.crops_mb:8.0f}"
            f"  {r.batch_mb:8.0f}  {r.memory_mb:8.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run every row in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-A", type=Path, required=True, help="faces of A")
    parser.add_argument("-B", type=Path, required=True, help="faces of B")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=32, help="faces per side and batch")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long later epochs are measured")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        row = measure(
            (arguments.A, arguments.B), arguments.sizes[0], arguments.workers[0], arguments.batch, arguments.seconds
        )
        print(json.dumps(asdict(row)))
        return
    results = []
    for size in arguments.sizes:
        for workers in arguments.workers:
            command = [
                sys.executable, __file__, "-A", str(arguments.A), "-B", str(arguments.B), "--one", "--sizes", str(size),
                "--workers", str(workers), "--batch", str(arguments.batch), "--seconds", str(arguments.seconds),
            ]  # fmt: skip
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results.append(Result(**json.loads(output)))
            print(table(results[-1:]) if len(results) == 1 else table(results[-1:]).splitlines()[1], flush=True)
    if arguments.json:
        values = {"results": [asdict(r) for r in results], "targets": TARGETS, "original": ORIGINAL}
        arguments.json.write_text(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
