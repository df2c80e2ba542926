"""`fsdeploy train`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click


class PluginOption(click.Option):
    """An option whose help names the model plugins, looked up when the help is shown and without importing them."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from fsdeploy.model.registry import model_names

        record = super().get_help_record(ctx)
        return record and (record[0], record[1].format(names=", ".join(model_names())))


_FOLDER = click.Path(path_type=Path, file_okay=True)


@click.command("train", short_help="Train a swap model on two folders of faces.")
@click.option("-A", "--input-A", "input_a", type=_FOLDER, help="Faces of A, who is replaced.")
@click.option("-B", "--input-B", "input_b", type=_FOLDER, help="Faces of B, who is put on.")
@click.option("-m", "--model-dir", type=_FOLDER, required=True, help="The model's folder, new or existing.")
@click.option(
    "-t", "--trainer", "plugin", cls=PluginOption, metavar="PLUGIN",
    help="Model plugin: {names}. [default: that of the model's folder, else original]",
)  # fmt: skip
@click.option("-b", "--batch-size", type=click.IntRange(1, 1024), default=16, show_default=True, help="Faces per side.")
@click.option("-i", "--iterations", type=click.IntRange(1), help="Iterations of this run. [default: until stopped]")
@click.option("-a", "--warmup", type=click.IntRange(0), default=0, help="Updates over which the learning rate rises.")
@click.option("-s", "--save-interval", type=click.IntRange(1), default=250, show_default=True, help="Between saves.")
@click.option(
    "-I", "--snapshot-interval", type=click.IntRange(0), default=25000, show_default=True,
    help="Total iterations between full copies; 0 is off.",
)  # fmt: skip
@click.option("-r", "--use-lr-finder", is_flag=True, help="Find the learning rate first (new models).")
@click.option("-C", "--config", "config_file", type=_FOLDER, help="Options in TOML: see 'fsdeploy config init'.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set one option; may be repeated.")
@click.option("-l", "--load-weights", type=_FOLDER, help="Model to take a new model's encoder from.")
@click.option("-f", "--freeze-weights", is_flag=True, help="Do not train the encoder in this run.")
@click.option("--loss-weights", type=_FOLDER, help="Folder of the pretrained weights that lpips losses need.")
@click.option("-p", "--preview", is_flag=True, help="Show previews in a window.")
@click.option("-w", "--write-image", is_flag=True, help="Write previews to training_preview.png in the model folder.")
@click.option("-x", "--timelapse-input-A", "timelapse_a", type=_FOLDER, help="Faces of A for a time-lapse.")
@click.option("-y", "--timelapse-input-B", "timelapse_b", type=_FOLDER, help="Faces of B for a time-lapse.")
@click.option("-z", "--timelapse-output", type=_FOLDER, help="Folder of its pictures. [default: in the model folder]")
@click.option("-M", "--warp-to-landmarks", is_flag=True, help="Warp towards similar landmarks of the other side.")
@click.option("-P", "--no-flip", is_flag=True, help="Do not mirror faces.")
@click.option("-c", "--no-augment-color", is_flag=True, help="Do not vary colours.")
@click.option("-W", "--no-warp", is_flag=True, help="Do not distort what the model is fed.")
@click.option("--augment-on", type=click.Choice(["auto", "cpu", "device"]), help="Where faces are varied.")
@click.option("-d", "--distributed", is_flag=True, help="Use all GPUs of this machine from one process.")
@click.option("--nproc", type=click.IntRange(1), default=1, help="Train with so many processes, one per GPU.")
@click.option("--compile", "compile_network", is_flag=True, help="Let torch.compile fuse operations.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Fix all random numbers.")
@click.option("-n", "--no-logs", is_flag=True, help="Write no TensorBoard logs.")
@click.option("-u", "--summary", is_flag=True, help="Print the model's parts and leave.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors and warnings only.")
@click.option("-F", "--logfile", type=_FOLDER, help="Write messages to a file as well.")
@click.option("-L", "--loglevel", type=click.Choice(["DEBUG", "INFO", "WARNING"], case_sensitive=False), default="INFO")
def train(**arguments: Any) -> None:
    """Train a swap model on two folders of extracted faces, or go on with an existing model.

    Ctrl-C once saves and stops; twice stops at once. On a terminal, Enter saves and stops, S saves. 'original' wants a
    GPU; 'compact' is small enough to learn on a CPU.

    \b
    Examples:
      fsdeploy train -A faces_a -B faces_b -m my_model
      fsdeploy train -A faces_a -B faces_b -m my_model -i 5000 -b 8 --set mixed_precision=true
      fsdeploy train -A faces_a -B faces_b -m my_model -t lightweight --config options.toml
      fsdeploy train -m my_model -t lightweight --summary
    """
    from fsdeploy.cli.log import show_log
    from fsdeploy.training import processes
    from fsdeploy.training.command import TrainArguments, print_summary, run_command

    level = "WARNING" if arguments["quiet"] or not processes.is_first() else arguments["loglevel"].upper()
    del arguments["loglevel"]
    show_log(level, arguments.pop("logfile"))
    chosen = TrainArguments(**arguments)
    if chosen.summary:
        print_summary(chosen)
        return
    if processes.is_worker():
        run_command(chosen if processes.is_first() else dataclasses.replace(chosen, quiet=True))
    elif chosen.nproc > 1:
        sys.exit(processes.launch(chosen.nproc, [sys.executable, "-m", "fsdeploy", *sys.argv[1:]]))
    else:
        run_command(chosen)
