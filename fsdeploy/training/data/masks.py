"""Which masks a run needs. They travel by name, in this order, behind the three colours of a crop."""

from __future__ import annotations

from typing import Literal

from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import ConfigError

MaskName = Literal["face", "eye", "mouth"]
DRAWN_MASKS = frozenset({"components", "extended"})
"""Face masks that are drawn from landmarks; the others are stored in the face files."""


def mask_names(options: TrainingOptions) -> tuple[MaskName, ...]:
    """Masks that the loss or a learned mask asks for.

    Raises:
        ConfigError: a face mask is needed and `mask_type` is none.
    """
    penalized = options.loss.penalized_mask_loss
    names: list[MaskName] = []
    if penalized or options.mask.learn_mask:
        if options.mask.mask_type == "none":
            wanted = "penalized_mask_loss" if penalized else "learn_mask"
            raise ConfigError(
                f"option 'mask_type' is none but '{wanted}' needs a face mask: "
                f"choose a mask such as extended, or turn '{wanted}' off"
            )
        names.append("face")
    if penalized and options.loss.eye_multiplier > 1:
        names.append("eye")
    if penalized and options.loss.mouth_multiplier > 1:
        names.append("mouth")
    return tuple(names)
