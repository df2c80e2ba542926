"""Colour by hand."""

from dataclasses import dataclass

import cv2
import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import ColorPlugin, Float

# colour space -> (to, from, lowest value per channel, range per channel); RGB is BGR reversed
_SPACES = {
    "HSV": (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR, (0.0, 0.0, 0.0), (360.0, 1.0, 1.0)),
    "LAB": (cv2.COLOR_BGR2LAB, cv2.COLOR_LAB2BGR, (0.0, -127.0, -127.0), (100.0, 254.0, 254.0)),
    "YCrCb": (cv2.COLOR_BGR2YCrCb, cv2.COLOR_YCrCb2BGR, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "RGB": (cv2.COLOR_BGR2RGB, cv2.COLOR_RGB2BGR, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class ManualBalanceOptions:
    """Balance per channel, then contrast and brightness."""

    colorspace: str = option("HSV", "Colour space of the three balances.", choices=("RGB", "HSV", "LAB", "YCrCb"))
    balance_1: float = option(0.0, "First channel, in percent.", minimum=-100.0, maximum=100.0)
    balance_2: float = option(0.0, "Second channel, in percent.", minimum=-100.0, maximum=100.0)
    balance_3: float = option(0.0, "Third channel, in percent.", minimum=-100.0, maximum=100.0)
    contrast: float = option(0.0, "Contrast, in percent.", minimum=-100.0, maximum=100.0)
    brightness: float = option(0.0, "Brightness, in percent.", minimum=-100.0, maximum=100.0)


class ManualBalance(ColorPlugin):
    """Channels, contrast and brightness set by hand, in float."""

    Options = ManualBalanceOptions

    def __call__(self, target: Float, swapped: Float, mask: Float) -> Float:
        chosen = self.options
        forward, backward, lowest, span = _SPACES[chosen.colorspace]
        low, wide = np.array(lowest, np.float32), np.array(span, np.float32)
        unit = (np.asarray(cv2.cvtColor(np.clip(swapped, 0, 1), forward), np.float32) - low) / wide
        for channel, percent in enumerate((chosen.balance_1, chosen.balance_2, chosen.balance_3)):
            amount = percent / 100.0
            values = unit[..., channel]
            unit[..., channel] = values + (1.0 - values) * amount if amount >= 0 else values * (1.0 + amount)
        unit = np.clip(unit, 0.0, 1.0) * wide + low
        out = np.asarray(cv2.cvtColor(unit.astype(np.float32), backward))
        contrast = max(-126, round(1.27 * chosen.contrast))
        brightness = max(-126, round(1.27 * chosen.brightness))
        if contrast or brightness:
            out = out * (contrast / 127.0 + 1.0) + (brightness - contrast) / 255.0
        return np.asarray(np.clip(out, 0.0, 1.0), np.float32)
