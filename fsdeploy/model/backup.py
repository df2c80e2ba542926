"""The backup set, snapshots, and going back to one of them."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy.errors import CorruptModelError, InputError
from fsdeploy.model.saved_set import BACKUP, OURS, FileSet, SavedSet, copier, snapshot_sets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestorePoint:
    """A set that a model can go back to."""

    kind: str
    """"backup" or "snapshot"."""
    iterations: int
    saved: float
    """Unix seconds."""
    has_optimizer: bool
    problem: str
    """Why the set cannot be used; empty when it can."""


class Backup:
    """Backups of one model.

    Args:
        model_dir: Folder of the model.
        model_name: Plugin name.
    """

    def __init__(self, model_dir: str | Path, model_name: str) -> None:
        self._folder = Path(model_dir)
        self._name = model_name
        self._current = FileSet(self._folder, model_name)
        self._backup = FileSet(self._folder, model_name, BACKUP)

    @property
    def _logs(self) -> str:
        return f"{self._name}_logs"

    def backup_set(self, state: dict[str, Any], with_optimizer: bool) -> None:
        """Copy the set that was just committed to "*.bk"; a copy, so that no damage can hit both.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        self._backup.commit(
            state, copier(self._current.weights), copier(self._current.optimizer) if with_optimizer else None
        )

    def write_snapshot(self, iterations: int, commit: Callable[[FileSet], object]) -> Path:
        """Write a snapshot folder: `commit` writes the set into it, the logs so far come along.

        The folder appears under its name only when it is complete. Logs take no room twice: finished log files are
        linked where the file system can, the one written last is copied.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        target = self._folder / f"{self._name}_snapshot_{iterations}"
        beside = self._folder / f".{target.name}.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            commit(FileSet(beside, self._name))
            if (self._folder / self._logs).is_dir():
                _share_logs(self._folder / self._logs, beside / self._logs)
            if target.exists():
                shutil.rmtree(target)
            beside.rename(target)
        except OSError as error:
            raise _cannot_write(target, error) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return target

    def restore_points(self) -> list[RestorePoint]:
        """What the model can go back to: the backup, then the snapshots, newest first."""
        sets = [("backup", self._backup)] if self._backup.exists else []
        sets += [("snapshot", found) for found in snapshot_sets(self._folder, self._name)]
        return [_restore_point(kind, found) for kind, found in sets]

    def restore(self, snapshot: int | None = None) -> Path | None:
        """Make the backup, or the snapshot of that iteration, the current set.

        The present set is first moved, with the logs of sessions that the restored state does not know, to
        `<name>_archived_<date>_<time>/`. So is a copy of the backup when a snapshot is restored: its lowest loss may
        be one that the restored state has not seen, and training on replaces it by a worse one.

        The caller holds the folder's lock.

        Returns:
            The archive folder; None when the present set is the same already, and nothing was touched.

        Raises:
            InputError: there is no such backup or snapshot.
            CorruptModelError: it is damaged.
        """
        source = self._source(snapshot)
        found = source.find()
        if self._is_present(found):
            return None
        archive = self._archive([self._current] if snapshot is None else [self._current, self._backup])
        state = found.state
        self._current.commit(
            {**state, OURS: {key: value for key, value in state[OURS].items() if key not in ("files", "digest")}},
            copier(found.weights),
            None if found.optimizer is None else copier(found.optimizer),
        )
        self._archive_newer_logs(found, archive)
        return archive

    def _is_present(self, found: SavedSet) -> bool:
        """Whether the present set is whole and has the same content."""
        try:
            return self._current.exists and _content(self._current.find()) == _content(found)
        except CorruptModelError:
            return False

    def _source(self, snapshot: int | None) -> FileSet:
        if snapshot is None:
            if not self._backup.exists:
                raise InputError(f"{self._folder} has no backup of '{self._name}': see 'fsdeploy restore --list'")
            return self._backup
        source = FileSet(self._folder / f"{self._name}_snapshot_{snapshot}", self._name)
        if not source.exists:
            raise InputError(f"{self._folder} has no snapshot of iteration {snapshot}: see 'fsdeploy restore --list'")
        return source

    def set_aside(self, paths: Iterable[Path]) -> Path | None:
        """Move the files that exist to `<name>_archived_<date>_<time>/`, under the names they have.

        Returns:
            The archive folder; None when there was nothing to move.

        Raises:
            InputError: the folder cannot be written.
        """
        present = [path for path in paths if path.exists()]
        if not present:
            return None
        archive = self._new_archive()
        try:
            for path in present:
                path.rename(archive / path.name)
        except OSError as error:
            raise _cannot_write(archive, error) from error
        return archive

    def _archive(self, sets: Iterable[FileSet]) -> Path:
        archive = self._new_archive()
        try:
            for saved in sets:
                saved.finish()  # or the files of an interrupted save would be left out, which wait for their names
                # Copies: until the restored set is committed, the present one stays where it is.
                for path in saved.paths:
                    if path.exists():
                        shutil.copy2(path, archive / path.name)
        except OSError as error:
            shutil.rmtree(archive, ignore_errors=True)
            raise _cannot_write(archive, error) from error
        return archive

    def _new_archive(self) -> Path:
        archive = self._folder / time.strftime(f"{self._name}_archived_%Y%m%d_%H%M%S")
        while archive.exists():  # two within a second
            archive = archive.with_name(archive.name + "_")
        try:
            archive.mkdir()
        except OSError as error:
            raise _cannot_write(archive, error) from error
        return archive

    def _archive_newer_logs(self, restored: SavedSet, archive: Path) -> None:
        known = {f"session_{number}" for number in restored.state["sessions"]}
        logs = self._folder / self._logs
        for session in sorted(logs.glob("session_*")) if logs.is_dir() else ():
            if session.name not in known:
                (archive / self._logs).mkdir(exist_ok=True)
                session.rename(archive / self._logs / session.name)


def _content(saved: SavedSet) -> tuple[dict[str, Any], dict[str, str], bool]:
    """What tells one set from another: not when it was written, and by which version."""
    ours = {
        key: value for key, value in saved.state[OURS].items() if key not in ("files", "digest", "saved", "version")
    }
    digests = {name: record["sha256"] for name, record in saved.state[OURS]["files"].items()}
    return {**saved.state, OURS: ours}, digests, saved.optimizer is not None


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {folder}: {error.strerror}: check permissions and free space")


def _share_logs(source: Path, target: Path) -> None:
    """Give a snapshot the log files so far, without a second copy of those that will never change again."""
    found = [(path, path.stat().st_mtime_ns) for path in source.rglob("*") if path.is_file()]
    growing = max(found, key=lambda entry: (entry[1], entry[0].name), default=(None, 0))[0]
    for path, _ in found:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path != growing:
            try:
                os.link(path, place)
                continue
            except OSError:  # a file system without links
                pass
        shutil.copy2(path, place)


def _restore_point(kind: str, source: FileSet) -> RestorePoint:
    try:
        found = source.find()
    except CorruptModelError as error:
        return RestorePoint(kind, _iterations_of(source), 0.0, False, str(error))
    ours = found.state[OURS]
    return RestorePoint(kind, int(found.state["iterations"]), float(ours["saved"]), found.optimizer is not None, "")


def _iterations_of(source: FileSet) -> int:
    last = source.folder.name.rpartition("_")[2]
    return int(last) if last.isdigit() else 0
