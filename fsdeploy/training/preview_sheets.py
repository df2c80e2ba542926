"""Runs preview faces through the model and compiles the sheets: for the preview window and the time-lapse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import RandomSampler, SequentialSampler

from fsdeploy.training.data.loader import PreviewLoader
from fsdeploy.training.data.scan import FolderScan
from fsdeploy.training.preview import Samples

if TYPE_CHECKING:
    from fsdeploy.model.base import ModelBase


class PreviewSheets:
    """Sheets of faces, their reconstructions and their swaps.

    Making one changes nothing in the training: neither weights nor statistics nor random numbers. All sheets show the
    same faces, which are kept in memory, until others are asked for.

    Args:
        model: The model, built.
        samples: Compiles the sheets; may be shared.
        folders: Faces per side.
        device: Where the model is.
        is_fixed: The first faces, for a time-lapse; else random ones.
        chunk: Faces that go through the model at once.
        seed: Fixes the order of random faces.
        scans: Scans at hand; a folder among them is not scanned again.
    """

    def __init__(
        self,
        model: ModelBase,
        samples: Samples,
        folders: Sequence[Path],
        device: torch.device,
        is_fixed: bool,
        chunk: int,
        seed: int = 0,
        scans: Sequence[FolderScan] = (),
    ) -> None:
        self._model, self._samples, self._device, self._chunk = model, samples, device, chunk
        info = model.info()
        count = model.training.augmentation.preview_images
        self._flip = info.color_order == "rgb"
        self._faces: tuple[Tensor, Tensor] | None = None
        self._wants_others = False
        with torch.random.fork_rng(devices=[]):
            self._loader = PreviewLoader(
                info.input_size,
                info.output_size,
                info.color_order,  # type: ignore[arg-type]
                folders,
                count,
                SequentialSampler if is_fixed else RandomSampler,
                count if is_fixed else 0,
                options=model.training,
                scans=scans,
                seed=seed,
            )

    def refresh(self) -> None:
        """Show other faces from the next sheet on. Nothing changes for a time-lapse."""
        self._wants_others = True

    def make(self) -> NDArray[np.uint8]:
        """A sheet (H, W, 3) uint8 BGR of the model as it is now.

        Raises:
            InputError: the faces cannot be read; those of the sheet before are kept.
        """
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            feeds, targets = self._shown_faces()
            with _in_eval_mode(self._model.model):
                predictions = self._predict(feeds.permute(0, 1, 4, 2, 3))
        faces = targets.numpy()
        if self._flip:
            predictions[..., :3] = predictions[..., 2::-1].copy()
            faces = np.concatenate([faces[..., 2::-1], faces[..., 3:]], axis=-1)
        return self._samples.get_preview(predictions, faces)

    def _shown_faces(self) -> tuple[Tensor, Tensor]:
        """Feeds (sides, B, I, I, 3) and targets (sides, B, F, F, 4)."""
        wants_others, self._wants_others = self._wants_others, False
        if self._faces is None or wants_others:
            self._faces = next(self._loader)
        return self._faces

    def _predict(self, feeds: Tensor) -> NDArray[np.float32]:
        """(sides, sides, B, O, O, 3 or 4): [source, j] is source's face through the path of (source + j) mod sides."""
        sides = len(feeds)
        rows = [
            [self._swap(feeds[source], (source + step) % sides) for step in range(sides)] for source in range(sides)
        ]
        return np.asarray(rows, np.float32)

    def _swap(self, faces: Tensor, side: int) -> NDArray[np.float32]:
        parts = []
        for chunk in torch.split(faces, self._chunk):
            outputs = self._model.model.swap(chunk.to(self._device).contiguous(), side)
            largest = max((output for output in outputs if output.shape[1] == 3), key=lambda output: output.shape[2])
            masks = [output for output in outputs if output.shape[1] == 1]
            parts.append(torch.cat([largest, *masks], dim=1).permute(0, 2, 3, 1).float().cpu())
        joined: NDArray[np.float32] = torch.cat(parts).numpy()
        return joined


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode; every module is given back in its own mode, whatever happens."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
