"""`fsdeploy inspect`: what is this file or folder?"""

from __future__ import annotations

from pathlib import Path

import click

from fsdeploy.cli.describe.kinds import describe
from fsdeploy.cli.json_output import json_text


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON: everything, also what the table leaves out.")
def inspect(path: Path, as_json: bool) -> None:
    """Say what PATH is: a model folder, an exported file, faces, alignments, landmarks, a picture, a video, a report.

    Of pictures and videos it says whether they are marked as made with a trained model.

    \b
    Examples:
      fsdeploy inspect my_model
      fsdeploy inspect a2b.onnx
      fsdeploy inspect swapped.mp4
      fsdeploy inspect faces_a/0001_0.png --json
    """
    facts = describe(path)
    if as_json:
        click.echo(json_text(facts))
        return
    from fsdeploy.cli.describe.tables import print_tables

    print_tables(facts)
