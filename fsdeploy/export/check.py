"""Conformance: does a file keep the rules of the apps that will run it? The rules are those of docs/formats/dfm.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx

from fsdeploy.errors import InputError
from fsdeploy.export.pictures import read_pictures
from fsdeploy.export.rules import RULES
from fsdeploy.export.subject import DFM_APPS, App, Finding, Subject
from fsdeploy.runtime.metadata import SwapMetadata
from fsdeploy.runtime.onnxfile import scan
from fsdeploy.runtime.providers import open_session

_DFM_BORDERS = {"C4", "C5", "C7", "C8"}
"""The rules that say what a dfm file's inputs and outputs are; another format breaks them."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Will one app run the file?"""

    app: App
    broken: tuple[str, ...]
    """The rules that fail for this app; none when it will run the file."""
    advice: str = ""
    """What to do; empty where the failing rules say it."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """All that was found out about a file."""

    findings: list[Finding]
    verdicts: list[Verdict]
    """One per app, in the order asked for."""


def check_file(path: Path, apps: Sequence[App] = (), faces: Path | None = None) -> list[Finding]:
    """Apply every rule to a file: the findings of `check_for_apps`."""
    return check_for_apps(path, apps, faces).findings


def check_for_apps(path: Path, apps: Sequence[App] = (), faces: Path | None = None) -> Checked:
    """Apply every rule to a file, and conclude for each app.

    Args:
        apps: whose rules; empty: those of the dfm apps for a `.dfm`-like file, else of plain onnxruntime.
        faces: extracted faces to run it on; drawn ones without.

    Returns:
        One finding per rule, in order, and a verdict per app.

    Raises:
        InputError: the file is missing, truncated or no ONNX file. HostileFileError: it reaches outside its folder.
    """
    subject = _open(path, tuple(apps), faces)
    findings = _apply(subject)
    return Checked(findings, [_verdict(app, subject, findings) for app in dict.fromkeys(subject.apps)])


def _apply(subject: Subject) -> list[Finding]:
    findings: list[Finding] = []
    for rule in RULES:
        if subject.is_dfm or not rule.dfm_only:
            findings.append(rule.apply(subject, _broken(findings)))
    return findings


def _broken(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(finding.rule for finding in findings if finding.status == "fail")


def _verdict(app: App, subject: Subject, findings: Sequence[Finding]) -> Verdict:
    alone = dataclasses.replace(subject, apps=(app,))
    if alone.is_dfm != subject.is_dfm:  # onnxruntime asked for beside a dfm app: other rules
        broken = _broken(_apply(alone))
    else:  # of the rules only C1 asks which app it is
        broken = _broken([RULES[0].apply(alone), *findings[1:]])
    ours = subject.metadata is not None and subject.metadata.extra.get("format") != "dfm"
    other_format = ours and alone.is_dfm and bool(_DFM_BORDERS & set(broken))
    return Verdict(app, broken, "export the model with --format dfm" if other_format else "")


def failed(findings: Iterable[Finding]) -> bool:
    """True when a consumer would break."""
    return any(finding.status == "fail" for finding in findings)


def _open(path: Path, apps: tuple[App, ...], faces: Path | None) -> Subject:
    outline = scan(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise InputError(f"{path} is not a whole ONNX file: it is truncated or of another format") from error
    metadata = None
    if any(name.startswith("fsdeploy.") for name in outline.metadata):
        metadata = SwapMetadata.from_props(outline.metadata, str(path))
    dfm_like = path.suffix == ".dfm" or any("in_face" in entry.name for entry in model.graph.input)
    chosen: tuple[App, ...] = apps or (DFM_APPS if dfm_like else ("onnxruntime",))
    session, problem = None, ""
    try:
        session = open_session(str(path), str(path), "cpu")
    except InputError as error:
        problem = str(error)
    subject = Subject(path, chosen, outline, model, metadata, session, problem, None)
    if faces is not None:
        if metadata is None:
            raise InputError(f"{path} has no fsdeploy metadata that says how faces are cut for it: leave --faces out")
        subject.faces = read_pictures(faces, metadata, subject.edge)
    return subject
