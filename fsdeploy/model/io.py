"""Reading and writing a model folder on behalf of a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from fsdeploy.errors import CorruptModelError, InputError
from fsdeploy.model.background import BackgroundWriter
from fsdeploy.model.backup import Backup
from fsdeploy.model.lock import FolderLock
from fsdeploy.model.network import SwapNetwork
from fsdeploy.model.saved_set import BACKUP, OURS, FileSet, SavedSet, find_saved_set, model_names_in
from fsdeploy.model.tensor_file import read_metadata, read_tensors, to_host, write_tensors
from fsdeploy.model.weights import Weights, build_loaded, get_all_sub_models, read_weights

if TYPE_CHECKING:
    from fsdeploy.model.base import ModelBase

logger = logging.getLogger(__name__)

SaveOptimizer = Literal["never", "always", "exit"]
FEWEST_AVERAGED = 50
"""Iterations that an average loss must cover to be compared with the lowest: a single batch may be an easy one."""
_KEEP_STATE = "option save_optimizer = 'always' saves it every time, not only at the end of a run"


class SavableOptimizer(Protocol):
    """What `IO` asks of an optimizer."""

    def state_tensors(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Tensors named "<parameter name>/<state key>", and JSON values (hyper-parameters, scaler, counters)."""


class IO:
    """Saving and loading of one model.

    Args:
        plugin: The model.
        model_dir: Its folder; None for a model that lives in memory only.
        is_predict: True: nothing is written and no lock is taken.
        save_optimizer: "never", "always", or "exit" (only with the save at the end of a run).

    Raises:
        InputError: another training uses the folder, or it holds a model of another plugin.
    """

    def __init__(
        self, plugin: ModelBase, model_dir: Path | None, is_predict: bool, save_optimizer: SaveOptimizer = "exit"
    ) -> None:
        self._plugin = plugin
        self._model_dir = model_dir
        self._is_predict = is_predict
        self.save_optimizer = save_optimizer
        self.saved: SavedSet | None = None
        """The set that this model was opened from."""
        self._history: list[float] = []
        self._uncompared: list[float] = []
        self._lock: FolderLock | None = None
        self._writes = BackgroundWriter()
        self._refused: list[Path] = []
        """Files that could not be used, set aside before the first save takes their names."""
        self._optimizer_record: Mapping[str, Any] | None = None
        """Of the optimizer file that lies in the folder and is whole."""
        self._weight_buffers: dict[str, Tensor] = {}
        self._optimizer_buffers: dict[str, Tensor] = {}
        if model_dir is not None:
            self._files = FileSet(model_dir, plugin.name)
            self._check_folder(model_dir)
            if self.is_writer:
                self._lock = FolderLock(model_dir, plugin.name)
                self._lock.acquire()

    def _check_folder(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file: name the folder of a model")
        others = self.multiple_models_in_folder
        if others and not self.model_exists:
            raise InputError(
                f"{folder} holds a model of the plugin {' and '.join(repr(name) for name in others)}, "
                f"not of '{self._plugin.name}': choose that plugin or another folder"
            )

    @property
    def is_writer(self) -> bool:
        """True in the one process that writes: training, and rank 0 where several train together."""
        if self._model_dir is None or self._is_predict:
            return False
        distributed = torch.distributed
        return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0)

    @property
    def filename(self) -> str:
        """Full path of the weights file; empty for a model in memory."""
        return "" if self._model_dir is None else str(self._files.weights)

    @property
    def model_dir(self) -> str:
        """Full path of the model folder; empty for a model in memory."""
        return "" if self._model_dir is None else str(self._model_dir)

    @property
    def model_exists(self) -> bool:
        """True when the folder holds a saved model of this plugin, damaged or not."""
        return self._model_dir is not None and (
            self._files.exists or FileSet(self._model_dir, self._plugin.name, BACKUP).exists
        )

    @property
    def multiple_models_in_folder(self) -> list[str] | None:
        """Names of the models in the folder if any is not of this plugin, else None."""
        found = [] if self._model_dir is None else model_names_in(self._model_dir)
        return found if any(name != self._plugin.name for name in found) else None

    @property
    def history(self) -> list[float]:
        """Total loss of each iteration since the last save."""
        return self._history

    def open(self) -> SavedSet | None:
        """Find the set to load, digests checked; None when there is no model yet.

        Raises:
            CorruptModelError: there are files, and no set of them is complete.
            InputError: inference was asked for and there is no model.
        """
        if self._model_dir is None or not self.model_exists:
            if self._is_predict:
                raise InputError(f"{self.model_dir or 'this model'} holds no trained model: train or migrate one first")
            return None
        self.saved = find_saved_set(self._model_dir, self._plugin.name, with_optimizer=not self._is_predict)
        self._note_refused(self.saved)
        return self.saved

    def _note_refused(self, found: SavedSet) -> None:
        record = found.state[OURS]["files"].get(self._files.optimizer.name)
        if found.weights not in self._files.paths:  # a fall-back: to backup or snapshot
            self._refused = self._files.paths
        elif found.optimizer is None and record is not None:
            self._refused = [path for path in self._files.paths if path.name.startswith(self._files.optimizer.name)]
        else:
            self._optimizer_record = record

    def load(self) -> SwapNetwork:
        """Build the network and load the saved weights.

        Raises:
            CorruptModelError: the weights do not fit the plugin and its options.
            ReplacedError: a training saved the model anew since this object was made: make another.
        """
        if self.saved is None:
            raise InputError(f"{self.model_dir or 'this model'} holds no trained model: train or migrate one first")
        return build_loaded(self._plugin.build_network, read_weights(self.saved), str(self.saved.weights))

    def load_optimizer(self) -> dict[str, Any] | None:
        """The optimizer state to go on with; None when there is none. Says so when it is not that of the weights.

        Returns:
            {"tensors": name -> tensor, "metadata": JSON values, "behind": iterations that the weights were trained on
            after this state was saved}.
        """
        if self.saved is None:
            return None
        iterations, of = int(self.saved.state["iterations"]), self.saved.optimizer_iterations
        if self.saved.optimizer is None:
            if of is None and iterations and self.save_optimizer != "never":
                logger.warning(
                    "no optimizer state was saved with iteration %d: it starts fresh (%s)", iterations, _KEEP_STATE
                )
            return None
        try:
            state = {"tensors": read_tensors(self.saved.optimizer), "metadata": read_metadata(self.saved.optimizer)}
        except CorruptModelError as error:
            logger.warning("%s; optimizer state starts fresh", error)
            return None
        behind = iterations - (iterations if of is None else of)
        if behind:
            logger.warning(
                "the optimizer state is of iteration %d, the weights are of %d: training goes on with both (%s)",
                of, iterations, _KEEP_STATE,
            )  # fmt: skip
        return {**state, "behind": behind}

    def save(self, optimizer: SavableOptimizer | None = None, is_exit: bool = False) -> None:
        """Save weights, optimizer (as `save_optimizer` says) and state as one transaction.

        Tensors are copied at once; files are written by a thread while training goes on, except at exit. The
        first set of a model is also kept as "*.bk", and each set after which the average loss is the lowest so far; an
        average covers `FEWEST_AVERAGED` iterations or more, since this or earlier saves.

        Raises:
            InputError: this save, at exit, could not be written, or saves in the background have failed in a way that
                `BackgroundWriter.weigh_failure` does not pass over; the last good set is untouched.
        """
        self._writes.join()
        self._writes.weigh_failure(may_end=not is_exit)
        if not self.is_writer:
            self._history.clear()
            return
        with_optimizer = optimizer is not None and (
            self.save_optimizer == "always" or (self.save_optimizer == "exit" and is_exit)
        )
        try:
            work = self._prepare(optimizer if with_optimizer else None)
        except Exception as error:
            if is_exit:
                raise
            self._writes.fail("save", error)
            self._writes.weigh_failure()
            return
        self._writes.start("save", work)
        if is_exit:
            self.wait()
            self._weight_buffers.clear()
            self._optimizer_buffers.clear()
            if self._lock is not None:
                self._lock.release()

    @property
    def has_saved(self) -> bool:
        """Whether a save of this object has succeeded."""
        return self._writes.has_saved

    def _prepare(self, optimizer: SavableOptimizer | None) -> Callable[[], None]:
        """Copy what is to be saved, and return what writes it."""
        assert self._lock is not None
        self._lock.acquire()
        lowest, losses = self._plugin.state.lowest_avg_loss, self._uncompared + self._history

        @contextmanager
        def losses_count_once_saved() -> Iterator[None]:
            try:
                yield
            except BaseException:  # no set on disk has this average: the next save compares its losses again
                self._plugin.state.lowest_avg_loss, self._uncompared = lowest, losses
                raise

        with losses_count_once_saved():
            is_best = self._note_history()
            job = self._collect(optimizer)
        keep = None if self.save_optimizer == "never" else self._optimizer_record
        return losses_count_once_saved()(lambda: self._write(job, is_best, keep))

    def _collect(self, optimizer: SavableOptimizer | None) -> _Job:
        copied = None
        if optimizer is not None:
            tensors, values = optimizer.state_tensors()
            copied = to_host(tensors, self._optimizer_buffers), dict(values)
        weights = to_host(self._plugin.model.state_dict(), self._weight_buffers)
        return _Job(self._plugin.state.to_dict(), weights, self._plugin.weights_metadata(), copied)

    def _note_history(self) -> bool:
        """Whether this save is to be kept as backup: the first of a model, or the lowest average loss so far."""
        average, since = _mean(self._history), len(self._history)
        self._uncompared += self._history
        self._history.clear()
        assert self._model_dir is not None
        first = not FileSet(self._model_dir, self._plugin.name, BACKUP).exists
        is_best, lowest = False, ""
        if (count := len(self._uncompared)) >= FEWEST_AVERAGED:
            longer = _mean(self._uncompared)
            self._uncompared.clear()
            is_best = self._plugin.state.note_average(longer)
            lowest = (
                f"; kept as backup: {longer:.5f}, over {count} iterations, is the lowest average" if is_best else ""
            )
        if average:
            averaged = f"averages {average:.5f} since the last save" if since > 1 else f"is {average:.5f}"
            iteration = self._plugin.state.iterations
            logger.info("saving iteration %d: loss A + B %s%s", iteration, averaged, lowest)
        return is_best or first

    def _write(self, job: _Job, is_best: bool, keep: Mapping[str, Any] | None) -> None:
        backup = Backup(self.model_dir, self._plugin.name)
        if archive := backup.set_aside(self._refused):
            logger.warning("files that could not be used are kept in %s", archive)
        self._refused = []
        self._plugin.state.files = job.commit(self._files, keep)
        self._optimizer_record = self._plugin.state.files.get(self._files.optimizer.name)
        if is_best:
            backup.backup_set(job.state, with_optimizer=job.optimizer is not None)

    def wait(self) -> None:
        """Wait for a save or snapshot in the background.

        Raises:
            InputError: it could not be written.
        """
        self._writes.join()
        self._writes.raise_failure()

    def weigh_failure(self) -> None:
        """Warn of a save or snapshot in the background that failed; does not wait.

        Raises:
            InputError: it was the first save, or one of too many in a row.
        """
        self._writes.weigh_failure()

    def snapshot(self, optimizer: SavableOptimizer | None = None) -> None:
        """Write the model as it is now to `<name>_snapshot_<iterations>/`, with its logs, in the background.

        A snapshot that cannot be written is warned about.

        Raises:
            InputError: as `weigh_failure`, for the save before.
        """
        self._writes.join()
        self._writes.weigh_failure()
        if not self.is_writer:
            return
        try:
            job = self._collect(optimizer)
        except Exception as error:
            self._writes.fail("snapshot", error)
            self._writes.weigh_failure()
            return
        backup = Backup(self.model_dir, self._plugin.name)
        self._writes.start("snapshot", lambda: backup.write_snapshot(job.iterations, job.commit))

    def close(self) -> None:
        """Finish writing and give the folder back. A write that failed and was not tried again is warned about."""
        self._writes.join()
        self._writes.weigh_failure(may_end=False)
        if self._lock is not None:
            self._lock.release()


def _mean(losses: list[float]) -> float:
    return math.fsum(losses) / len(losses) if losses else 0.0


class _Job:
    """A copy of everything one save writes."""

    def __init__(
        self,
        state: dict[str, Any],
        weights: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        optimizer: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None,
    ) -> None:
        self.state = state
        self.weights = weights
        self.metadata = metadata
        self.optimizer = optimizer
        self.iterations = int(state["iterations"])

    def commit(self, target: FileSet, keep: Mapping[str, Any] | None = None) -> dict[str, Any]:
        write_optimizer = None
        if self.optimizer is not None:
            tensors, values = self.optimizer

            def write_optimizer(path: Path) -> None:
                write_tensors(path, tensors, values)

        return target.commit(
            self.state, lambda path: write_tensors(path, self.weights, self.metadata), write_optimizer, keep
        )


__all__ = ["IO", "SavableOptimizer", "SaveOptimizer", "Weights", "get_all_sub_models"]
