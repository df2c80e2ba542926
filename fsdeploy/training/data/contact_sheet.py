"""A picture of one batch: what the model is fed, what it shall answer, and the masks that weigh its errors."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fsdeploy.training.data.collate import BatchMeta, ColorOrder
from fsdeploy.training.data.files import get_label

_LABEL_WIDTH = 132
_HEADER = 26
_WHITE = 255
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(
    feeds: list[Tensor], targets: list[Tensor], meta: BatchMeta, names: list[str], color_order: ColorOrder = "bgr"
) -> NDArray[np.uint8]:
    """Draw a batch: per identity a row each of feeds, targets and masks, one face per column, with labels.

    Args:
        feeds, targets, meta: of `TrainLoader`; of several outputs the last is shown.
        names: what is written over each identity.
        color_order: channel order of the tensors.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    colours = [target for target in targets if target.shape[2] == 3]
    edge = max(feeds[0].shape[-1], colours[-1].shape[-1])
    rows = []
    for i, (feed, name) in enumerate(zip(feeds, names, strict=True)):
        target = _bgr(colours[-1][:, i], color_order)
        rows.append(_header(f"{get_label(i, len(feeds))}: {name}", _LABEL_WIDTH + edge * len(feed)))
        rows.append(_row("feed", _bgr(feed, color_order), edge))
        rows.append(_row("target", target, edge))
        own = meta[i]
        for label, mask in (("face mask", own.mask_face), ("eye mask", own.mask_eye), ("mouth mask", own.mask_mouth)):
            if mask is not None:
                rows.append(_row(label, _tinted(target, mask[-1]), edge))
    return np.concatenate(rows)


def _bgr(images: Tensor, color_order: ColorOrder) -> NDArray[np.float32]:
    """(B, 3, S, S) in the model's colours -> (B, S, S, 3) BGR."""
    channels = images.detach().cpu().permute(0, 2, 3, 1).numpy()
    return np.asarray(channels[..., ::-1] if color_order == "rgb" else channels, np.float32)


def _tinted(target: NDArray[np.float32], mask: Tensor) -> NDArray[np.float32]:
    """Targets (B, S, S, 3) darkened outside their mask (B, 1, S, S), so that one sees whether it fits the face."""
    share = mask.detach().cpu().permute(0, 2, 3, 1).numpy()
    return np.asarray(target * (0.25 + 0.75 * share) + 0.15 * share, np.float32)


def _row(label: str, images: NDArray[np.float32], edge: int) -> NDArray[np.uint8]:
    levels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    faces = [cv2.resize(image, (edge, edge), interpolation=cv2.INTER_NEAREST) for image in levels]
    side = np.full((edge, _LABEL_WIDTH, 3), _WHITE, np.uint8)
    cv2.putText(side, label, (8, edge // 2 + 5), _FONT, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([side, *faces], axis=1)


def _header(text: str, width: int) -> NDArray[np.uint8]:
    strip = np.full((_HEADER, width, 3), _WHITE, np.uint8)
    cv2.putText(strip, text, (8, _HEADER - 8), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
