"""The whole patch."""

import numpy as np

from fsdeploy.convert.plugin import Float, MaskInput, MaskSource


class NoMask(MaskSource):
    """The whole square patch, faded out at its border only."""

    def __call__(self, face: MaskInput) -> Float:
        return np.ones((face.size, face.size), np.float32)
