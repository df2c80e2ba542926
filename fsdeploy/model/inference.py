"""Cutting one direction out of a swap model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fsdeploy.model.base import ModelBase
from fsdeploy.model.network import SwapNetwork


class Inference(nn.Module):
    """One direction of a swap model as a module of its own, sharing the model's weights.

    Args:
        saved_model: A built model, or its network.
        switch_sides: False: faces of A go in, B's face comes out ("a2b"). True: the mirror ("b2a").

    `forward` takes a face (N, 3, S, S) float32 in 0..1 and returns (swap,) or (swap, mask): the largest face
    (N, 3, O, O) and, if the model learns one, its mask (N, 1, O, O). Only the parts on the side's path are children,
    so exporting the module exports nothing of the other side.

    Example:
        >>> inference = Inference(load_model(Path("my_model")), switch_sides=False)
        >>> (swap,) = inference(face)
    """

    def __init__(self, saved_model: ModelBase | SwapNetwork, switch_sides: bool) -> None:
        super().__init__()
        network = saved_model.model if isinstance(saved_model, ModelBase) else saved_model
        self.side = 0 if switch_sides else 1
        self.parts = nn.ModuleDict(network.parts(self.side))
        # Held outside the module tree: the other side's weights must not follow this module around.
        self._swap = [network.swap]
        self.eval()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a face through. Without arguments: return the module itself, as callers of the original API expect."""
        return super().__call__(*args, **kwargs) if args or kwargs else self

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        outputs = self._swap[0](face, self.side)
        faces = [output for output in outputs if output.shape[1] != 1]
        masks = [output for output in outputs if output.shape[1] == 1]
        return (faces[-1], *masks[-1:])
