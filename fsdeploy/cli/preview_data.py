"""`fsdeploy preview-data`: see what the model is fed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from fsdeploy.cli.json_output import json_text

_PATH = click.Path(path_type=Path)


@click.command("preview-data", short_help="Write a contact sheet of what the model is fed.")
@click.option("-A", "--input-A", "input_a", required=True, type=_PATH, help="Faces of A.")
@click.option("-B", "--input-B", "input_b", required=True, type=_PATH, help="Faces of B.")
@click.option("-o", "--output", required=True, type=_PATH, help="Picture to write.")
@click.option("-s", "--size", default=128, show_default=True, type=click.IntRange(16, 1024), help="Edge of the faces.")
@click.option("-n", "--faces", default=8, show_default=True, type=click.IntRange(1, 64), help="Faces per side.")
@click.option("-m", "--model-dir", type=_PATH, help="Model folder whose options are shown. [default: a new model's]")
@click.option("-t", "--trainer", "plugin", default="original", show_default=True, help="Model plugin.")
@click.option("--config", "config_file", type=_PATH, help="Options in TOML: see 'fsdeploy config init'.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set one option; may be repeated.")
@click.option("-M", "--warp-to-landmarks", is_flag=True, help="Warp towards similar landmarks of the other side.")
@click.option("-P", "--no-flip", is_flag=True, help="Do not mirror faces.")
@click.option("-c", "--no-augment-color", is_flag=True, help="Do not vary colours.")
@click.option("-W", "--no-warp", is_flag=True, help="Do not distort what the model is fed.")
@click.option(
    "--augment-on", default="cpu", type=click.Choice(["cpu", "device"]), help="Which of the two paths to show."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another number, another batch.")
@click.option("--json", "as_json", is_flag=True, help="Print what the folders hold as JSON.")
def preview_data(
    input_a: Path,
    input_b: Path,
    output: Path,
    size: int,
    faces: int,
    model_dir: Path | None,
    plugin: str,
    config_file: Path | None,
    settings: tuple[str, ...],
    warp_to_landmarks: bool,
    no_flip: bool,
    no_augment_color: bool,
    no_warp: bool,
    augment_on: Literal["cpu", "device"],
    seed: int,
    as_json: bool,
) -> None:
    """Write a contact sheet of feeds, targets and masks, and say what is in the folders.

    \b
    Examples:
      fsdeploy preview-data -A faces_a -B faces_b -o sheet.png
      fsdeploy preview-data -A faces_a -B faces_b -o sheet.png --set mask_type=components --set coverage=87.5
      fsdeploy preview-data -A faces_a -B faces_b -o sheet.png -m my_model --no-augment-color --warp-to-landmarks
    """
    from dataclasses import replace

    from fsdeploy.cli.log import show_log
    from fsdeploy.images import write_image
    from fsdeploy.model.registry import model_class
    from fsdeploy.training.config import TrainConfig
    from fsdeploy.training.data.contact_sheet import contact_sheet
    from fsdeploy.training.data.loader import TrainLoader
    from fsdeploy.training.setup import gather_options

    show_log("WARNING")
    options, _ = gather_options(model_class(plugin), model_dir, config_file, settings)
    options = replace(options, loader=replace(options.loader, num_processes=0, cache_budget=0))
    config = TrainConfig(
        folders=(input_a, input_b),
        batch_size=faces,
        augment_color=not no_augment_color,
        flip=not no_flip,
        warp=not no_warp,
        cache_landmarks=warp_to_landmarks,
    )
    loader = TrainLoader(
        size, (size,), "bgr", config, options=options, seed=seed, augment_on=augment_on, minimum_faces=1, quiet=as_json
    )
    feeds, targets, meta = next(loader)
    write_image(output, contact_sheet(feeds, targets, meta, [input_a.name, input_b.name]))
    summary = json_text([scan.as_dict() for scan in loader.scans])
    click.echo(summary if as_json else f"{loader.table}\n{output}")
