"""What a caller may ask about a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model, enough to feed it and to describe an exported file."""

    name: str
    """Plugin name, for example "original"."""
    input_size: int
    """Edge of the square input face in pixels."""
    output_size: int
    """Edge of the largest output face in pixels."""
    output_sizes: tuple[int, ...]
    """Edges of all output faces of one side, ascending."""
    color_order: str
    """"bgr" or "rgb", of input and output."""
    centering: str
    """"face", "head" or "legacy"."""
    coverage: float
    """Share of the centred face that is trained on, 0.625 to 1.0."""
    vertical_offset: float
    """Shift of the crop as a share of its core, -0.25 to 0.25; positive moves the face down."""
    has_mask: bool
    """True when the model learns a mask output."""
    iterations: int
    """Training iterations of the weights."""
    weights_sha256: str
    """Digest of the safetensors file the weights came from; empty for a model that was never saved."""
