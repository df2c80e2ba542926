"""One run of training, from the first iteration to the last save: limits, intervals, keys, progress."""

from __future__ import annotations

import logging

from fsdeploy.progress import Progress
from fsdeploy.training.memory import memory_errors
from fsdeploy.training.metrics import IterationFigures
from fsdeploy.training.previews import Viewer
from fsdeploy.training.requests import Keys, Requests
from fsdeploy.training.rescue import save_for_good, saving_on_errors
from fsdeploy.training.train import Trainer

logger = logging.getLogger(__name__)

DEFAULT_ITERATIONS = 1_000_000


def run(
    trainer: Trainer,
    requests: Requests,
    iterations: int | None = None,
    save_interval: int = 250,
    viewer: Viewer | None = None,
    timelapse: bool = False,
    quiet: bool = False,
) -> None:
    """Train until a limit or a request to stop, and save. When an error ends the run, what was trained is saved first.

    Args:
        iterations: Iterations of this run; None for `DEFAULT_ITERATIONS`, with no time left shown.
        save_interval: Iterations between saves; the first iteration is saved too, so that a folder that cannot be
            written is found at once.
        viewer: Shows previews.
        timelapse: Write a picture of the time-lapse at each save.

    Raises:
        NonFiniteLossError: a loss was not finite; the iteration before was saved if it is any good.
        InputError: memory ran out, the faces vanished, or a save failed.
    """
    limit = DEFAULT_ITERATIONS if iterations is None else iterations
    with Progress("Training", iterations, "it", quiet) as progress, Keys(requests) as keys:
        with saving_on_errors(trainer), memory_errors(trainer.device):
            _train(trainer, requests, limit, save_interval, viewer, timelapse, progress, keys)
        # Before the terminal is touched again: it may be gone.
        save_for_good(trainer)
    if not quiet:
        last = "" if trainer.figures is None else f" (loss {_losses(trainer.figures)})"
        logger.info("iteration %d saved to %s%s", trainer.iterations, trainer.model.io.model_dir, last)


def _train(
    trainer: Trainer,
    requests: Requests,
    limit: int,
    save_interval: int,
    viewer: Viewer | None,
    timelapse: bool,
    progress: Progress,
    keys: Keys,
) -> None:
    shows_preview = viewer is not None
    requests.running.set()
    trainer.loader.look_while_waiting(lambda: _stop_waiting(trainer, requests, keys))
    count = 0
    for count in range(1, limit + 1):
        due = count % save_interval == 0 or count == 1
        if requests.toggle_mask.is_set():
            requests.toggle_mask.clear()
            trainer.toggle_mask()
            shows_preview = True
        if requests.refresh.is_set():
            requests.refresh.clear()
            trainer.refresh_preview()
            shows_preview = True
        try:
            trainer.train_one_step(viewer if shows_preview else None, timelapse and due)
        except _StopWhileWaitingError:
            count -= 1
            break
        shows_preview = False
        _show(trainer, progress, count)
        keys.poll()
        if trainer.plugin.agree(requests.stop.is_set()) or count == limit:
            break
        if due or requests.save.is_set():
            requests.save.clear()
            trainer.save()
            shows_preview = viewer is not None
    trainer.fetch_figures()
    _show(trainer, progress, count)


class _StopWhileWaitingError(Exception):
    """A stop was asked for while the next batch was waited for."""


def _stop_waiting(trainer: Trainer, requests: Requests, keys: Keys) -> None:
    """Heed a stop although the next batch, and with it the end of the iteration, may be minutes away."""
    keys.poll()
    if not requests.stop.is_set():
        return
    if not trainer.plugin.acts_alone:
        trainer.loader.stop_waiting()
    elif trainer.iterations:
        raise _StopWhileWaitingError
    else:
        raise KeyboardInterrupt  # as before the run: there is nothing to save


def _show(trainer: Trainer, progress: Progress, count: int) -> None:
    figures = trainer.figures
    if figures is None or not trainer.take_news():
        return
    pace, waiting = trainer.pace.measure()
    data = f", {waiting:.0%} waiting for data" if waiting >= 0.1 else ""
    progress.advance(count - progress.done, f"#{figures.iteration:05d} loss {_losses(figures)}, {pace:.2f} it/s{data}")


def _losses(figures: IterationFigures) -> str:
    return " ".join(f"{label} {total:.5f}" for label, total in zip("AB", figures.totals, strict=False))
