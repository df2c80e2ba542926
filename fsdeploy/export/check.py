"""Conformance: does a file keep the rules of the apps that will run it? The rules are those of docs/formats/dfm.md."""

from __future__ import annotations

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


def check_file(path: Path, apps: Sequence[App] = (), faces: Path | None = None) -> list[Finding]:
    """Apply every rule to a file.

    Args:
        apps: whose rules; empty: those of the dfm apps for a `.dfm`-like file, else of plain onnxruntime.
        faces: extracted faces to run it on; drawn ones without.

    Returns:
        One finding per rule, in order.

    Raises:
        InputError: the file is missing, truncated or no ONNX file. HostileFileError: it reaches outside its folder.
    """
    subject = _open(path, tuple(apps), faces)
    return [rule.apply(subject) for rule in RULES if subject.is_dfm or not rule.dfm_only]


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
