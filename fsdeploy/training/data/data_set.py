"""Data sets: one identity's faces for training or preview, and several identities side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import InputError
from fsdeploy.images import read_image
from fsdeploy.training.data.cache import CropCache
from fsdeploy.training.data.collate import ColorOrder
from fsdeploy.training.data.crop import CropSpec
from fsdeploy.training.data.files import get_label, get_sorted_images, to_float32
from fsdeploy.training.data.masks import mask_names
from fsdeploy.training.data.sampler import FaceStream
from fsdeploy.training.data.scan import FolderScan, scan_folder

__all__ = ["MultiDataset", "PreviewSet", "TrainSet", "get_label", "get_sorted_images", "to_float32"]

_LOG = logging.getLogger(__name__)


class TrainSet:
    """One identity's crops for training.

    Args:
        side: label of the identity, for messages.
        image_folder: folder of face PNGs.
        size: edge P of the crops: the largest of the model's input and outputs.
        options: crop, masks; the defaults if None.
        scan: the folder's scan, if it is at hand.
        cache_budget: bytes of crops to keep; 0 makes every crop anew.
        cache_file: file to keep them in; in memory if None.

    Raises:
        InputError: the folder holds no usable face.
    """

    def __init__(
        self,
        side: str,
        image_folder: str | Path,
        size: int,
        *,
        options: TrainingOptions | None = None,
        scan: FolderScan | None = None,
        cache_budget: int = 0,
        cache_file: Path | None = None,
    ) -> None:
        options = options or TrainingOptions()
        self.side = side
        self.scan = scan or scan_folder(Path(image_folder), options)
        self.scan.require(1)
        self.spec = CropSpec.from_options(options, size)
        self.faces = self.scan.faces
        self._bad: set[int] = set()
        digests = [self.spec.digest(face) for face in self.faces] if cache_budget else []
        self.cache = CropCache(digests, self.spec.row_bytes, cache_budget, cache_file) if digests else None

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        """Crop and masks (P, P, 3 + masks) uint8 BGR, and the face's index."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        face, masks = self.crop(index % len(self))
        return np.concatenate([face, np.moveaxis(masks, 0, 2)], axis=2), index

    def crop(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Crop (P, P, 3) BGR and masks (masks, P, P), both uint8 and not to be written to. Safe in any thread.

        A file that has become unreadable since the scan is reported once and replaced by the next sound face.

        Raises:
            InputError: no face of the folder can be read any more.
        """
        for candidate in range(index, index + len(self)):
            row = self._row(candidate % len(self))
            if row is not None:
                return self.spec.split(row)
        raise InputError(f"{self.scan.folder}: none of its {len(self)} faces can be read any more: check the disk")

    def _row(self, index: int) -> NDArray[np.uint8] | None:
        if index in self._bad:
            return None
        kept = self.cache.get(index) if self.cache else None
        if kept is not None:
            return kept
        try:
            row = self.spec.cut(self.faces[index])
        except InputError as error:
            self._bad.add(index)
            _LOG.warning("%s skipped: %s", self.side, error)
            return None
        if self.cache:
            self.cache.put(index, row)
        return row


class PreviewSet:
    """One identity's faces for previews and time-lapses: feed at the model's coverage, target at full coverage.

    Args:
        side: label of the identity.
        image_folder: folder of face PNGs.
        input_size: edge I of the feed.
        output_size: edge O of the model's largest output; the target's edge F shows it at true scale.
        color_order: channel order of the model.
        num_images: the first so many faces in order of name; 0 takes all.
        options: crop and mask; the defaults if None.
        scan: the folder's scan, if it is at hand.

    Raises:
        InputError: the folder holds no usable face.
    """

    def __init__(
        self,
        side: str,
        image_folder: str | Path,
        input_size: int,
        output_size: int,
        color_order: ColorOrder,
        num_images: int = 0,
        *,
        options: TrainingOptions | None = None,
        scan: FolderScan | None = None,
    ) -> None:
        options = options or TrainingOptions()
        self.side = side
        scan = scan or scan_folder(Path(image_folder), options)
        scan.require(1)
        self.faces = scan.faces[: num_images or None]
        spec = CropSpec.from_options(options, input_size)
        self.full_size = 2 * round(output_size / spec.coverage / 2)
        self._feed = spec.at(input_size, spec.coverage, ())
        has_mask = "face" in mask_names(options)
        self._target = spec.at(self.full_size, 1.0, ("face",) if has_mask else ())
        self._order = slice(None, None, -1 if color_order == "rgb" else 1)

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Feed (I, I, 3) and target (F, F, 4) with the face mask (all ones without one), float32 0..1.

        A file that has become unreadable since the scan is replaced by the next sound face.

        Raises:
            InputError: no face can be read any more.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        for candidate in range(index, index + len(self)):
            face = self.faces[candidate % len(self)]
            try:
                image = read_image(face.path)
                return self._item(self._feed.cut(face, image), self._target.cut(face, image))
            except InputError as error:
                _LOG.warning("%s skipped in a preview: %s", self.side, error)
        raise InputError(f"none of the {len(self)} preview faces of {self.side} can be read any more: check the disk")

    def _item(
        self, feed_row: NDArray[np.uint8], target_row: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        feed, _ = self._feed.split(feed_row)
        colour, masks = self._target.split(target_row)
        mask = masks[0] if len(masks) else np.full(colour.shape[:2], 255, np.uint8)
        target = np.concatenate([colour[..., self._order], mask[..., None]], axis=2)
        return to_float32(feed[..., self._order]), to_float32(target)


class SideSet(Protocol):
    """One identity's data set: items are pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[NDArray[np.generic], object]: ...


class MultiDataset:
    """Data sets of several identities side by side. Its length is the longest one's.

    Args:
        datasets: one per identity, in order.
        is_random: True pairs faces at random, every face of a data set once before any repeats; False pairs by index.
        seed: fixes the pairing of every epoch.
    """

    def __init__(self, datasets: Sequence[SideSet], is_random: bool = True, seed: int = 0) -> None:
        self.datasets = tuple(datasets)
        self._streams = [FaceStream(len(dataset), seed, i) for i, dataset in enumerate(self.datasets)]
        self._is_random = is_random
        self._epoch = -1
        self.shuffle()

    def __len__(self) -> int:
        return max(map(len, self.datasets))

    def shuffle(self) -> None:
        """Pair the faces anew, for the next epoch."""
        self._epoch += 1
        length = len(self)
        self._table = np.stack([stream.take(self._epoch * length, length) for stream in self._streams])

    def __getitem__(self, index: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        """The items of all identities, stacked: for training (identities, P, P, 3 + masks) uint8 and (identities,)
        face indices; for previews (identities, I, I, 3) and (identities, F, F, 4)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = self._table[:, index] if self._is_random else [index % len(dataset) for dataset in self.datasets]
        items = [dataset[int(row)] for dataset, row in zip(self.datasets, rows, strict=True)]
        return np.stack([first for first, _ in items]), np.stack([np.asarray(second) for _, second in items])
