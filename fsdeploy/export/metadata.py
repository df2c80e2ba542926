"""The facts that go into an exported file, from the model's own description and the format's."""

from __future__ import annotations

from fsdeploy import __version__
from fsdeploy.export.target import Target
from fsdeploy.faces.landmarks import MEAN_FACE
from fsdeploy.model.info import ModelInfo
from fsdeploy.runtime.metadata import SwapMetadata

PROVENANCE = (
    "Output is synthetic: label it as made with AI and mark files with the IPTC digital source type "
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia. "
    "Use only with the consent of the people shown."
)


def direction_name(swap_sides: bool) -> str:
    """ "a2b", or "b2a" with swapped sides."""
    return "b2a" if swap_sides else "a2b"


def describe(
    info: ModelInfo, target: Target, swap_sides: bool, opset: int, ir_version: int, precision: str
) -> SwapMetadata:
    """The metadata of one export."""
    return SwapMetadata(
        direction=direction_name(swap_sides),
        plugin=info.name,
        input_size=info.input_size,
        output_size=info.output_size,
        color_order=target.color_order,
        layout=target.layout,
        value_range=(0.0, 255.0) if target.inputs[0].dtype == "uint8" else (0.0, 1.0),
        centering=info.centering,
        coverage=info.coverage,
        vertical_offset=info.vertical_offset,
        has_mask=target.has_mask,
        iterations=info.iterations,
        opset=opset,
        ir_version=ir_version,
        producer_version=__version__,
        weights_sha256=info.weights_sha256,
        mean_face=tuple((float(x), float(y)) for x, y in MEAN_FACE),
        provenance=PROVENANCE,
        extra={**target.extra, "precision": precision},
    )
