"""Spread a conversion over a Ray cluster: one task per part, then one join without encoding again.

    python examples/scale/ray_convert.py --parts 8 -m a2b.onnx -i film.mp4 -o swapped.mp4 [-- --faces faces_a ...]

What follows `--` is handed to `fsdeploy convert`; write paths in it in full. Model, input and output must be on storage
that every node sees under the same path, and fsdeploy must be installed on every node. Without a cluster Ray uses the
cores of this machine.

A part that a lost node took with it is converted again by Ray. A part that an earlier run has finished is kept if it
was made for the same job: model, input, the alignments beside it, options and the files that they name, as noted
beside the part in `<part>.job.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def describe_job(model: Path, source: Path, parts: int, more: list[str]) -> dict[str, Any]:
    """What a part is made of; two runs with equal answers make equal parts."""
    named = [Path(word.rpartition("=")[2]) for word in more]
    beside = source.with_name(f"{source.stem}_alignments.fsa")  # taken when no faces are named; a folder holds its own
    return {
        "model": content_digest(model),
        "files": {str(path): stamps(path) for path in (source, beside, *named) if path.exists()},
        "parts": parts,
        "options": more,
    }


def content_digest(path: Path) -> str:
    """SHA-256 over a file, or over the files of a folder: a model of the same size and date may be another."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def stamps(path: Path) -> str:
    """Sizes and dates of a file, or of all files of a folder, as a digest: films are too large to read twice."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    seen = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def finished(part: Path, job: dict[str, Any]) -> bool:
    """Whether an earlier run has written this part to its end, for the same job."""
    report = part.with_name(f"{part.stem}.convert_report.json")
    if not (part.exists() and report.exists() and job_note(part).exists()):
        return False
    return not json.loads(report.read_text())["stopped"] and json.loads(job_note(part).read_text()) == job


def job_note(part: Path) -> Path:
    """Where the job of a finished part is noted."""
    return part.with_name(f"{part.stem}.job.json")


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
    job = describe_job(chosen.model, chosen.input, chosen.parts, chosen.more)
    waiting = [(number, part) for number, part in enumerate(parts, 1) if not finished(part, job)]
    for _, part in waiting:
        job_note(part).unlink(missing_ok=True)  # noted again when the part is there
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(ignore_reinit_error=True, include_dashboard=False)
    running = {
        convert_part.remote(
            str(chosen.model.resolve()), str(chosen.input.resolve()), str(part), f"{number}/{chosen.parts}", chosen.more
        ): number
        for number, part in waiting
    }
    while running:
        ready, _ = ray.wait(list(running))
        code, text = ray.get(ready[0])
        number = running.pop(ready[0])
        print(f"part {number} of {chosen.parts}: {text.splitlines()[0] if text else ''}", flush=True)
        if code not in (0, 1):
            print(text, file=sys.stderr)
            return code
        job_note(parts[number - 1]).write_text(json.dumps(job))
    join = [sys.executable, "-m", "fsdeploy", "join", *map(str, parts), "-o", str(chosen.output), "--force"]
    return subprocess.run(join, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
