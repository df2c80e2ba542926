"""When the pictures of a video are shown: the source's times, without the gaps of frames that are left out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from fsdeploy.convert.frame import Timing


@dataclass(frozen=True)
class Moment:
    """Where one picture lies, in units of the timeline's time base."""

    pts: int
    """In the output."""
    given: int
    """In the source."""
    until: int
    """In the source: when the picture ends."""
    shift: int
    """From source to output."""
    after_gap: bool
    """Frames of the source were left out before it."""
    restarted: bool
    """The source's own times went back before it, as where two recordings were put one after the other."""


class Timeline:
    """Gives every picture its time in the output, later than that of the picture before it."""

    def __init__(self, time_base: Fraction, rate: Fraction) -> None:
        self.time_base = time_base
        self._step = max(1, round(1 / (rate * time_base)))
        self._shift = 0
        self._last: int | None = None
        self._given = 0
        self.restarts = 0
        """How often the source's times went back."""

    def place(self, timing: Timing | None, contiguous: bool = True) -> Moment:
        """The next picture's moment.

        Args:
            timing: when the source shows it; None: one frame after the one before.
            contiguous: False when frames of the source were left out before it: the gap is closed.
        """
        given = timing.pts if timing is not None and timing.time_base == self.time_base else None
        if given is None:
            given = 0 if self._last is None else self._given + self._step
        restarted = self._last is not None and given < self._given
        if restarted:
            self.restarts += 1
        if restarted or not contiguous:
            self._shift = (0 if self._last is None else self._last + self._step) - given
        pts = given + self._shift
        if self._last is not None:
            pts = max(pts, self._last + 1)  # two pictures of one time: some muxers write them
            if contiguous and not restarted:
                self._step = pts - self._last
        self._last, self._given = pts, given
        length = timing.duration if timing is not None and timing.duration else self._step
        return Moment(pts, given, given + length, self._shift, not contiguous, restarted)
