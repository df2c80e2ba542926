"""The files of one saved model as a transaction: a process killed at any instant leaves a set that loads.

A set is `<name>.safetensors`, `<name>_optimizer.safetensors` (if saved) and `<name>_state.json`; a backup set has the
same names plus ".bk". docs/formats/model-folder.md tells the protocol:

1. Weights and optimizer are written beside, as `<file>.new`, and synced.
2. The state JSON, which holds the digest of both, is written as `<name>_state.json.new`: its appearance, one atomic
   rename, commits the save. Until then the previous set is untouched.
3. The three are renamed to their public names, the state JSON last. When that is interrupted, a reader finds each file
   under one of its two names by digest, and the next writer finishes the renames.

A reader takes no lock, so a save may happen while it looks: what it finds wrong counts only when no file of the set
changed meanwhile, and what it reads later is of the set that it found, or it is told (`SavedSet.is_in_place`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy import files
from fsdeploy.errors import CorruptModelError, InputError

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Version of the state JSON's schema; a reader refuses a newer one."""
OURS = "fsdeploy"
"""Top-level key of the state JSON that holds what is not part of the original system's schema."""
BACKUP = ".bk"
_NEW = ".new"
_MAX_STATE_BYTES = 256 << 20
_NAME = re.compile(r"[a-z0-9_]+")
ATTEMPTS = 100
"""How often a reader looks again at files that change under its eyes. Each time a whole save went by."""

Identity = tuple[int, int, int, int]
"""Tells a file from every other that had its name: device, inode, size, time of the last change in ns."""

Writer = Callable[[Path], None]


@dataclass(frozen=True)
class SavedSet:
    """A set of files that was found complete, its digests checked."""

    state: dict[str, Any]
    weights: Path
    optimizer: Path | None
    """None when no optimizer state was saved, it is damaged, or it was not asked for."""
    weights_identity: Identity
    """Of the weights file whose digest was checked."""

    @property
    def is_in_place(self) -> bool:
        """Whether the weights file is still the one that was checked: then what was read from it was this set's."""
        return _identity(self.weights) == self.weights_identity

    @property
    def weights_sha256(self) -> str:
        """Hex digest of the weights file."""
        return str(self.state[OURS]["files"][f"{self.state['name']}.safetensors"]["sha256"])

    @property
    def optimizer_iterations(self) -> int | None:
        """The iteration that the optimizer state is of; None when none was saved. It may be older than the weights."""
        record = self.state[OURS]["files"].get(f"{self.state['name']}_optimizer.safetensors")
        return None if record is None else int(record.get("iterations", self.state["iterations"]))


