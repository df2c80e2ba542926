"""A model whose architecture came with it: the graph stands in its state, and no plugin of its own is needed.

Such a model is made by `fsdeploy migrate` from a file whose network is no native plugin's. It trains, exports and
converts like any other.
"""

from __future__ import annotations

from typing import Any

from fsdeploy.errors import CorruptModelError, InputError
from fsdeploy.model.base import ModelBase
from fsdeploy.model.graph.description import GraphDescription
from fsdeploy.model.graph.network import GraphNetwork
from fsdeploy.model.network import SwapNetwork


class Model(ModelBase):
    """A network built from the description in its state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        source = self.io.filename or "this model"
        stored = self.state.extra.get("graph")
        if stored is None:
            self.close()
            raise InputError(f"{source} has no graph: 'fsdeploy migrate' makes 'imported' models, train another plugin")
        self.description = GraphDescription.from_json(stored, source)
        shape = self.description.net.inputs[0]
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
            self.close()
            raise CorruptModelError(f"{source}: its graph takes {shape}, not a square face: migrate the model again")
        self.input_shape = (shape[0], shape[1], shape[2])
        self.color_order = "rgb" if self.state.extra.get("color_order") == "rgb" else "bgr"

    @property
    def model_name(self) -> str:
        return self.description.name

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        return GraphNetwork(self.description)
