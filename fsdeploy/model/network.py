"""The torch module of a swap model: shared parts used by both sides, one path per side.

Inside fsdeploy a face tensor is (N, 3, H, W) float32 in 0..1, in the model's colour order. A side is 0 (A) or 1 (B).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class SwapNetwork(nn.Module, ABC):
    """Base of every network. A subclass names its children by role (`encoder`, `decoder_a`, `decoder_b`, `inter_*`)."""

    sides = 2

    @abstractmethod
    def parts(self, side: int) -> dict[str, nn.Module]:
        """Child name -> module on the path of `side`, in running order. Export, freezing, loading go by these names."""

    @abstractmethod
    def swap(self, face: Tensor, side: int) -> list[Tensor]:
        """Run one direction: `face` (N, 3, S, S) through the path of `side`.

        Returns:
            The side's outputs: faces in ascending size (N, 3, O, O), then the mask (N, 1, O, O) if one is learned.
        """

    def forward(self, faces: list[Tensor]) -> list[list[Tensor]]:
        """Run every side on its own faces (training). Override to run shared parts once over all sides."""
        return [self.swap(face, side) for side, face in enumerate(faces)]


class SharedEncoderNetwork(SwapNetwork):
    """One encoder, one decoder per side: the form of most plugins."""

    def __init__(self, encoder: nn.Module, decoder_a: nn.Module, decoder_b: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder_a = decoder_a
        self.decoder_b = decoder_b

    def parts(self, side: int) -> dict[str, nn.Module]:
        name = ("decoder_a", "decoder_b")[side]
        return {"encoder": self.encoder, name: getattr(self, name)}

    def swap(self, face: Tensor, side: int) -> list[Tensor]:
        encoder, decoder = self.parts(side).values()
        outputs: list[Tensor] = decoder(encoder(face))
        return outputs

    def forward(self, faces: list[Tensor]) -> list[list[Tensor]]:
        # One pass of the encoder over all sides: same maths without batch norm, half the kernel launches.
        code = self.encoder(torch.cat(faces))
        code_a, code_b = code.split([len(face) for face in faces])
        return [self.decoder_a(code_a), self.decoder_b(code_b)]