class FileSet:
    """The three file names of a set. `suffix` is "" for the current set and ".bk" for the backup."""

    def __init__(self, folder: Path, name: str, suffix: str = "") -> None:
        if not _NAME.fullmatch(name):
            raise InputError(f"'{name}' cannot be a model name: use lower-case letters, digits and '_'")
        self.folder = folder
        self.name = name
        self.suffix = suffix
        self.weights = folder / f"{name}.safetensors{suffix}"
        self.optimizer = folder / f"{name}_optimizer.safetensors{suffix}"
        self.state = folder / f"{name}_state.json{suffix}"

    @property
    def exists(self) -> bool:
        """Whether a set was ever committed here, damaged or not."""
        return self.state.exists() or _new(self.state).exists()

    @property
    def paths(self) -> list[Path]:
        """Every name that a file of the set may have: the public ones, then those of a save in progress."""
        public = [self.weights, self.optimizer, self.state]
        return public + [_new(path) for path in public]

    def find(self, with_optimizer: bool = True) -> SavedSet:
        """The newest committed set, every digest checked.

        Raises:
            CorruptModelError: no state JSON, or a file is missing or damaged.
        """
        for _ in range(ATTEMPTS):
            before = [_identity(path) for path in self.paths]
            remarks: list[str] = []
            problem = found = None
            try:
                found = self._newest(with_optimizer, remarks)
            except CorruptModelError as error:
                problem = error
            if (found and not remarks) or before == [_identity(path) for path in self.paths]:
                break  # else a save changed the files meanwhile: what seemed wrong may not be
        for remark in remarks:
            logger.warning(remark)
        if problem or found is None:
            raise problem or CorruptModelError(f"{self.state} cannot be read")
        return found

    def _newest(self, with_optimizer: bool, remarks: list[str]) -> SavedSet:
        if _new(self.state).exists():
            try:
                return self._verified(_new(self.state), with_optimizer, remarks)
            except CorruptModelError as error:
                remarks.append(f"{error}: looking at the set before it")
        return self._verified(self.state, with_optimizer, remarks)

    def _verified(self, state_path: Path, with_optimizer: bool, remarks: list[str]) -> SavedSet:
        state = read_state(state_path)
        if state["name"] != self.name:
            raise CorruptModelError(f"{state_path} belongs to a model called '{state['name']}': do not rename files")
        records: Mapping[str, Mapping[str, Any]] = state[OURS]["files"]
        weights = self._matching(self.weights, records)
        if weights is None:
            raise CorruptModelError(f"{self.weights} is missing or damaged: it does not match {state_path.name}")
        optimizer = None
        if with_optimizer and self._record_name(self.optimizer) in records:
            optimizer = self._matching(self.optimizer, records)
            if optimizer is None:
                remarks.append(f"{self.optimizer} is missing or damaged: optimizer state starts fresh")
        return SavedSet(state, weights[0], None if optimizer is None else optimizer[0], weights[1])

    def _record_name(self, path: Path) -> str:
        return path.name.removesuffix(self.suffix)

    def _matching(self, path: Path, records: Mapping[str, Mapping[str, Any]]) -> tuple[Path, Identity] | None:
        record = records.get(self._record_name(path))
        if not record:
            return None
        for candidate in (path, _new(path)):
            try:
                with candidate.open("rb") as stream:
                    found = os.fstat(stream.fileno())
                    if found.st_size == record["size"] and files.sha256_of(stream) == record["sha256"]:
                        return candidate, _identity_of(found)
            except OSError:
                continue
        return None

    def commit(
        self,
        state: dict[str, Any],
        write_weights: Writer,
        write_optimizer: Writer | None = None,
        kept_optimizer: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write a set; on any error the previous set stays as it was.

        Args:
            state: The state JSON without file records.
            write_weights: Writes the weights to the path it is given.
            write_optimizer: The same for the optimizer tensors; None leaves them out.
            kept_optimizer: Record of the optimizer file of the previous set, to keep it beside newer weights.

        Returns:
            The file records: name -> {"sha256", "size", "iterations"}.

        Raises:
            InputError: the folder cannot be written or the disk is full.
        """
        self.finish()
        iterations = int(state["iterations"])
        try:
            records: dict[str, Any] = {self._record_name(self.weights): _write(self.weights, write_weights, iterations)}
            if write_optimizer is not None:
                records[self._record_name(self.optimizer)] = _write(self.optimizer, write_optimizer, iterations)
            elif kept_optimizer is not None:
                records[self._record_name(self.optimizer)] = dict(kept_optimizer)
            ours = {**state.get(OURS, {}), "files": records}
            ours["digest"] = state_digest({**state, OURS: ours})
            files.write_text(_new(self.state), json.dumps({**state, OURS: ours}, indent=2, allow_nan=False) + "\n")
        except BaseException:
            for path in (self.weights, self.optimizer):
                _new(path).unlink(missing_ok=True)
            raise
        self._publish(records)
        return records

    def _publish(self, records: Mapping[str, Any]) -> None:
        for path in (self.weights, self.optimizer):
            if _new(path).exists():
                _new(path).replace(path)
        if self._record_name(self.optimizer) not in records:
            self.optimizer.unlink(missing_ok=True)
        _new(self.state).replace(self.state)
        files.sync_folder(self.folder)

    def finish(self) -> None:
        """Finish a committed save whose renames were interrupted, and remove what an uncommitted one left."""
        for left in self.folder.glob(f".{self.name}*.tmp*"):
            if left.is_dir():  # a snapshot that was not completed
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        if _new(self.state).exists():
            try:
                self._verified(_new(self.state), with_optimizer=True, remarks=[])
            except CorruptModelError:
                _new(self.state).unlink()
            else:
                self._publish(read_state(_new(self.state))[OURS]["files"])
        for path in (self.weights, self.optimizer):
            _new(path).unlink(missing_ok=True)


def _new(path: Path) -> Path:
    return path.with_name(path.name + _NEW)


def _identity(path: Path) -> Identity | None:
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _identity_of(found: os.stat_result) -> Identity:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _write(path: Path, writer: Writer, iterations: int) -> dict[str, Any]:
    with files.atomic_path(_new(path)) as temporary:
        writer(temporary)
        digest, size = files.sha256(temporary), temporary.stat().st_size
    return {"sha256": digest, "size": size, "iterations": iterations}


def copier(source: Path) -> Writer:
    """A writer that copies an existing file."""

    def copy(target: Path) -> None:
        shutil.copyfile(source, target)

    return copy


def state_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over the state's content without its own digest, so that a flipped bit in a number is noticed."""
    ours = {key: value for key, value in state[OURS].items() if key != "digest"}
    text = json.dumps({**state, OURS: ours}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_state(path: Path) -> dict[str, Any]:
    """Read and check a state JSON written by fsdeploy.

    Raises:
        CorruptModelError: missing, no JSON, damaged, or without the record of its files.
    """
    try:
        if path.stat().st_size > _MAX_STATE_BYTES:
            raise CorruptModelError(f"{path} is too large to be a state file")
        state = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CorruptModelError(f"{path} is missing") from error
    except OSError as error:
        raise CorruptModelError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptModelError(f"{path} is damaged ({type(error).__name__})") from error
    _check_state(state, path)
    return dict(state)


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "name": str, "sessions": dict, "lowest_avg_loss": (int, float), "iterations": int, "mixed_precision_layers": list,
    "lr_finder": (int, float), "config": dict, OURS: dict,
}  # fmt: skip
_OUR_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "version": str, "saved": (int, float), "files": dict, "digest": str,
}  # fmt: skip


