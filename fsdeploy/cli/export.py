"""`fsdeploy export`: one direction of a model folder as a file that other programs run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fsdeploy.cli.json_output import json_text
from fsdeploy.errors import InputError

if TYPE_CHECKING:
    from fsdeploy.export import ExportReport

_PLACES = {
    "onnx": ("fsdeploy convert -m {path} ...", "onnxruntime in any language: see docs/embedding.md"),
    "frame": ("one call of onnxruntime per face, in any language: see docs/embedding.md",),
    "dfm": (
        "DeepFaceLive: <userdata>/dfm_models/",
        "FaceFusion: .assets/models/custom/ (only this file; then --deep-swapper-model custom/{stem})",
        "VisoMaster: model_assets/dfm_models/",
    ),
    "triton": ("tritonserver --model-repository={path}",),
}

_KINDS = {"noise": "noise inputs"}


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write [<model>_a2b.onnx].")
@click.option("--swap-sides", is_flag=True, help="Export B to A: faces of B get A's face.")
@click.option("--format", "kind", type=click.Choice(["onnx", "dfm", "triton"]), default="onnx", show_default=True)
@click.option("--opset", type=int, default=17, show_default=True, help="ONNX operator set; 17 runs everywhere.")
@click.option("--batch", default=None, metavar="dynamic|N", help="Faces per run: free, or fixed [dynamic].")
@click.option("--precision", type=click.Choice(["fp32", "fp16-storage", "fp16", "int8"]), help="Of weights and sums.")
@click.option("--io", type=click.Choice(["float", "uint8"]), help="onnx: values 0..1, or a frame's own pixels.")
@click.option("--graph", type=click.Choice(["face", "frame", "frame-matrix"]), help="onnx: a crop's or a frame's swap.")
@click.option("--size", type=int, help="dfm: edge of the app's crop in pixels [224].")
@click.option(
    "--crop",
    type=click.Choice(["none", "facefusion", "deepfacelive", "dfl-whole-face"]),
    help="dfm: the app whose crop the file expects [facefusion].",
)
@click.option("--mask", type=click.Choice(["auto", "learned", "hull", "ellipse", "ones"]), help="dfm and frame.")
@click.option("--faces", type=click.Path(path_type=Path), help="Extracted faces to compare and calibrate on.")
@click.option("--atol", type=float, default=1e-4, show_default=True, help="Largest difference from the model, fp32.")
@click.option("--floor", type=float, help="Smallest PSNR in dB against fp32, other precisions.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    model_dir: Path, output: Path | None, swap_sides: bool, kind: Any, batch: str | None, as_json: bool, force: bool,
    **wishes: Any,
) -> None:  # fmt: skip
    """Export one direction of MODEL_DIR, compare it with the model, and write it only when both agree.

    \b
    Examples:
      fsdeploy export my_model -o a2b.onnx
      fsdeploy export my_model --swap-sides --faces faces_b
      fsdeploy export my_model --format dfm --crop deepfacelive -o me.dfm
      fsdeploy export my_model --graph frame -o whole_swap.onnx
    """
    from fsdeploy.export import ExportSettings, export_model
    from fsdeploy.model.folder import model_name_in
    from fsdeploy.progress import stage

    settings = ExportSettings(format=kind, batch=_batch(batch), **wishes)
    settings.check()
    model_name_in(model_dir)  # before anything is announced
    target = output or default_output(model_dir, kind, swap_sides)
    _check_name(target, kind)
    with stage(f"Exporting {model_dir} to {target}", quiet=as_json):
        report = export_model(model_dir, target, swap_sides, settings=settings, force=force)
    use = "frame" if settings.whole_frame else kind
    click.echo(json_text(report_values(report)) if as_json else report_text(report, use))


def default_output(model_dir: Path, kind: str, swap_sides: bool) -> Path:
    """<model folder>_a2b.onnx (or .dfm, or a folder) in the current folder."""
    direction = "b2a" if swap_sides else "a2b"
    suffix = {"onnx": ".onnx", "dfm": ".dfm", "triton": "_triton"}[kind]
    return Path(f"{model_dir.resolve().name}_{direction}{suffix}")


def _check_name(target: Path, kind: str) -> None:
    """Refuse a name by which no program would know the file. Folders are refused elsewhere, for what they are."""
    suffixes = {"onnx": (".onnx",), "dfm": (".dfm", ".onnx")}.get(kind, ())
    if not suffixes or target.suffix in suffixes or target.is_dir():
        return
    if kind == "onnx" and target.suffix == ".dfm":
        raise InputError(f"{target} would not be what its name says: add --format dfm, or name it {target.stem}.onnx")
    raise InputError(f"{target} has no extension of an exported file: name it {target}{suffixes[0]}")


def _batch(text: str | None) -> int | None:
    if text is None or text == "dynamic":
        return None
    if not text.isdigit():
        raise InputError(f"--batch must be 'dynamic' or a number, got '{text}'")
    return int(text)


def report_values(report: ExportReport) -> dict[str, Any]:
    """The report as JSON values."""
    values = dataclasses.asdict(report)
    values["path"], values["manifest"] = str(report.path), str(report.manifest)
    values["max_difference"] = report.max_difference
    return values


def report_text(report: ExportReport, use: str) -> str:
    """The report for people: parity per output, then the lines that matter last.

    Args:
        use: "onnx", "frame", "dfm" or "triton": the kind of file, which says where it can be used.
    """
    lines = [
        f"compared {entry.output} on {entry.samples} {_KINDS.get(entry.inputs, entry.inputs)}: "
        f"max difference {entry.max_difference:.2g}, mean {entry.mean_difference:.2g}, {entry.psnr_db:.1f} dB"
        for entry in report.parity
    ]
    lines += [
        f"file     {report.path}",
        f"manifest {report.manifest}",
        f"size     {report.megabytes:.1f} MB",
        f"opset    {report.opset}, IR {report.ir_version}",
        f"largest difference from the model {report.max_difference:.2g}",
        f"sha256   {report.sha256}",
    ]
    places = _PLACES[use]
    lines += [f"use with {place.format(path=report.path, stem=report.path.stem)}" for place in places]
    return "\n".join(lines)
