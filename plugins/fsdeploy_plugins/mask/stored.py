"""Masks that were stored with the face when it was extracted."""

from dataclasses import dataclass

import numpy as np

from fsdeploy.config.option import option
from fsdeploy.convert.plugin import Float, MaskInput, MaskSource
from fsdeploy.faces.masks import stored_mask


@dataclass(frozen=True)
class StoredOptions:
    """Which stored mask."""

    name: str = option("", "Name of the stored mask, for example bisenet-fp_face; empty takes the first there is.")


class StoredMask(MaskSource):
    """A mask stored in the alignments or in the face's PNG header (bisenet-fp_face, unet-dfl, custom_face, ...)."""

    Options = StoredOptions

    def __call__(self, face: MaskInput) -> Float | None:
        # Old files hold drawn masks under these names; drawing them again is exact.
        names = [name for name in face.record.masks if name not in ("components", "extended")]
        wanted = self.options.name or (names[0] if names else "")
        if wanted not in names:
            return None
        mask = stored_mask(
            face.record.masks[wanted],
            dict(face.aligned.offsets),
            face.centering,
            face.coverage,
            face.vertical_offset,
            face.size,
        )
        return mask.astype(np.float32) / np.float32(255.0)
