"""Spread a conversion over a Ray cluster: one task per part, then one join without encoding again.

    python examples/scale/ray_convert.py --parts 8 -m a2b.onnx -i film.mp4 -o swapped.mp4 [-- --faces faces_a ...]

What follows `--` is handed to `fsdeploy convert`; write paths in it in full. Model, input and output must be on storage
that every node sees under the same path, and fsdeploy must be installed on every node. Without a cluster Ray uses the
cores of this machine.

A part that a lost node took with it is converted again by Ray; a part that is there and complete is not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import ray


@ray.remote(num_cpus=2, max_retries=2)
def convert_part(model: str, source: str, part: str, shard: str, more: list[str]) -> tuple[int, str]:
    """Convert one part; its exit code and what it printed. Exit code 1 (some frames failed) still leaves a part."""
    command = [
        sys.executable,
        "-m",
        "fsdeploy",
        "convert",
        "-m",
        model,
        "-i",
        source,
        "-o",
        part,
        "--shard",
        shard,
        "--force",
    ]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def finished(part: Path) -> bool:
    """Whether an earlier run has written this part to its end."""
    report = part.with_name(f"{part.stem}.convert_report.json")
    return part.exists() and report.exists() and not json.loads(report.read_text())["stopped"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-i", "--input", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("more", nargs="*", help="options of 'fsdeploy convert', after --")
    chosen = parser.parse_args()
    parts = [
        chosen.output.with_name(f"{chosen.output.stem}.part{number}of{chosen.parts}{chosen.output.suffix}").resolve()
        for number in range(1, chosen.parts + 1)
    ]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(ignore_reinit_error=True, include_dashboard=False)
    running = {
        convert_part.remote(
            str(chosen.model.resolve()), str(chosen.input.resolve()), str(part), f"{number}/{chosen.parts}", chosen.more
        ): number
        for number, part in enumerate(parts, 1)
        if not finished(part)
    }
    while running:
        ready, _ = ray.wait(list(running))
        code, text = ray.get(ready[0])
        print(f"part {running.pop(ready[0])} of {chosen.parts}: {text.splitlines()[0] if text else ''}", flush=True)
        if code not in (0, 1):
            print(text, file=sys.stderr)
            return code
    join = [sys.executable, "-m", "fsdeploy", "join", *map(str, parts), "-o", str(chosen.output), "--force"]
    return subprocess.run(join, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
