"""Alignments ahead of time: the faces of many frames in one batched solve."""

from __future__ import annotations

from fsdeploy.convert.frame import Frame
from fsdeploy.convert.landmarks import FaceIndex
from fsdeploy.convert.swap import Alignment, align_records

_BLOCK = 64
"""Frames whose faces are aligned together."""
_KEPT = 32 * _BLOCK
"""Frames whose alignments wait to be asked for; a frame that none asks for (outside the ranges) would wait for ever."""


class UpcomingAlignments:
    """Alignments of the faces to come, solved for a block of frames at a time: many cost little more than one."""

    def __init__(self, faces: FaceIndex) -> None:
        self._faces = faces
        # Frames come by number or by name, the entries of a landmarks file in any order.
        self._keys = sorted(faces.frames, key=int if faces.by_index else str)
        self._places = {key: place for place, key in enumerate(self._keys)}
        self._known: dict[str, list[Alignment]] = {}

    def of(self, frame: Frame) -> list[Alignment]:
        """Alignments of a frame's faces, in their order."""
        key = self._faces.find(frame)
        if key is None:
            return []
        if key not in self._known:
            self._solve(self._places[key])
        return self._known.pop(key)

    def _solve(self, first: int) -> None:
        block = [key for key in self._keys[first : first + _BLOCK] if key not in self._known]
        flat = iter(align_records([face for key in block for face in self._faces.frames[key]]))
        self._known |= {key: [next(flat) for _ in self._faces.frames[key]] for key in block}
        for key in list(self._known)[: max(0, len(self._known) - _KEPT)]:
            del self._known[key]
