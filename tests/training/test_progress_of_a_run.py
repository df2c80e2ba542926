"""What a run shows of itself while it lasts."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import PLAIN, Folders, run, start

from fsdeploy.progress import Progress


def test_the_bar_ends_at_the_last_iteration(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[tuple[int, str | None]] = []

    class Recorded(Progress):
        def advance(self, steps: int = 1, note: str | None = None) -> None:
            super().advance(steps, note)
            notes.append((self.done, note))

    monkeypatch.setattr("fsdeploy.training.session.Progress", Recorded)
    monkeypatch.setattr("fsdeploy.training.train._FETCH_INTERVAL_S", 3600)  # as on a fast GPU: fetched now and then
    run(start(tmp_path, drawn_faces, PLAIN), 13)
    done, note = notes[-1]
    assert done == 13
    assert note is not None
    assert note.startswith("#00013 ")
