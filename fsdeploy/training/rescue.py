"""Saving what was trained when a run ends by an error, whatever it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from fsdeploy.errors import InputError
from fsdeploy.training.memory import is_out_of_memory
from fsdeploy.training.train import NonFiniteLossError, Trainer

logger = logging.getLogger(__name__)

_RISEN = 2.0
"""Losses so many times the lowest average tell of a training that fell apart before it reached NaN."""
_RECENT = 10
_ATTEMPTS = 60
_RETRY_S = 10.0


def save_for_good(trainer: Trainer, with_optimizer: bool = True) -> None:
    """Save for the last time in a run. A folder that could be written before is tried for some minutes more, in which
    somebody may make room on a full disk.

    Raises:
        InputError: the folder cannot be written.
    """
    for attempt in range(_ATTEMPTS):
        try:
            trainer.save(is_exit=True, with_optimizer=with_optimizer)
            return
        except (InputError, OSError) as error:
            if not trainer.model.io.has_saved or attempt == _ATTEMPTS - 1:
                raise
            if attempt == 0:
                logger.error(
                    "%s; what was trained is still in memory, and saving is tried again for %.0f minutes (Ctrl-C "
                    "twice gives up)", error, _ATTEMPTS * _RETRY_S / 60,
                )  # fmt: skip
            time.sleep(_RETRY_S)


@contextmanager
def saving_on_errors(trainer: Trainer) -> Iterator[None]:
    """Save what was trained when the block ends by an error, and let the error go on. A model folder stays as it was
    when nothing was trained.

    After a loss that was not finite the iteration before it is saved, unless the losses had risen or a tensor is not
    finite: then the last saved set stays.
    """
    try:
        yield
    except BaseException as error:
        if trainer.model.io.is_writer:
            try:
                _rescue(trainer, error)
            except Exception as second:  # the first error tells more, and is what the user sees last
                reason = str(second).partition("\n")[0] or type(second).__name__
                logger.error("iteration %d could not be saved: %s", trainer.iterations, reason)
        raise


def _rescue(trainer: Trainer, error: BaseException) -> None:
    if is_out_of_memory(error) or (error.__cause__ is not None and is_out_of_memory(error.__cause__)):
        trainer.optimizer.drop_gradients()  # the save needs room
        if trainer.device.type == "cuda":
            torch.cuda.empty_cache()
    spoilt = error if isinstance(error, NonFiniteLossError) else None
    if spoilt is None:
        try:
            trainer.fetch_figures()
        except NonFiniteLossError as found:
            spoilt = found
    if (trainer.iterations if spoilt is None else spoilt.iteration - 1) <= _opened_at(trainer):
        return  # a new model of no iterations would only stand in the way of a smaller one
    if spoilt is None:
        _save(trainer)
    else:
        _save_before(trainer, spoilt.iteration)


def _opened_at(trainer: Trainer) -> int:
    """Iterations that the model had when the run began."""
    saved = trainer.model.io.saved
    return 0 if saved is None else int(saved.state["iterations"])


def _save(trainer: Trainer, with_optimizer: bool = True) -> None:
    try:
        save_for_good(trainer, with_optimizer)
    except Exception as error:
        if not (with_optimizer and is_out_of_memory(error)):
            raise
        logger.warning("there is no memory to save the state of the optimizer: the weights alone are saved")
        save_for_good(trainer, with_optimizer=False)
    logger.warning("iteration %d was saved", trainer.iterations)


def _save_before(trainer: Trainer, iteration: int) -> None:
    """Save the iteration before one that was not finite; no update has reached the weights since."""
    recent = trainer.model.io.history[-_RECENT:]
    lowest = trainer.model.state.lowest_avg_loss
    if recent and lowest and sum(recent) / len(recent) > _RISEN * lowest:
        logger.warning("the losses had risen to %.5f before: the last saved set stays", sum(recent) / len(recent))
        return
    if not _is_finite(trainer.model.model.state_dict()):
        logger.warning("the model holds values that are not finite: the last saved set stays")
        return
    trainer.optimizer.drop_gradients()
    trainer.model.state.take_back_iterations(trainer.iterations - (iteration - 1))
    _save(trainer, with_optimizer=_is_finite(trainer.optimizer.state_tensors()[0]))


def _is_finite(tensors: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())
