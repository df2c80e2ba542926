"""`fsdeploy join`: the parts of a sharded conversion become one."""

from __future__ import annotations

from pathlib import Path

import click

from fsdeploy.cli.json_output import json_text
from fsdeploy.errors import CheckFailedError, InputError

_FILE = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("parts", nargs=-1, required=True, type=_FILE)
@click.option("-o", "--output", required=True, type=_FILE, help="Video, or folder for image parts.")
@click.option("--source", type=_FILE, help="Video whose sound is copied; default: the converted input.")
@click.option("--no-audio", is_flag=True, help="Leave out sound and subtitles.")
@click.option(
    "--sign", nargs=2, type=_FILE, metavar="CERT KEY", help="Sign with content credentials (C2PA), PEM files."
)
@click.option("--force", is_flag=True, help="Replace existing output files.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def join(
    parts: tuple[Path, ...],
    output: Path,
    source: Path | None,
    no_audio: bool,
    sign: tuple[Path, Path] | None,
    force: bool,
    as_json: bool,
) -> None:
    """Join the parts of a conversion that was spread with --shard, without encoding anything again.

    \b
    Examples:
      fsdeploy join part1.mp4 part2.mp4 part3.mp4 -o film.mp4
      fsdeploy join frames_part1 frames_part2 -o frames

    Exit code: 0 complete, 1 some frames had failed, 2 a part is missing or does not fit.
    """
    from fsdeploy.convert.join import join as join_parts

    if output.is_file() and not force:
        raise InputError(f"{output} exists already: choose another name or pass --force to replace it")
    signing = None
    if sign:
        from fsdeploy.convert.credentials import SigningKey

        signing = SigningKey.load(*sign)
    report = join_parts(parts, output, source=source, audio=not no_audio, signing=signing, overwrite=force)
    if as_json:
        click.echo(json_text(report))
    else:
        frames = report["frames"]
        from fsdeploy.convert.provenance import NO_MARK_NOTICE

        click.echo(f"{report['parts']} parts, {frames['written']} frames, {frames['failed']} failed: wrote {output}")
        if not report["marked"]:
            click.echo(NO_MARK_NOTICE)
    if not report["complete"]:
        raise CheckFailedError("frames failed or were damaged when the parts were converted: the report names them")
