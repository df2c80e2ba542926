"""`fsdeploy preview-data`: see what the model is fed."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("preview-data")
@click.option("-A", "--input-a", "input_a", required=True, type=click.Path(path_type=Path), help="Faces of A.")
@click.option("-B", "--input-b", "input_b", required=True, type=click.Path(path_type=Path), help="Faces of B.")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Picture to write."
)
@click.option("-s", "--size", default=128, show_default=True, type=click.IntRange(32, 1024), help="Edge of the faces.")
@click.option("-n", "--faces", default=8, show_default=True, type=click.IntRange(1, 64), help="Faces per side.")
@click.option("--centering", default="face", show_default=True, help="Where the crop is centred: face, head or legacy.")
@click.option("--coverage", default=100.0, show_default=True, help="Percent of the centred face: 62.5 to 100.")
@click.option("--vertical-offset", default=0, show_default=True, help="Shift in percent of the edge: -25 to 25.")
@click.option("--mask-type", default="extended", show_default=True, help="Face mask, such as extended or components.")
@click.option("--no-augment-color", is_flag=True, help="Leave colours alone.")
@click.option("--no-flip", is_flag=True, help="Mirror no faces.")
@click.option("--no-warp", is_flag=True, help="Do not warp the feed.")
@click.option("--warp-to-landmarks", is_flag=True, help="Warp towards similar faces of the other side.")
@click.option(
    "--augment-on", default="cpu", type=click.Choice(["cpu", "device"]), help="Which of the two paths to show."
)
@click.option("--seed", default=0, show_default=True, help="Which batch to show.")
@click.option("--json", "as_json", is_flag=True, help="Print what the folders hold as JSON.")
def preview_data(
    input_a: Path,
    input_b: Path,
    output: Path,
    size: int,
    faces: int,
    centering: str,
    coverage: float,
    vertical_offset: int,
    mask_type: str,
    no_augment_color: bool,
    no_flip: bool,
    no_warp: bool,
    warp_to_landmarks: bool,
    augment_on: str,
    seed: int,
    as_json: bool,
) -> None:
    """Write a contact sheet of feeds, targets and masks, and say what is in the folders.

    \b
    Examples:
      fsdeploy preview-data -A faces_a -B faces_b -o sheet.png
      fsdeploy preview-data -A faces_a -B faces_b -o sheet.png --mask-type components --coverage 87.5
      fsdeploy preview-data -A faces_a -B faces_b -o sheet.png --no-augment-color --warp-to-landmarks
    """
    import json

    from fsdeploy.config.option import from_mapping
    from fsdeploy.config.training import FaceOptions, LoaderOptions, MaskOptions, TrainingOptions
    from fsdeploy.images import write_image
    from fsdeploy.training.config import TrainConfig
    from fsdeploy.training.data.contact_sheet import contact_sheet
    from fsdeploy.training.data.loader import TrainLoader

    face = {"centering": centering, "coverage": coverage, "vertical_offset": vertical_offset}
    options = TrainingOptions(
        face=from_mapping(FaceOptions, face),
        mask=from_mapping(MaskOptions, {"mask_type": mask_type}),
        loader=from_mapping(LoaderOptions, {"num_processes": 0, "cache_budget": 0, "augment_on": augment_on}),
    )
    config = TrainConfig(
        folders=(input_a, input_b),
        batch_size=faces,
        augment_color=not no_augment_color,
        flip=not no_flip,
        warp=not no_warp,
        cache_landmarks=warp_to_landmarks,
    )
    loader = TrainLoader(size, (size,), "bgr", config, options=options, seed=seed, minimum_faces=1, quiet=False)
    feeds, targets, meta = next(loader)
    write_image(output, contact_sheet(feeds, targets, meta, [input_a.name, input_b.name]))
    click.echo(
        json.dumps([scan.as_dict() for scan in loader.scans], indent=2) if as_json else f"{loader.table}\n{output}"
    )
