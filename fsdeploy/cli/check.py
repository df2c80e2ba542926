"""`fsdeploy check`: does an exported file keep the rules of the apps that will run it?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fsdeploy.cli.json_output import json_text

if TYPE_CHECKING:
    from fsdeploy.export.check import Verdict


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--for", "apps", multiple=True,
    type=click.Choice(["facefusion", "deepfacelive", "visomaster", "onnxruntime"]),
    help="App whose rules to apply; may be given several times [by the file].",
)  # fmt: skip
@click.option("--faces", type=click.Path(path_type=Path), help="Extracted faces to run the file on [drawn ones].")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(file: Path, apps: tuple[Any, ...], faces: Path | None, as_json: bool) -> int:
    """Check FILE against the rules of the apps that run it. Exit code 0: passed, 1: an app would break, 2: unreadable.

    \b
    Examples:
      fsdeploy check a2b.onnx
      fsdeploy check me.dfm --for facefusion --for deepfacelive
    """
    from fsdeploy.export.check import check_for_apps, failed

    checked = check_for_apps(file, apps, faces)
    findings = checked.findings
    if as_json:
        click.echo(json_text([dataclasses.asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            detail = f": {finding.detail}" if finding.detail else ""
            click.echo(f"{finding.status:4}  {finding.rule:>3}  {finding.title}{detail}")
        counts = {status: sum(f.status == status for f in findings) for status in ("pass", "warn", "fail", "skip")}
        click.echo(f"{file}: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count))
        for verdict in checked.verdicts:
            click.echo(_conclusion(verdict))
    return 1 if failed(findings) else 0


def _conclusion(verdict: Verdict) -> str:
    if not verdict.broken:
        return f"{verdict.app}: will run it"
    advice = f": {verdict.advice}" if verdict.advice else ""
    return f"{verdict.app}: will not run it ({', '.join(verdict.broken)} fail){advice}"
