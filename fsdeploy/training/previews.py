"""The previews and the time-lapse of a run. Training can do without them, so once it runs nothing about
them ever ends it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import torch

from fsdeploy.errors import InputError
from fsdeploy.images import write_image
from fsdeploy.training.data.scan import FolderScan
from fsdeploy.training.preview import Samples
from fsdeploy.training.preview_sheets import PreviewSheets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fsdeploy.model.base import ModelBase

logger = logging.getLogger(__name__)

Viewer = Callable[["NDArray[np.uint8]", str], None]


class Previews:
    """Makes sheets for a viewer, and the pictures of a time-lapse.

    Args:
        model: The model, built and on its device.
        device: Where it is.
        chunk: Faces that go through the model at once.
        seed: Fixes which faces are shown.
        scans: Scans at hand; a folder among them is not scanned again.
        folders: Faces (A, B) of the preview; None makes no previews.
        timelapse_folders: Faces (A, B) of the time-lapse; None makes none.
        timelapse_output: Folder for its pictures; made if it is missing.

    Raises:
        InputError: a folder holds no faces, or the time-lapse cannot be written.
        ConfigError: the mask colour is none.
    """

    def __init__(
        self,
        model: ModelBase,
        device: torch.device,
        chunk: int,
        seed: int,
        scans: Sequence[FolderScan],
        folders: Sequence[Path] | None,
        timelapse_folders: Sequence[Path] | None,
        timelapse_output: Path,
    ) -> None:
        look = model.training.augmentation
        has_mask = model.training.mask.learn_mask or model.training.loss.penalized_mask_loss
        self._samples = Samples(model.coverage_ratio, has_mask, look.mask_opacity, look.mask_color)

        def sheets(of: Sequence[Path], is_fixed: bool) -> PreviewSheets:
            return PreviewSheets(model, self._samples, of, device, is_fixed, chunk, seed, scans)

        self._sheets = sheets(folders, False) if folders else None
        self._timelapse = sheets(timelapse_folders, True) if timelapse_folders else None
        self._output = timelapse_output
        if self._timelapse is not None and (model.io.is_writer or not model.io.model_dir):
            _make_writable(timelapse_output)
        self._told: set[str] = set()

    def toggle_mask(self) -> None:
        """Switch the mask overlay on or off."""
        self._samples.toggle_mask_display()

    def refresh(self) -> None:
        """Show other faces from the next preview on."""
        if self._sheets is not None:
            self._sheets.refresh()

    def show(self, viewer: Viewer) -> NDArray[np.uint8] | None:
        """Make a sheet and hand it to the viewer.

        Returns:
            The sheet (H, W, 3) uint8 BGR; None if no previews are made or this one failed.
        """
        sheet = None
        if self._sheets is not None:
            with self._spared("preview"):
                sheet = self._sheets.make()
                viewer(sheet, "Training preview")
        return sheet

    def write_timelapse(self) -> None:
        """Write a picture of the time-lapse, if there is one: `<unix seconds>.jpg`."""
        if self._timelapse is not None:
            with self._spared("time-lapse"):
                write_image(self._output / f"{time.time():.0f}.jpg", self._timelapse.make())

    @contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """Say once that something failed; the next time may go well again."""
        try:
            yield
        except Exception as error:
            if what not in self._told:
                reason = str(error).partition("\n")[0] or type(error).__name__
                logger.warning("the %s failed, and training goes on without (said only once): %s", what, reason)
            self._told.add(what)


def _make_writable(folder: Path) -> None:
    """Find a wrong folder now: later, in the middle of a run, it would cost the pictures."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write the time-lapse into {folder}: {error.strerror}: name another folder with -z"
        ) from error
