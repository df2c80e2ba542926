"""The outline of the landmarks, as exported whole-frame graphs draw it."""

from fsdeploy.convert.plugin import Float, MaskInput, MaskSource
from fsdeploy.runtime.mask import hull_mask


class HullMask(MaskSource):
    """The hull of all 68 landmarks with raised brows; the same mask as in `fsdeploy export --graph frame`."""

    def __call__(self, face: MaskInput) -> Float | None:
        return hull_mask(face.landmarks, face.size) if len(face.landmarks) == 68 else None
