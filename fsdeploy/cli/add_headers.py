"""`fsdeploy add-headers`: make faces from before 2021 usable."""

from __future__ import annotations

from pathlib import Path

import click

from fsdeploy.cli.json_output import json_text


@click.command("add-headers")
@click.argument("faces", type=click.Path(path_type=Path))
@click.option(
    "-a", "--alignments", type=click.Path(path_type=Path), required=True, help="The .fsa they were extracted with."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the new PNGs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the files that match nothing, by name.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def add_headers(faces: Path, alignments: Path, output: Path, as_json: bool, quiet: bool) -> None:
    """Write the faces of FACES that have no header as PNGs with one, found by the hash of their pixels.

    Faces that were extracted before 2021 are known to their alignments file by a hash alone. The originals stay as
    they are. A JPEG may decode a little differently today, and is then not found.

    \b
    Examples:
      fsdeploy add-headers old_faces -a alignments.fsa -o faces
    """
    from fsdeploy.errors import InputError
    from fsdeploy.faces.alignments import read_alignments
    from fsdeploy.faces.legacy import add_headers as write_with_headers
    from fsdeploy.images import IMAGE_EXTENSIONS
    from fsdeploy.progress import Progress

    if not faces.is_dir():
        raise InputError(f"there is no folder {faces}: give a folder of extracted faces")
    files = sorted(path for path in faces.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS)
    known = read_alignments(alignments)
    with Progress("Finding faces", len(files), "face", quiet or as_json) as progress:
        strangers = write_with_headers(files, known, output, progress.advance)
    found = len(files) - len(strangers)
    if as_json:
        click.echo(json_text({"found": found, "output": str(output), "not_found": [path.name for path in strangers]}))
    else:
        click.echo(f"{found} of {len(files)} faces found and written to {output}")
        if strangers:
            names = ", ".join(path.name for path in strangers[:5])
            click.echo(f"not in {alignments}: {names}{' and more: --json lists all' if len(strangers) > 5 else ''}")
    if not found:
        raise InputError(f"{alignments} knows none of the images in {faces}: give the file they were extracted with")
