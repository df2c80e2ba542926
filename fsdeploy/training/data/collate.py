"""From cropped faces to what a trainer gets: feeds, targets and masks of one batch, varied on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Generic, Literal, Protocol, Self, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fsdeploy.config.training import TrainingOptions
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.data.augmentation import ConstantsAugmentation, Draw, FaceVariation, Variation
from fsdeploy.training.data.files import to_float32
from fsdeploy.training.data.landmark_matcher import LandmarkMatcher
from fsdeploy.training.data.masks import MaskName, mask_names
from fsdeploy.training.data.sampler import batch_random

__all__ = ["BatchMaker", "BatchMeta", "Collate", "LandmarkMatcher", "RawBatch", "TrainBatch"]

ColorOrder = Literal["bgr", "rgb"]


@dataclass
class BatchMeta:
    """Masks of one batch: one tensor per model output (B, identities, 1, H, W) float32 0..1, or None if not in use."""

    mask_face: list[torch.Tensor] | None = None
    """Face mask of a penalized loss or a learned mask."""
    mask_eye: list[torch.Tensor] | None = None
    """Eye mask, if eyes weigh more."""
    mask_mouth: list[torch.Tensor] | None = None
    """Mouth mask, if the mouth weighs more."""

    def __getitem__(self, identity: int) -> BatchMeta:
        """The masks of one identity: tensors (B, 1, H, W)."""
        masks = {field.name: getattr(self, field.name) for field in fields(self)}
        return BatchMeta(
            **{name: None if mask is None else [tensor[:, identity] for tensor in mask] for name, mask in masks.items()}
        )

    def to(self, device: str | torch.device) -> Self:
        """Move all tensors to `device`, in place; returns itself."""
        for field in fields(self):
            mask = getattr(self, field.name)
            if mask is not None:
                setattr(self, field.name, [tensor.to(device, non_blocking=True) for tensor in mask])
        return self


TrainBatch = tuple[list[torch.Tensor], list[torch.Tensor], BatchMeta]
"""(feeds, targets, meta): per identity (B, 3, I, I); per output (B, identities, 3, O, O), then the learned mask."""

Raw = TypeVar("Raw")


class BatchMaker(Protocol, Generic[Raw]):
    """How a batch comes to be: `start` in the main thread, `fill` per row in any thread, `finish` in the main one."""

    def start(self, indices: NDArray[np.int64], random: np.random.Generator) -> Raw: ...

    def fill(self, raw: Raw, row: int, face: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None: ...

    def finish(self, raw: Raw) -> TrainBatch: ...

    def raw_bytes(self, identities: int) -> int: ...


@dataclass
class RawBatch:
    """One batch as uint8, ready but for its conversion to float."""

    feed: NDArray[np.uint8]
    """(identities, B, 3, I, I)."""
    targets: list[NDArray[np.uint8]]
    """Per output (B, identities, 3, O, O)."""
    masks: list[NDArray[np.uint8]]
    """Per output (masks, B, identities, 1, O, O)."""
    variation: FaceVariation


class Collate:
    """Makes batches: colour, transform, flip, targets and masks, then the warped feed.

    Only the feed is warped. Every crop is interpolated once for its target and once for its feed.

    Args:
        input_size: edge I of the feed.
        output_sizes: edge of each model output.
        color_order: channel order of the model.
        config: batch size and which variations are on.
        landmarks: partners for a warp to landmarks; None warps by random noise.
        options: ranges of the variations and which masks there are.
        device: where the tensors shall be; conversion to float happens there.
        seed: random numbers of batches made by calling the object.
    """

    def __init__(
        self,
        input_size: int,
        output_sizes: Sequence[int],
        color_order: ColorOrder,
        config: TrainConfig,
        landmarks: LandmarkMatcher | None = None,
        *,
        options: TrainingOptions | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        options = options or TrainingOptions()
        self.device = torch.device(device)
        self.input_size = input_size
        self.output_sizes = tuple(output_sizes)
        self.size = max(input_size, *self.output_sizes)
        self.mask_names: tuple[MaskName, ...] = mask_names(options)
        self.learn_mask = options.mask.learn_mask
        self.batch_size = config.batch_size
        self.reversed_colors = color_order == "rgb"
        self._order = slice(None, None, -1 if self.reversed_colors else 1)
        self._config = config
        self._landmarks = landmarks
        self.constants = ConstantsAugmentation.from_config(self.size, 1, options.augmentation)
        self._draw = Draw(self.constants, self.size)
        self._seed = seed
        self._calls = 0

    def __call__(self, data: Sequence[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> TrainBatch:
        """Make a batch from samples: B times (identities, P, P, 3 + masks) uint8 BGR and (identities,) file indices."""
        indices = np.stack([index for _, index in data], axis=1)
        raw = self.start(indices, batch_random(self._seed, self._calls))
        self._calls += 1
        identities, count = indices.shape
        for row in range(identities * count):
            identity, item = divmod(row, count)
            crop = data[item][0][identity]
            masks = np.ascontiguousarray(np.moveaxis(crop[..., 3:], 2, 0))
            self.fill(raw, row, np.ascontiguousarray(crop[..., :3]), masks)
        return self.finish(raw)

    def vary(self, indices: NDArray[np.int64], random: np.random.Generator) -> Variation:
        """The random numbers of a batch with face indices (identities, B)."""
        landmarks = None
        if self._config.warp and self._landmarks is not None:
            landmarks = self._landmarks.get_close_landmarks(indices, random)
        return self._draw.batch(
            random,
            indices.size,
            color=self._config.augment_color,
            flip=self._config.flip,
            warp=self._config.warp,
            landmarks=landmarks,
        )

    def start(self, indices: NDArray[np.int64], random: np.random.Generator) -> RawBatch:
        """Draw the numbers of a batch with face indices (identities, B) and make room for its rows."""
        identities, count = indices.shape
        return RawBatch(
            feed=np.empty((identities, count, 3, self.input_size, self.input_size), np.uint8),
            targets=[np.empty((count, identities, 3, o, o), np.uint8) for o in self.output_sizes],
            masks=[np.empty((len(self.mask_names), count, identities, 1, o, o), np.uint8) for o in self.output_sizes],
            variation=FaceVariation(self.vary(indices, random), self.constants, self.size),
        )

    def fill(self, raw: RawBatch, row: int, face: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
        """Make row `row` (identity-major) from its crop: face (P, P, 3) BGR and masks (M, P, P)."""
        identity, item = divmod(row, raw.feed.shape[1])
        varied = raw.variation
        picture = varied.picture(row, face, masks[0] if len(masks) else None)
        target = varied.target(row, picture)
        others = varied.spots(row, masks[1:]) if len(masks) > 1 else None
        for colours, planes, edge in zip(raw.targets, raw.masks, self.output_sizes, strict=True):
            write_planes(_shrink(target, edge), colours[item, identity][self._order], planes[:1, item, identity, 0])
            if others is not None:
                shrunk = _shrink(others, edge)
                for channel, plane in enumerate(planes[1:, item, identity, 0]):
                    cv2.extractChannel(shrunk, channel, plane)
        feed = varied.feed(row, picture, target)
        write_planes(_shrink(feed, self.input_size), raw.feed[identity, item][self._order])

    def finish(self, raw: RawBatch) -> TrainBatch:
        """The batch as float32 0..1 tensors. Uses `raw` up: its bytes are let go as they are converted."""
        targets = [_to_tensor(raw.targets.pop(0), self.device) for _ in self.output_sizes]
        masks = [_to_tensor(raw.masks.pop(0), self.device) for _ in self.output_sizes]
        return assemble(_to_tensor(raw.feed, self.device), targets, masks, self.mask_names, self.learn_mask)

    def raw_bytes(self, identities: int) -> int:
        """Memory of one `RawBatch`."""
        row = 3 * self.input_size**2 + sum((3 + len(self.mask_names)) * o**2 for o in self.output_sizes)
        return row * identities * self.batch_size


def assemble(
    feed: torch.Tensor,
    targets: list[torch.Tensor],
    masks: list[torch.Tensor],
    names: tuple[MaskName, ...],
    learn_mask: bool,
) -> TrainBatch:
    """A trainer's batch from feed (identities, B, 3, I, I), targets per output (B, identities, 3, O, O) and masks per
    output (masks, B, identities, 1, O, O)."""
    by_name = {name: [mask[i] for mask in masks] for i, name in enumerate(names)}
    meta = BatchMeta(by_name.get("face"), by_name.get("eye"), by_name.get("mouth"))
    if learn_mask:
        targets = [*targets, by_name["face"][-1]]
    return list(feed), targets, meta


def _shrink(image: NDArray[np.uint8], edge: int) -> NDArray[np.uint8]:
    """Area-averaged copy of a square image (S, S, C); the image itself if it has that edge."""
    if len(image) == edge:
        return image
    resized = cv2.resize(image, (edge, edge), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8).reshape(edge, edge, -1)


def write_planes(picture: NDArray[np.uint8], colours: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> None:
    """Write the channels of a picture (S, S, 4) into colours (3, S, S) and, if there is one, mask (0 or 1, S, S)."""
    fourth = mask[0] if mask is not None and len(mask) else np.empty(picture.shape[:2], np.uint8)
    cv2.split(picture, [*colours, fourth])


def _to_tensor(levels: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Level / 255 in float32, exactly on the CPU. A device gets bytes and divides itself."""
    if device.type == "cpu":
        return torch.from_numpy(to_float32(levels))
    return torch.from_numpy(levels).to(device, non_blocking=True).float().div_(255)
