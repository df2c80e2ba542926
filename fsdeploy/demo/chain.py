"""The whole chain as a user runs it: draw, train, export both directions, convert a clip, judge, lay out a sheet.

Training, export and conversion are run through the command line that is printed, so what is shown is what was done.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsdeploy.demo.dataset import DataSize, held_out_pairs, sides, write_dataset
from fsdeploy.demo.figures import MIN_CLOSER, MIN_GAIN_DB, Figures
from fsdeploy.demo.judgement import draw_sheet, judge_swapper
from fsdeploy.errors import InputError
from fsdeploy.files import write_text
from fsdeploy.images import write_image
from fsdeploy.progress import Progress

RunCommand = Callable[[Sequence[str]], None]
"""Runs the `fsdeploy` command line with these arguments, in this process."""
Say = Callable[[str], None]

_RECORD = "demo.json"
OUTPUTS = {
    "sheet.png": "faces in, faces out, side by side: look at it",
    "swapped.mp4": "A's clip with B's face",
    "swapped.convert_report.json": "what the conversion did, frame by frame",
    "a2b.onnx": "the model, A to B: runs in onnxruntime alone",
    "b2a.onnx": "the model, B to A",
    "a2b.onnx.json": "digest and comparison figures of a2b.onnx",
    "b2a.onnx.json": "the same of b2a.onnx",
    "model": "the trained model: go on with 'fsdeploy train'",
    "faces_a": "drawn faces of A",
    "faces_b": "drawn faces of B",
    "clip_a.mp4": "drawn clip of A",
    "clip_b.mp4": "drawn clip of B",
    "clip_a_alignments.fsa": "where the face is in A's clip",
    "clip_b_alignments.fsa": "where the face is in B's clip",
    _RECORD: "this summary",
}
"""Everything that the demo writes -> what it is."""
_TRAINING = {
    "learning_rate": "0.001",
    "loss_function": "mae",
    "loss_function_2": "none",
    "coverage": "80",
    "num_processes": "1",
    "rotation_range": "4",
    "zoom_amount": "2",
    "shift_range": "2",
}
"""For a small model and a short run on two CPU cores: a high learning rate, the cheapest loss, and little variation,
since the drawn faces are varied already."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo is asked for."""

    folder: Path
    seed: int = 1
    iterations: int = 1500
    size: DataSize = field(default_factory=DataSize)
    data_only: bool = False
    force: bool = False
    """Replace an earlier demo in the folder."""
    quiet: bool = False


@dataclass
class Outcome:
    """What the demo made, and how good it is."""

    folder: Path
    seed: int
    iterations: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds."""
    figures: Figures | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values: figures with limits and verdicts, files, seconds."""
        values: dict[str, Any] = {
            "folder": str(self.folder),
            "seed": self.seed,
            "iterations": self.iterations,
            "seconds": {name: round(seconds, 1) for name, seconds in self.seconds.items()},
            "files": {name: str(self.folder / name) for name in OUTPUTS if (self.folder / name).exists()},
        }
        if self.figures is not None:
            values["figures"] = {
                row.name: {"value": row.value, "limit": row.limit, "met": row.met} for row in rows(self.figures)
            }
            values["faces"] = self.figures.faces
            values["met"] = self.figures.met
        return values


@dataclass(frozen=True)
class Row:
    """One figure as it is shown."""

    name: str
    text: str
    value: float
    limit: float
    shown: str
    shown_limit: str
    met: bool


def rows(figures: Figures) -> list[Row]:
    """The three figures with their limits, in the order they are shown."""
    return [
        Row("closer", "swap closer to the true B than to A", figures.closer, MIN_CLOSER,
            f"{figures.closer:.1%}", f">= {MIN_CLOSER:.0%}", figures.closer_met),
        Row("median_rank", f"median rank of the true B among {figures.faces}", figures.median_rank, figures.max_rank,
            f"{figures.median_rank:g}", f"<= {figures.max_rank:g}", figures.rank_met),
        Row("gain_db", "nearer to the true B than no swap", figures.gain_db, MIN_GAIN_DB,
            f"{figures.gain_db:.1f} dB", f">= {MIN_GAIN_DB:g} dB", figures.gain_met),
    ]  # fmt: skip


