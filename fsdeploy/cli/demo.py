"""`fsdeploy demo`: the whole chain on faces that the package draws itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsdeploy.cli.json_output import json_text
from fsdeploy.errors import CheckFailedError

if TYPE_CHECKING:
    from fsdeploy.demo.chain import Outcome


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("fsdeploy_demo"), show_default=True,
    help="Folder for everything that the demo makes.",
)  # fmt: skip
@click.option("--data-only", is_flag=True, help="Write the data set and leave: faces, clips, alignments.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True, help="Other seed, other data.")
@click.option(
    "-i", "--iterations", type=click.IntRange(1), default=1500, show_default=True, help="More trains a sharper swap."
)
@click.option("--force", is_flag=True, help="Replace an earlier demo in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON; progress goes to stderr.")
def demo(output: Path, data_only: bool, seed: int, iterations: int, force: bool, as_json: bool) -> None:
    """Run the whole chain on drawn faces: train, export, convert, and check the swap against the right answer.

    Takes two to four minutes on two CPU cores. Every stage prints the command that you can repeat with your own data.

    \b
    Examples:
      fsdeploy demo
      fsdeploy demo -o drawn --data-only --seed 7
      fsdeploy demo --iterations 5000 --json

    Exit code: 0 the swap passes all three checks, 1 it does not, 2 the folder cannot be used.
    """
    from fsdeploy.demo.chain import DemoSettings, next_commands, run_demo

    settings = DemoSettings(output, seed, iterations, data_only=data_only, force=force)
    # A program reads stdout: what the stages print for people goes to stderr then.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        outcome = run_demo(settings, _run_command, click.echo)
    if as_json:
        click.echo(json_text(outcome.as_dict()))
    else:
        _show(outcome)
        if data_only:
            click.echo("\nNext, what the whole demo does with them:")
            click.echo("\n".join(f"  $ {line}" for line in next_commands(settings)))
    if outcome.figures is not None and not outcome.figures.met:
        raise CheckFailedError(
            f"the swap in {output} misses a figure: train longer with --iterations, look at sheet.png"
        )


def _run_command(arguments: Sequence[str]) -> None:
    from fsdeploy.cli import cli

    cli.main(list(arguments), prog_name="fsdeploy", standalone_mode=False)


def _show(outcome: Outcome) -> None:
    from rich.table import Table

    from fsdeploy.demo.chain import OUTPUTS, rows
    from fsdeploy.terminal import console

    screen = console()
    if outcome.figures is not None:
        table = Table(title=f"A to B, {outcome.figures.faces} scenes that were not trained on")
        for heading in ("figure", "value", "needed", ""):
            table.add_column(heading)
        for row in rows(outcome.figures):
            table.add_row(row.text, row.shown, row.shown_limit, "met" if row.met else "MISSED")
        screen.print()
        screen.print(table)
    files = Table(show_header=False, box=None)
    for name in outcome.as_dict()["files"]:
        files.add_row(f"  {name}", OUTPUTS[name])
    screen.print(f"\nIn {outcome.folder}:")
    screen.print(files)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.seconds.items())
    screen.print(f"time: {sum(outcome.seconds.values()):.0f} s ({spent})")
