"""`fsdeploy migrate`: a legacy model becomes a model folder, and shows that it is the same model."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fsdeploy.cli.json_output import json_text
from fsdeploy.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from fsdeploy.model.migrate import Migration, MigrationReport

_SHEETS = (".png", ".jpg", ".jpeg")
_REFERENCE_TOLERANCE = 5e-3
_MOST_NAMES = 8


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Model folder to write [<path>_migrated]; a second one ending in .png names the sheet of --preview.",
)
@click.option("--no-optimizer", is_flag=True, help="Leave optimizer state out; training then starts it new.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing.")
@click.option("--preview", type=click.Path(path_type=Path), help="Folder of faces (or of folders A and B) to draw.")
@click.option("--reference", type=click.Path(path_type=Path), help="NumPy file of known inputs and outputs to compare.")
@click.option("--export", "with_export", is_flag=True, help="Also export both directions, into the model folder.")
@click.option("--format", "kind", type=click.Choice(["onnx", "dfm"]), help="What --export writes [onnx].")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def migrate(
    path: Path, outputs: tuple[Path, ...], no_optimizer: bool, dry_run: bool, preview: Path | None,
    reference: Path | None, with_export: bool, kind: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Turn a legacy model into a model folder that trains on and exports. PATH is only read.

    PATH is an .h5 or .keras file, any of the three files of the oldest models, or the folder that holds them.

    \b
    Examples:
      fsdeploy migrate old_model/original.h5 -o my_model
      fsdeploy migrate old_model --dry-run
      fsdeploy migrate old_model -o my_model --preview faces -o sheet.png
      fsdeploy migrate old_model -o my_model --export --format dfm
    """
    from fsdeploy.model.migrate import check_output, open_migration, report, write_migration
    from fsdeploy.progress import stage

    target, sheet = _targets(path, outputs, preview)
    wanted = with_export or kind is not None
    if wanted and dry_run:
        raise InputError("--export needs the model folder that --dry-run does not write: leave one out")
    if not dry_run:
        check_output(target)  # before minutes are spent on reading
    exported: list[dict[str, Any]] = []
    with stage(f"Migrating {path}", quiet=as_json), open_migration(path, not no_optimizer) as migration:
        differences = {} if reference is None else _compare(migration, reference)
        if preview is not None:
            from fsdeploy.cli.migration_sheet import write_sheet

            write_sheet(migration, preview, sheet)
        if not dry_run:
            write_migration(migration, target)
        found = report(migration, None if dry_run else target, not no_optimizer, differences)
    drawn = str(sheet) if preview is not None else None
    try:
        for swapped in (False, True) if wanted else ():
            exported.append(_export(target, kind or "onnx", swapped, as_json))
    finally:  # the folder is written by now, whatever becomes of the exports
        click.echo(_as_json(found, exported, drawn) if as_json else _as_text(found, exported, drawn))
    # NaN is no small difference, and no maximum either.
    wrong = [value for value in differences.values() if not value <= _REFERENCE_TOLERANCE]
    if wrong:
        raise CheckFailedError(f"the outputs differ by {max(wrong):.2g} from {reference}: this is not the same model")


def _targets(path: Path, outputs: tuple[Path, ...], preview: Path | None) -> tuple[Path, Path]:
    """Model folder and sheet, with default names beside the source."""
    sheets = [output for output in outputs if output.suffix.lower() in _SHEETS]
    folders = [output for output in outputs if output not in sheets]
    if len(sheets) > 1 or len(folders) > 1:
        raise InputError("-o was given too often: name one model folder, and with --preview one picture")
    if sheets and preview is None:
        raise InputError(f"-o {sheets[0]} is a picture: that needs --preview with a folder of faces")
    target = folders[0] if folders else _beside(path)
    if sheets:
        return target, sheets[0]
    whole = target.absolute()  # "." has no name of its own
    return target, whole.parent / f"{whole.name or 'model'}_preview.png"


def _beside(path: Path) -> Path:
    """<path>_migrated, without the suffix of a file."""
    whole = path.resolve()
    name = whole.name if whole.is_dir() else whole.name.partition(".")[0]
    if not name:
        raise InputError(f"{path} has no name to call a model folder after: name the folder with -o")
    return path.with_name(f"{name}_migrated") if path.name not in ("", "..") else whole.with_name(f"{name}_migrated")


def _compare(migration: Migration, reference: Path) -> dict[str, float]:
    from fsdeploy.model.reference import compare_with_reference

    return compare_with_reference(migration.network(), reference)


def _export(folder: Path, kind: str, swapped: bool, quiet: bool) -> dict[str, Any]:
    from fsdeploy.export import ExportSettings, export_model
    from fsdeploy.progress import stage

    direction = "b2a" if swapped else "a2b"
    target = folder / f"{folder.resolve().name}_{direction}.{kind}"
    with stage(f"Exporting {target}", quiet=quiet):
        done = export_model(folder, target, swapped, settings=ExportSettings(format=kind))  # type: ignore[arg-type]
    return {"path": str(done.path), "sha256": done.sha256, "max_difference": done.max_difference}


def _as_json(found: MigrationReport, exported: list[dict[str, Any]], sheet: str | None) -> str:
    from fsdeploy.model.migrate import to_json

    return json_text({**to_json(found), "exported": exported, "preview": sheet})


def _legacy_lines(names: Sequence[str]) -> list[str]:
    """What has no meaning here. Some architectures have dozens of options, which would bury the report."""
    if not names:
        return []
    shown = ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)} options (--json names them)"
    words = f"legacy     no meaning here, kept under 'legacy' in the state file: {shown}"
    return textwrap.wrap(words, 118, subsequent_indent=" " * 11)


def _as_text(found: MigrationReport, exported: list[dict[str, Any]], sheet: str | None) -> str:
    """The report for people: the parts as a table, then one fact per line."""
    lines = [f"{'part':<20} {'tensors':>7} {'parameters':>12} {'least':>9} {'largest':>9} {'mean':>10}"]
    lines += [
        f"{part.name[:20]:<20} {part.tensors:>7} {part.parameters:>12,} {part.minimum:>9.4f} {part.maximum:>9.4f} "
        f"{part.mean:>10.2e}"
        for part in found.parts
    ]
    how = (
        f"exactly the plugin '{found.plugin}' (difference {found.native_difference:.1g})"
        if found.native_difference is not None
        else f"kept as its own graph (plugin '{found.plugin}')"
    )
    sizes = ", ".join(f"{height} x {width} {'face' if c == 3 else 'mask'}" for c, height, width in found.outputs)
    lines += [
        f"source     {found.source}",
        f"format     {found.format}",
        f"model      {found.model_name}, {how}",
        f"faces      {found.input_size} x {found.input_size} in, {sizes} out",
        f"trained    {found.iterations} iterations",
        f"optimizer  {found.optimizer}",
    ]
    lines += [f"reference  {key} differs by {value:.2g}" for key, value in found.reference_difference.items()]
    lines += _legacy_lines(found.kept_under_legacy)
    lines += [f"note       {warning}" for warning in found.warnings]
    lines += [f"preview    {sheet}"] if sheet else []
    lines.append(f"folder     {found.output or 'not written (dry run)'}")
    lines += [f"exported   {entry['path']} (difference {entry['max_difference']:.2g})" for entry in exported]
    return "\n".join(lines)