def run_demo(settings: DemoSettings, run_command: RunCommand, say: Say) -> Outcome:
    """Run the chain into `settings.folder`; `say` gets lines for the user.

    Returns:
        The outcome; its figures are None with `data_only`. Whether they are met is for the caller to act on.

    Raises:
        FsdeployError: the folder is in use, or a stage failed.
    """
    folder = settings.folder
    _prepare(folder, settings.force)
    outcome = Outcome(folder, settings.seed, settings.iterations)
    _record(outcome)
    stages = _Stages(outcome, 1 if settings.data_only else 5, say)
    with stages.next("data", "Draw two people's faces and a clip of each"):
        say(f"  $ {shlex.join(['fsdeploy', *data_command(settings)])}")
        say("  With your own data: two folders of extracted face PNGs, and a clip with its alignments beside it.")
        _draw_data(settings)
    if not settings.data_only:
        _run_chain(settings, stages, run_command)
    _record(outcome)
    return outcome


def data_command(settings: DemoSettings) -> list[str]:
    """The command line that draws the same data alone, without the program's name."""
    return ["demo", "--data-only", "-o", str(settings.folder), "--seed", str(settings.seed)]


def commands(settings: DemoSettings) -> dict[str, list[list[str]]]:
    """Stage -> command lines, without the program's name."""
    folder = settings.folder
    a, b = sides(folder)
    model, a2b, b2a = (str(folder / name) for name in ("model", "a2b.onnx", "b2a.onnx"))
    train = ["train", "-A", str(a.faces), "-B", str(b.faces), "-m", model, "-t", "compact"]
    train += ["-b", "8", "-i", str(settings.iterations), "--seed", str(settings.seed), "--no-augment-color"]
    for name, value in _TRAINING.items():
        train += ["--set", f"{name}={value}"]
    return {
        "train": [train],
        "export": [
            ["export", model, "-o", a2b, "--faces", str(a.faces)],
            ["export", model, "--swap-sides", "-o", b2a, "--faces", str(b.faces)],
        ],
        "convert": [["convert", "-m", a2b, "-i", str(a.clip), "-o", str(folder / "swapped.mp4")]],
    }


def next_commands(settings: DemoSettings) -> list[str]:
    """The lines that go on from the data alone, ready to be typed: train, export A to B, convert."""
    return [shlex.join(["fsdeploy", *lines[0]]) for lines in commands(settings).values()]


def _run_chain(settings: DemoSettings, stages: _Stages, run_command: RunCommand) -> None:
    titles = {
        "train": "Train a small model on the two folders",
        "export": "Export both directions as ONNX",
        "convert": "Swap A's clip with the exported file",
    }
    for name, lines in commands(settings).items():
        with stages.next(name, titles[name]):
            for line in lines:
                stages.say(f"  $ {shlex.join(['fsdeploy', *line])}")
                run_command(line)
    folder = settings.folder
    with stages.next("check", f"Compare with the right answer on {settings.size.held_out} scenes not trained on"):
        pairs = held_out_pairs(settings.seed, settings.size)
        stages.outcome.figures = judge_swapper(folder / "a2b.onnx", pairs)
        write_image(folder / "sheet.png", draw_sheet(folder / "a2b.onnx", folder / "b2a.onnx", pairs))


class _Stages:
    """Numbers the stages, announces them, and keeps their times."""

    def __init__(self, outcome: Outcome, count: int, say: Say) -> None:
        self.outcome = outcome
        self.say = say
        self._count = count

    @contextmanager
    def next(self, name: str, title: str) -> Iterator[None]:
        self.say(f"\n[{len(self.outcome.seconds) + 1}/{self._count}] {title}")
        started = time.monotonic()
        yield
        self.outcome.seconds[name] = time.monotonic() - started


def _draw_data(settings: DemoSettings) -> None:
    size = settings.size
    pictures = 2 * (size.faces + size.clip_frames)
    with Progress("Drawing", total=pictures, unit="pictures", quiet=settings.quiet) as progress:
        write_dataset(settings.folder, settings.seed, size, progress.advance)


def _prepare(folder: Path, force: bool) -> None:
    """Make sure that nothing but an earlier demo is replaced, and that only when asked."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another folder with -o")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / _RECORD).is_file():
        raise InputError(f"{folder} holds other files: choose another folder with -o")
    if not force:
        raise InputError(
            f"{folder} holds an earlier demo: choose another folder with -o, or pass --force to replace it"
        )
    for name in OUTPUTS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _record(outcome: Outcome) -> None:
    write_text(outcome.folder / _RECORD, json.dumps(outcome.as_dict(), indent=2) + "\n")
