"""Data sets: one identity's faces for training or preview, and several identities side by side."""

from __future__ import annotations

import logging
import os
import time
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
from fsdeploy.training.data.outage import Outage
from fsdeploy.training.data.sampler import FaceStream
from fsdeploy.training.data.scan import FolderScan, scan_folder

__all__ = ["MultiDataset", "PreviewSet", "TrainSet", "get_label", "get_sorted_images", "to_float32"]

_LOG = logging.getLogger(__name__)
_REST_S = 60.0
"""Seconds until a single file that the storage refused is tried again."""
_MOST_REFUSED = 8
"""Files that a preview tries when the storage refuses them."""


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
        self._resting: dict[int, float] = {}
        self._outage = Outage(self.scan.folder)
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

        A file that has become unreadable since the scan is reported once and replaced by the next sound face. While the
        whole storage is away, this waits for it; after `outage.PATIENCE_S` a crop that was kept takes the place.

        Raises:
            InputError: no face of the folder can be read any more, and none was kept.
        """
        row = self._row(index)
        while row is None and len(self._bad) < len(self) and self._outage.wait():
            row = self._row(index)
        if row is None:
            row = self._kept_near(index)
        if row is None:
            raise InputError(
                f"{self.scan.folder}: none of its {len(self)} faces can be read any more: check the disk or the network"
            )
        return self.spec.split(row)

    def stop_waiting(self) -> None:
        """Have threads that wait for the storage give up, now and later."""
        self._outage.close()

    def close(self) -> None:
        """Let go of the kept crops; threads that wait for the storage give up."""
        self.stop_waiting()
        if self.cache:
            self.cache.close()

    def _row(self, index: int) -> NDArray[np.uint8] | None:
        """The row of a face, or of the next sound one; None while the storage is away, or when no file is sound."""
        refused: InputError | None = None
        for candidate in range(index, index + len(self)):
            face = candidate % len(self)
            kept = self._kept(face)
            if kept is not None:
                return kept
            if face in self._bad or self._rests(face):
                continue
            if not self._outage.may_ask():
                return None
            try:
                row = self.spec.cut(self.faces[face])
            except InputError as error:
                if not self._is_of_the_storage(error):
                    self._bad.add(face)
                    self._outage.answered()
                    _LOG.warning("%s skipped: %s", self.side, error)
                    continue
                refused = error
                if self._outage.failed(error):
                    if not self._another_answers(face):
                        self._resting.clear()  # it was not these files' fault
                    return None  # even if another answers: the storage may have come back in between
                self._let_rest(face, error)
                continue
            self._outage.answered()
            if self.cache:
                self.cache.put(face, row)
            return row
        if len(self._bad) < len(self):
            self._outage.begin(refused or InputError("its files were refused"))
            self._resting.clear()
        return None

    def _kept(self, face: int) -> NDArray[np.uint8] | None:
        return self.cache.get(face) if self.cache else None

    def _kept_near(self, index: int) -> NDArray[np.uint8] | None:
        rows = (self._kept(candidate % len(self)) for candidate in range(index, index + len(self)))
        return next((row for row in rows if row is not None), None)

    def _is_of_the_storage(self, error: InputError) -> bool:
        """Whether a file could not be read at all, and was not simply deleted: then it may come back."""
        if not isinstance(error.__cause__, OSError):
            return False
        if not isinstance(error.__cause__, FileNotFoundError):
            return True
        try:
            with os.scandir(self.scan.folder) as entries:  # a share that went away leaves no folder, or an empty one
                return next(entries, None) is None
        except OSError:
            return True

    def _another_answers(self, face: int) -> bool:
        """Whether the storage gives a file from elsewhere in the folder, so that it is not away after all."""
        try:
            read_image(self.faces[(face + len(self) // 2) % len(self)].path)
        except InputError as error:
            if self._is_of_the_storage(error):
                return False
        self._outage.answered()
        return True

    def _let_rest(self, face: int, error: InputError) -> None:
        if face not in self._resting:
            _LOG.warning("%s skipped for now: %s", self.side, error)
        self._resting[face] = time.monotonic() + _REST_S

    def _rests(self, face: int) -> bool:
        return time.monotonic() < self._resting.get(face, 0.0)


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
        refused = 0
        for candidate in range(index, index + len(self)):
            face = self.faces[candidate % len(self)]
            try:
                image = read_image(face.path)
                return self._item(self._feed.cut(face, image), self._target.cut(face, image))
            except InputError as error:
                refused += isinstance(error.__cause__, OSError)
                if refused > _MOST_REFUSED:
                    raise InputError(
                        f"no preview: the faces of {self.side} cannot be read ({error}): check the disk or the network"
                    ) from error
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
