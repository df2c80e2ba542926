"""The account of a conversion: what became of every frame, how long each stage took, with what it was made."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsdeploy.convert.frame import Status, Timing
from fsdeploy.files import write_text

REPORT_VERSION = 1
UNFINISHED = "the conversion did not run to its end"
"""Why a report is not complete whose conversion was killed."""
_MAX_NAMED = 10_000


@dataclass
class Report:
    """Filled in while frames pass; safe to use from several threads."""

    read: int = 0
    written: int = 0
    faces: int = 0
    status: Counter[Status] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(frame key, reason) of every failed frame, in order."""
    outdated: set[str] = field(default_factory=set)
    """Keys of frames whose image in the output is an earlier run's and to be replaced: of another look or other faces,
    or of a frame that had failed. They leave the set as they are written."""
    notes: Counter[str] = field(default_factory=Counter)
    """What the user should know, with how often it happened."""
    damage: list[str] = field(default_factory=list)
    """Parts of the source, and face files, that could not be read at all."""
    first_frame: int | None = None
    """Index of the first written frame."""
    first_timing: Timing | None = None
    """When the source shows it."""
    left_out: int = 0
    """Frames outside the ranges that were not to be written."""
    stopped: str = ""
    """Why the conversion ended early, or empty."""
    finished: bool = False
    """Set last of all, when the source has ended and the output is closed."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Input, model, provider, settings, encoder, versions."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._stages[stage] += time.perf_counter() - started

    @property
    def ms_per_frame(self) -> dict[str, float]:
        """Stage -> milliseconds of work per frame read."""
        with self._lock:
            stages = sorted(self._stages.items())
        return {name: round(1000.0 * spent / max(1, self.read), 3) for name, spent in stages}

    @property
    def complete(self) -> bool:
        """True only when every frame in range was written, none failed, nothing was damaged or cut short."""
        flawless = not (self.failed or self.damage or self.stopped)
        return self.finished and flawless and self.read == self.written + self.left_out

    def as_dict(self) -> dict[str, Any]:
        """The report as it is written."""
        return {
            "report_version": REPORT_VERSION,
            "complete": self.complete,
            "frames": {
                "read": self.read,
                "written": self.written,
                **{status.value: self.status[status] for status in Status},
            },
            "faces": self.faces,
            "failed": [{"frame": key, "reason": reason} for key, reason in self.failed[:_MAX_NAMED]],
            "outdated": sorted(self.outdated),
            "notes": dict(self.notes),
            "damage": self.damage[:100],
            "stopped": self.stopped or ("" if self.finished else UNFINISHED),
            "seconds": round(self.seconds, 3),
            "fps": round(self.read / self.seconds, 3) if self.seconds else None,
            "ms_per_frame": self.ms_per_frame,
            **self.facts,
        }

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        write_text(path, json.dumps(self.as_dict(), indent=2, sort_keys=False) + "\n")

    def summary(self) -> list[str]:
        """Lines for people."""
        parts = [f"{self.status[status]} {status.value}" for status in Status if self.status[status]]
        rate = f", {self.read / self.seconds:.1f} frames/s" if self.seconds else ""
        lines = [
            f"{self.read} frames read, {self.written} written: {', '.join(parts) or 'none'}; "
            f"{self.faces} faces in {self.seconds:.1f} s{rate}"
        ]
        if self.faces > self.status[Status.SWAPPED]:
            lines.append("some frames held more than one face: look at the result")
        lines += [f"{note} ({count} times)" if count > 1 else note for note, count in self.notes.items()]
        lines += [f"failed: {key}: {reason}" for key, reason in self.failed[:50]]
        if len(self.failed) > 50:
            lines.append(f"... and {len(self.failed) - 50} more failed frames, named in the report")
        if self.outdated:
            lines.append(f"{len(self.outdated)} images are still those of an earlier run: --resume converts them again")
        if self.damage:
            lines.append(f"the input is damaged in {len(self.damage)} places: {self.damage[0]}")
        return lines
