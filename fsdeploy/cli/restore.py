"""`fsdeploy restore`: go back to a backup or a snapshot of a model."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsdeploy.cli.json_output import json_text
from fsdeploy.errors import InputError

if TYPE_CHECKING:
    from fsdeploy.model.backup import RestorePoint


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--backup", is_flag=True, help="Go back to the set with the lowest average loss (the default).")
@click.option("--snapshot", type=int, metavar="N", help="Go back to the snapshot of iteration N.")
@click.option("--list", "list_only", is_flag=True, help="Only list what the model can go back to.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def restore(model_dir: Path, backup: bool, snapshot: int | None, list_only: bool, as_json: bool) -> None:
    """Bring back a backup or a snapshot of the model in MODEL_DIR. The present files are archived first.

    Nothing is written when the model is in that very state.

    \b
    Examples:
      fsdeploy restore my_model --list
      fsdeploy restore my_model
      fsdeploy restore my_model --snapshot 25000
    """
    from fsdeploy.model.backup import Backup
    from fsdeploy.model.folder import model_name_in
    from fsdeploy.model.lock import FolderLock

    if backup and snapshot is not None:
        raise InputError("--backup and --snapshot exclude each other: choose one")
    name = model_name_in(model_dir)
    backups = Backup(model_dir, name)
    if list_only:
        _print_points(backups.restore_points(), as_json)
        return
    with FolderLock(model_dir, name):
        archive = backups.restore(snapshot)
    source = "backup" if snapshot is None else f"snapshot {snapshot}"
    if as_json:
        click.echo(json_text({"restored": source, "archive": None if archive is None else str(archive)}))
    elif archive is None:
        click.echo(
            f"the {source} of '{name}' in {model_dir} is its present state: nothing to restore, nothing was changed"
        )
    else:
        click.echo(f"{source} of '{name}' restored in {model_dir}; the files before it are in {archive}")


def _print_points(points: list[RestorePoint], as_json: bool) -> None:
    if as_json:
        click.echo(json_text([dataclasses.asdict(point) for point in points]))
        return
    from fsdeploy.terminal import console, folding_table

    table = folding_table("kind", "iteration", "saved", "optimizer", "state")
    for point in points:
        saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(point.saved)) if point.saved else ""
        table.add_row(
            point.kind, str(point.iterations), saved, "yes" if point.has_optimizer else "no", point.problem or "good"
        )
    console().print(table)
