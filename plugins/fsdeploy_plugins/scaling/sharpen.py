"""Sharpening of the swapped face, before it is pasted: nothing else of the frame is touched."""

from dataclasses import dataclass

import cv2
import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import Float, ScalingPlugin


@dataclass(frozen=True)
class SharpenOptions:
    """How much, and how wide."""

    method: str = option("unsharp_mask", "Way of sharpening.", choices=("box", "gaussian", "unsharp_mask"))
    amount: int = option(150, "Strength in percent.", minimum=0, maximum=500)
    radius: float = option(0.3, "Radius in percent of the frame's width.", minimum=0.05, maximum=5.0)
    threshold: float = option(
        5.0, "Unsharp mask only: differences below this many grey levels stay as they are.", minimum=0.0, maximum=255.0
    )


class Sharpen(ScalingPlugin):
    """Sharpens the swapped face by box, gaussian or unsharp mask."""

    Options = SharpenOptions

    def __call__(self, patch: Float, pixels_per_percent: float) -> Float:
        chosen = self.options
        radius = max(1, round(chosen.radius * pixels_per_percent))
        kernel = (2 * radius + 1, 2 * radius + 1)
        amount = chosen.amount / 100.0
        blurred = cv2.blur(patch, kernel) if chosen.method == "box" else cv2.GaussianBlur(patch, kernel, 0)
        detail = patch - np.asarray(blurred, np.float32)
        if chosen.method == "gaussian":
            amount /= 2.0
        if chosen.method == "unsharp_mask":
            detail = np.where(np.abs(detail) < chosen.threshold / 255.0, np.float32(0), detail)
        return patch + np.float32(amount) * detail
