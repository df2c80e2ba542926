"""Masks drawn from the landmarks of the face."""

from typing import ClassVar, Literal

import numpy as np

from fsdeploy.convert.plugin import Float, MaskInput, MaskSource
from fsdeploy.faces.masks import landmark_mask


class ComponentsMask(MaskSource):
    """Jaw, cheeks, eyes and nose up to the brows, drawn from the landmarks."""

    kind: ClassVar[Literal["components", "extended"]] = "components"

    def __call__(self, face: MaskInput) -> Float | None:
        if len(face.landmarks) != 68:
            return None
        return landmark_mask(self.kind, face.landmarks, face.size).astype(np.float32) / np.float32(255.0)


class ExtendedMask(ComponentsMask):
    """As components, with the brows raised onto the forehead."""

    kind = "extended"
