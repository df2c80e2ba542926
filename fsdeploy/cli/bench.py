"""`fsdeploy bench`: how fast is an exported file on this machine?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsdeploy.cli.json_output import json_text

if TYPE_CHECKING:
    from fsdeploy.runtime.bench import Timing


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-p", "--provider", "providers", multiple=True, help="Execution provider; several times [auto, cpu].")
@click.option(
    "-b", "--batch", "batches", multiple=True, type=click.IntRange(1, 4096),
    help="Faces per run; several times [1, 8; whole-frame graphs: 1].",
)  # fmt: skip
@click.option("-n", "--runs", type=int, default=20, show_default=True, help="Timed runs per batch size.")
@click.option("--threads", type=int, help="Threads within one operator on the CPU.")
@click.option("--strict", is_flag=True, help="Do not fall back to the CPU; exit code 3 when nothing asked for runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(
    file: Path,
    providers: tuple[str, ...],
    batches: tuple[int, ...],
    runs: int,
    threads: int | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Measure FILE: load, first run, median and 95th percentile per execution provider and batch size.

    \b
    Examples:
      fsdeploy bench a2b.onnx
      fsdeploy bench a2b.onnx -p cuda -p cpu -b 1 -b 16 --json
    """
    from fsdeploy.runtime.bench import bench_file

    timings = bench_file(file, providers or ("auto", "cpu"), batches or None, runs, threads, strict)
    megabytes = file.stat().st_size / 1e6
    if as_json:
        rows = [dataclasses.asdict(entry) for entry in timings]
        click.echo(json_text({"file": str(file), "megabytes": megabytes, "timings": rows}))
        return
    _print_table(f"{file}, {megabytes:.1f} MB", timings)


def _print_table(title: str, timings: list[Timing]) -> None:
    unit = next((entry.unit for entry in timings if entry.used), "face")
    times = ("load ms", "first ms", "median ms", "p95 ms", f"ms/{unit}")
    names = ("requested", "used", "batch", *times, "memory MB")
    rows: list[tuple[str, ...]] = [names]
    for entry in timings:
        figures = (entry.load_ms, entry.first_ms, entry.median_ms, entry.p95_ms, entry.per_face_ms, entry.memory_mb)
        shown = [f"{value:.1f}" if value is not None else "-" for value in figures]
        rows.append((_short(entry.requested), _short(entry.used) or "-", str(entry.batch), *shown))
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    click.echo(title)
    for row in rows:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        padded[:2] = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
        click.echo("  ".join(padded))
    for note in dict.fromkeys(entry.note for entry in timings if entry.note):
        click.echo(note)


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")
