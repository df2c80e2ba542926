"""The end of the pipeline: pictures are written in the order of the source, and each is accounted for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fsdeploy.convert.conversion import Conversion
from fsdeploy.convert.frame import Frame, Picture, Status
from fsdeploy.convert.report import Report
from fsdeploy.errors import CheckFailedError


@dataclass(frozen=True)
class Done:
    """A frame that is ready to be written."""

    place: int
    """Its place in the output, from 0."""
    picture: Picture | None
    """None: the frame could not be read; the picture before it is shown again."""
    frame: Frame
    encoded: Any = None
    reason: str = ""
    """Why it failed; empty otherwise."""
    written_before: bool = False
    """An earlier run has written it."""


class OrderedOutput:
    """Hands pictures to the writer, one after another, and keeps the account."""

    def __init__(self, job: Conversion, report: Report, size: tuple[int, int]) -> None:
        self.job, self.report, self.size = job, report, size
        self._before: Picture | str | None = None
        """What an unreadable frame repeats: the picture before it, or the key of one that an earlier run wrote."""
        self.between = 0
        """Unchanged frames that lie between swapped ones."""
        self._since_swapped: int | None = None

    def write(self, done: Done) -> None:
        """Write the frame that is next.

        Raises:
            OutputFullError: nothing more fits.
            CheckFailedError: the frame failed, and the conversion is to stop at the first that does.
        """
        if done.written_before:
            self._before = done.frame.key
            self.report.status[Status.KEPT] += 1
            self.report.written += 1
            return
        picture, encoded = done.picture, done.encoded
        if picture is None:
            picture, encoded = self._repeated(done.frame)
        elif self.job.writer.takes == "frames":
            self._before = picture
        status = Status.FAILED if done.reason else picture.status
        if status is Status.FAILED:
            self.report.failed.append((done.frame.key, done.reason or "failed"))
        with self.report.timed("encode"):
            self.job.writer.write(picture, encoded)
        self.report.outdated.discard(done.frame.key)
        if self.report.first_frame is None:
            self.report.first_frame, self.report.first_timing = picture.index, picture.timing
        self.report.written += 1
        self.report.status[status] += 1
        self._count_gap(status)
        self.report.faces += picture.faces
        self.report.notes.update(picture.notes)
        if status is Status.FAILED and self.job.on_error == "stop":
            self.report.stopped = f"{done.frame.key} failed"
            raise CheckFailedError(f"{done.frame.key}: {done.reason}; stopped there, as --on-error stop asks")

    def _count_gap(self, status: Status) -> None:
        if status is Status.SWAPPED:
            self.between += self._since_swapped or 0
            self._since_swapped = 0
        elif status is Status.UNCHANGED and self._since_swapped is not None:
            self._since_swapped += 1

    def gap_notes(self) -> list[str]:
        """What the user should know about frames without a face that would flicker among the others."""
        remedy = self.job.faces.remedy_for_gaps()
        if not self.between or not remedy:
            return []
        return [
            f"{self.between} of {self.report.written} frames lie between swapped ones, have no face in "
            f"{self.job.faces.folder} and stay as they are, so the result may flicker: {remedy}"
        ]

    def _repeated(self, frame: Frame) -> tuple[Picture, Any]:
        """What an unreadable frame is written as: the picture before it, mark and opacity included, or black."""
        width, height = self.size
        alpha = np.zeros((height, width), np.uint8) if self.job.transparent else None
        black = np.zeros((height, width, 3), np.uint8)
        picture = Picture(frame.index, frame.key, black, Status.FAILED, alpha, frame.timing)
        if isinstance(self._before, str):
            kept = self.job.writer.kept(self._before)
            if kept is not None:
                return picture, kept
        elif self._before is not None:
            # Its status stays: what shows a swapped face is marked as such.
            picture = replace(
                self._before, index=frame.index, key=frame.key, timing=frame.timing, patches=(), faces=0, notes=()
            )
        return picture, self.job.writer.encode(picture)
