"""`fsdeploy convert`: frames in, swapped frames out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsdeploy.cli.json_output import json_text
from fsdeploy.errors import CheckFailedError

_FILE = click.Path(path_type=Path)


def _list_plugins(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        from fsdeploy.convert.listing import plugin_lines

        click.echo("\n".join(plugin_lines()))
        context.exit()


@click.command(context_settings={"show_default": True})
@click.option(
    "-m", "--model", required=True, type=_FILE, help="Exported .onnx, or a model folder (exported on the fly)."
)
@click.option("-i", "--input", "source", required=True, type=_FILE, help="Video file, folder of images, or an image.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=_FILE,
    help="Video (.mp4 .mkv ...), .gif, folder, or image.",
)
@click.option("-a", "--alignments", type=_FILE, help="Alignments file (.fsa); default: the one beside the input.")
@click.option("-f", "--faces", type=_FILE, help="Folder of extracted faces; with --alignments: keep only these faces.")
@click.option("-l", "--landmarks", type=_FILE, help="Landmarks as .json, .jsonl or .csv.")
@click.option("-s", "--swap-sides", is_flag=True, help="Model folder: swap B to A.")
@click.option("--mask", default="extended", help="Mask plugin, or the name of a stored mask.")
@click.option("--edge", default=None, help="Mask edge: feather (default) or blend.")
@click.option("-c", "--color", default=None, help="Colour plugin, or none; default mkl.")
@click.option("--sharpen", default="none", help="box, gaussian, unsharp-mask or none.")
@click.option("--set", "assignments", multiple=True, metavar="KIND.PLUGIN.OPTION=VALUE", help="Option of a plugin.")
@click.option("--config", type=_FILE, help="TOML file with tables [convert.<kind>.<plugin>].")
@click.option("--scale", default=100.0, type=click.FloatRange(5, 400), help="Size of the output in percent.")
@click.option("--face-scale", default=0.0, type=click.FloatRange(-10, 10), help="Enlarge the pasted face by percent.")
@click.option("-r", "--range", "ranges", multiple=True, metavar="A-B", help="Frame numbers to convert; repeatable.")
@click.option("-k", "--keep-unchanged", is_flag=True, help="Write frames outside the ranges as they are.")
@click.option("-w", "--writer", default=None, help="Writer plugin; default: by the output's name.")
@click.option("--transparent", is_flag=True, help="Images: write the mask of the faces as alpha.")
@click.option("--fps", type=click.FloatRange(1, 1000), help="Image input to video: frames per second [default: 25].")
@click.option("--reference-video", type=_FILE, help="Image input to video: take rate and sound from this video.")
@click.option("--no-audio", is_flag=True, help="Leave out sound and subtitles.")
@click.option("-p", "--provider", default="auto", help="Execution provider: auto, cuda, cpu, ...")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the model on the CPU.")
@click.option("-j", "--jobs", type=click.IntRange(1, 64), help="Threads that blend; default: by the machine.")
@click.option(
    "-b", "--batch", type=click.IntRange(1, 64), help="Faces per run of the model [default: 2 on a CPU, 8 on a GPU]."
)
@click.option("--compat", type=click.Choice(["faceswap"]), help="Reproduce the original program's look.")
@click.option("--on-error", default="keep", type=click.Choice(["keep", "stop"]), help="Failed frame: go on, or stop.")
@click.option("--resume", is_flag=True, help="Images: keep what an earlier run has written.")
@click.option("--shard", metavar="I/N", help="Convert the I-th of N parts only; put together with 'fsdeploy join'.")
@click.option("--report", type=_FILE, help="Where the account is written; default: beside or in the output.")
@click.option("--no-mark", is_flag=True, help="Do not mark the output as made with a trained model.")
@click.option(
    "--sign", nargs=2, type=_FILE, metavar="CERT KEY", help="Sign with content credentials (C2PA), PEM files."
)
@click.option("--force", is_flag=True, help="Replace what is there: a file, images of the same names.")
@click.option("--list-plugins", is_flag=True, is_eager=True, expose_value=False, callback=_list_plugins,
              help="List all plugins and their options.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def convert(**chosen: Any) -> None:
    """Swap faces in a video or a folder of images.

    \b
    Examples:
      fsdeploy convert -m a2b.onnx -i clip.mp4 -o swapped.mp4
      fsdeploy convert -m a2b.onnx -i clip.mp4 -o swapped.mp4 --faces faces_a
      fsdeploy convert -m my_model -i frames -o out_frames -l landmarks.csv --mask predicted
      fsdeploy convert -m a2b.onnx -i film.mkv -o part3.mp4 --shard 3/8

    Exit code: 0 all frames were converted, 1 some failed (they are named), 2 the input cannot be used.
    """
    from fsdeploy.convert.command import run
    from fsdeploy.convert.pipeline import INTERRUPTED

    report, lines = run(chosen)
    if chosen["as_json"]:
        click.echo(json_text(report.as_dict()))
    for line in lines:
        click.echo(line, err=chosen["as_json"])
    if report.stopped == INTERRUPTED:
        raise click.Abort
    if not report.complete:
        count = len(report.failed)
        problem = f"{count} frame{'s' if count > 1 else ''} failed" if count else report.stopped
        problem = problem or ("the input is damaged" if report.damage else "frames are missing")
        raise CheckFailedError(f"{problem}: what could be converted was written to {chosen['output']}")