def _check_state(state: Any, path: Path) -> None:
    version = state.get("schema_version") if isinstance(state, dict) else None
    if not isinstance(version, int):
        raise CorruptModelError(
            f"{path} is damaged or was not written by fsdeploy: 'fsdeploy migrate' takes models of others"
        )
    if version > SCHEMA_VERSION:
        raise CorruptModelError(f"{path} was written by a newer fsdeploy (schema {version}): upgrade")
    wrong = [key for key, kind in _TYPES.items() if not isinstance(state.get(key), kind)]
    if OURS not in wrong:
        wrong += [f"{OURS}.{key}" for key, kind in _OUR_TYPES.items() if not isinstance(state[OURS].get(key), kind)]
    if not wrong:
        records, sessions = state[OURS]["files"].values(), state["sessions"].items()
        if not all(isinstance(record, dict) and _is_record(record) for record in records):
            wrong.append(f"{OURS}.files")
        if not all(key.isdigit() and isinstance(entry, dict) for key, entry in sessions):
            wrong.append("sessions")
    if wrong:
        raise CorruptModelError(f"{path} is damaged: {', '.join(wrong)} is missing or of a wrong type")
    # A state edited by hand loads when its digest is set to "".
    if state[OURS]["digest"] not in ("", state_digest(state)):
        raise CorruptModelError(f"{path} is damaged: its content does not match its digest")


def _is_record(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("sha256"), str) and isinstance(record.get("size"), int)


def model_names_in(folder: Path) -> list[str]:
    """Names of all models whose files lie in a folder, sorted."""
    found = {
        match[1]
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := re.fullmatch(r"([a-z0-9_]+)_state\.json(?:\.bk)?(?:\.new)?", path.name))
    }
    return sorted(found)


def snapshot_sets(folder: Path, name: str) -> list[FileSet]:
    """The snapshots of a model, newest first."""
    found: list[tuple[int, Path]] = [
        (int(path.name.rpartition("_")[2]), path)
        for path in folder.glob(f"{name}_snapshot_*")
        if path.name.rpartition("_")[2].isdigit() and path.is_dir()
    ]
    return [FileSet(path, name) for _, path in sorted(found, reverse=True)]


def find_saved_set(folder: Path, name: str, with_optimizer: bool = True) -> SavedSet:
    """The current set of a model; if it is damaged the newest good one of backup and snapshots, with a warning.

    Raises:
        CorruptModelError: no set of the folder is complete.
    """
    problems: list[str] = []
    for candidate in _candidates(folder, name):
        try:
            found = candidate.find(with_optimizer)
        except CorruptModelError as error:
            problems.append(str(error))
            continue
        if problems:
            logger.warning(
                "%s: going on with the last good set, %s of iteration %s",
                "; ".join(problems), candidate.weights, found.state["iterations"],
            )  # fmt: skip
        return found
    raise CorruptModelError(
        f"no set of '{name}' in {folder} can be used: {'; '.join(problems) or 'no files'}: "
        "bring back a copy of the folder"
    )


def _candidates(folder: Path, name: str) -> Iterator[FileSet]:
    yield FileSet(folder, name)
    backup = FileSet(folder, name, BACKUP)
    others = [backup] if backup.exists else []
    yield from sorted(others + snapshot_sets(folder, name), key=_iterations, reverse=True)


def _iterations(found: FileSet) -> int:
    try:
        return int(read_state(found.state)["iterations"])
    except CorruptModelError:
        return -1
