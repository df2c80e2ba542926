"""The mask that the model itself predicts."""

from fsdeploy.convert.plugin import Float, MaskInput, MaskSource


class PredictedMask(MaskSource):
    """The mask that the model itself predicts (models trained with learn_mask)."""

    def __call__(self, face: MaskInput) -> Float | None:
        return face.predicted
