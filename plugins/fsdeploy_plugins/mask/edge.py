"""How the edge of a mask is made: erosion, softening, and a window that ends at the patch's border."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import Float, MaskEdge


@dataclass(frozen=True)
class ErosionOptions:
    """Percent of the mask's size that is taken off (positive) or added (negative)."""

    erosion: float = option(0.0, "All round, in percent of the mask's half edge.", minimum=-100.0, maximum=100.0)
    erosion_left: float = option(0.0, "At the left side, in percent.", minimum=-100.0, maximum=100.0)
    erosion_top: float = option(0.0, "At the top, in percent.", minimum=-100.0, maximum=100.0)
    erosion_right: float = option(0.0, "At the right side, in percent.", minimum=-100.0, maximum=100.0)
    erosion_bottom: float = option(0.0, "At the bottom, in percent.", minimum=-100.0, maximum=100.0)
    threshold: int = option(4, "Percent at either end of a soft mask that is cut to out or in.", minimum=0, maximum=50)


@dataclass(frozen=True)
class FeatherOptions(ErosionOptions):
    """A soft edge inside the mask, in proportion to the face."""

    width: float = option(3.0, "Width of the soft edge in percent of the patch.", minimum=0.0, maximum=25.0)


@dataclass(frozen=True)
class BlendOptions(ErosionOptions):
    """A soft edge by blurring, as the original program makes it."""

    type: str = option("normalized", "Kind of blur.", choices=("gaussian", "normalized", "none"))
    kernel_size: int = option(3, "Blur kernel in patch pixels.", minimum=1, maximum=9)
    passes: int = option(4, "How often the blur is repeated.", minimum=1, maximum=8)
    window: str = option(
        "zero", "How the patch's border fades: down to nothing, or as the original (7 % remain).",
        choices=("zero", "original"),
    )  # fmt: skip


def cut(mask: Float, percent: float) -> Float:
    """Values within `percent` of 0 become 0, within `percent` of 1 become 1."""
    if percent <= 0:
        return mask
    limit = percent / 100.0
    mask = np.where(mask < limit, np.float32(0), mask)
    return np.where(mask > 1.0 - limit, np.float32(1), mask)


def erode(mask: Float, options: ErosionOptions) -> Float:
    """Erode (positive) or dilate (negative) all round and by side; sizes are percent of half the mask's edge."""
    radius = float(np.sqrt(mask.sum())) / 2.0
    # option -> (kernel of a size, anchor when eroding, anchor when dilating); -1 is the centre
    for value, side in (
        (options.erosion, "all"),
        (options.erosion_left, "left"),
        (options.erosion_top, "top"),
        (options.erosion_right, "right"),
        (options.erosion_bottom, "bottom"),
    ):
        size = int(abs(value) / 100.0 * radius)
        if not size:
            continue
        kernel, anchor = _kernel(side, size, value > 0)
        change = cv2.erode if value > 0 else cv2.dilate
        mask = np.asarray(change(mask, kernel, anchor=anchor, iterations=1), np.float32)
    return mask


def _kernel(side: str, size: int, eroding: bool) -> tuple[np.ndarray, tuple[int, int]]:
    first, last = (size - 1, 0) if eroding else (0, size - 1)
    if side == "all":
        return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), (-1, -1)
    if side in ("left", "right"):
        return np.ones((1, size), np.uint8), (first if side == "left" else last, 0)
    return np.ones((size, 1), np.uint8), (0, first if side == "top" else last)


@lru_cache(maxsize=16)
def zero_window(size: int) -> Float:
    """(S, S) window: 1 inside, smoothly to exactly 0 on the outermost pixels, over 6 % of the edge."""
    ramp = max(2.0, 0.06 * size)
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) / ramp
    side = smoothstep(distance.astype(np.float32))
    return np.outer(side, side).astype(np.float32)


@lru_cache(maxsize=16)
def original_window(size: int, blurred: bool) -> Float:
    """(S, S) window of the original program: a blurred box that leaves about 7 % on the outermost pixels."""
    edge = size // 32 + 1
    box = np.zeros((size, size), np.float32)
    box[edge:-edge, edge:-edge] = 1.0
    if blurred:
        kernel = 2 * round(max(1.0, 0.06 * (size - 2 * edge))) + 1
        box = np.asarray(cv2.GaussianBlur(box, (kernel, kernel), 0), np.float32)
    return box


def smoothstep(x: Float) -> Float:
    """3x^2 - 2x^3 on 0..1, constant outside."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


class Feather(MaskEdge):
    """A soft edge inside the mask, as wide as a share of the face: the same look at every model size."""

    Options = FeatherOptions

    def __call__(self, mask: Float, drawn: bool) -> tuple[Float, Float]:
        window = zero_window(mask.shape[0])
        if not drawn:
            return mask, window
        raw = cut(mask, self.options.threshold)
        final = erode(raw, self.options)
        width = self.options.width / 100.0 * mask.shape[0]
        if width > 0:
            inside = (final >= 0.5).astype(np.uint8)
            # Beyond the patch counts as inside: the window alone fades the patch's border.
            padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
            distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
            final = np.minimum(final, smoothstep(np.asarray(distance, np.float32) / np.float32(width + 0.5)))
        return raw, final * window


class Blend(MaskEdge):
    """A soft edge by repeated blurs of some pixels, as the original program makes it."""

    Options = BlendOptions

    def __call__(self, mask: Float, drawn: bool) -> tuple[Float, Float]:
        original = self.options.window == "original"
        size = mask.shape[0]
        if not drawn:
            return mask, mask if original else zero_window(size)
        raw = self._blur(mask if original else cut(mask, self.options.threshold))
        window = original_window(size, self.options.type != "none") if original else zero_window(size)
        return raw, np.minimum(erode(raw, self.options), window)

    def _blur(self, mask: Float) -> Float:
        if self.options.type == "none":
            return mask
        gaussian = self.options.type == "gaussian"
        kernel = self.options.kernel_size | 1
        for _ in range(self.options.passes):
            size = (kernel, kernel)
            mask = np.asarray(cv2.GaussianBlur(mask, size, 0) if gaussian else cv2.blur(mask, size), np.float32)
            kernel = round(kernel * (0.8 if gaussian else 0.5)) | 1
        return mask
