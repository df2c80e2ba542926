"""Going on where an earlier run ended: what it must have in common with this one, and what it has to do again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsdeploy.errors import InputError


def frames_to_redo(account: Path, output: Path, facts: Mapping[str, Any]) -> frozenset[str] | None:
    """Keys of the frames that earlier runs failed at; None when they left no report.

    Args:
        account: where this run's report lies; an earlier one is replaced.
        output: the folder written to, in which shards leave a report each.
        facts: what this run's report says of model, settings and writer.

    Raises:
        InputError: a report cannot be read, or what it tells of was made with something else.
    """
    reports = {account, *(output.glob("convert_report*.json") if output.is_dir() else ())}
    failed = [_failed_before(path, facts) for path in sorted(reports) if path.exists()]
    return frozenset().union(*failed) if failed else None


def _failed_before(account: Path, facts: Mapping[str, Any]) -> frozenset[str]:
    try:
        before = json.loads(account.read_text("utf-8"))
        failed = frozenset(str(entry["frame"]) for entry in before["failed"])
        count = int(before["frames"]["failed"])
        earlier, now = _alike(before), _alike(json.loads(json.dumps(dict(facts), default=str)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{account} is no report to go on from ({error}): convert without --resume") from error
    differing = [name for name in now if earlier[name] != now[name]]
    if differing:
        raise InputError(
            f"{account}: the earlier run had another {' and another '.join(differing)}: "
            "convert into another folder, or without --resume"
        )
    if count > len(failed):
        raise InputError(f"{account} names only {len(failed)} of {count} failed frames: convert without --resume")
    return failed


def _alike(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must have in common for their pictures to fit together, by the words that a user knows."""
    output = dict(facts["output_settings"])
    if not output["keep_unchanged"]:
        del output["ranges"]  # frames outside them were not written
    return {
        "input": Path(facts["input"]).name,
        "model": facts["model"]["sha256"],
        "look": facts["settings"],
        "output setting": output,
        "writer": facts["writer"]["name"],
        "mark": facts["marked"],
    }
