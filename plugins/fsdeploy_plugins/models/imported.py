"""A model whose architecture came with it: the graph stands in its state, and no plugin of its own is needed.

Such a model is made by `fsdeploy migrate` from a file whose network is no native plugin's. It trains, exports and
converts like any other.
"""

from __future__ import annotations

from typing import Any

from fsdeploy.errors import CorruptModelError, InputError
from fsdeploy.model.base import ModelBase
from fsdeploy.model.graph.description import GraphDescription
from fsdeploy.model.graph.network import GraphNetwork, check_graph
from fsdeploy.model.network import SwapNetwork


class Model(ModelBase):
    """A network built from the description in its state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self.description = self._read_graph()
        except InputError:
            self.close()
            raise
        size = self.description.net.inputs[0][1]
        self.input_shape = (3, size, size)
        self.color_order = "rgb" if self.state.extra.get("color_order") == "rgb" else "bgr"

    def _read_graph(self) -> GraphDescription:
        source = self.state.filename or "this model"
        stored = self.state.extra.get("graph")
        if stored is None:
            raise InputError(f"{source} has no graph: 'fsdeploy migrate' makes 'imported' models, train another plugin")
        description = GraphDescription.from_json(stored, source)
        inputs = description.net.inputs
        if not inputs or any(len(s) != 3 or s[0] != 3 or s[1] != s[2] or s != inputs[0] for s in inputs):
            taken = " and ".join(str(list(shape)) for shape in inputs) or "nothing"
            raise CorruptModelError(f"{source}: its graph takes {taken}, no square face: migrate the model again")
        check_graph(description, source)
        return description

    @property
    def model_name(self) -> str:
        return self.description.name

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        return GraphNetwork(self.description)
