"""A known face graph in a model's place, for models that show too little of the paste to judge it by."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from fsdeploy.export.dfm import training_crop
from fsdeploy.export.graph import BATCH, Graph, Port, declare
from fsdeploy.model.info import ModelInfo
from fsdeploy.runtime.geometry import face_ellipse
from fsdeploy.runtime.mask import ellipse_mask


def stand_in(graph: Graph, info: ModelInfo) -> Graph:
    """A face graph with the borders of `graph`: the negative of the crop, under an ellipse where a mask is due."""
    inner, outer = info.input_size, info.output_size
    picked = np.zeros((outer, inner), np.float32)
    picked[np.arange(outer), np.arange(outer) * inner // outer] = 1
    weights = {"rows": picked, "columns": np.ascontiguousarray(picked.T), "one": np.ones(1, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["rows", "face"], ["tall"]),
        helper.make_node("MatMul", ["tall", "columns"], ["sized"]),
        helper.make_node("Sub", ["one", "sized"], ["swap"]),
    ]
    outputs = [Port("swap", (BATCH, 3, outer, outer))]
    if info.has_mask:
        weights["none"] = np.zeros((1, 3, 1, 1), np.float32)
        weights["ellipse"] = ellipse_mask(outer, *face_ellipse(*training_crop(info)))[None, None]
        # A product with zeros lends the mask the batch of the picture.
        nodes += [
            helper.make_node("Conv", ["swap", "none"], ["blank"]),
            helper.make_node("Add", ["blank", "ellipse"], ["mask"]),
        ]
        outputs.append(Port("mask", (BATCH, 1, outer, outer)))
    face = declare(Port("face", (BATCH, 3, inner, inner)))
    bare = helper.make_graph(nodes, "swap", [face], [declare(port) for port in outputs])
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.CopyFrom(bare)
    return Graph(model, weights)
