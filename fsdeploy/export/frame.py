"""`--graph frame`: the whole swap of one frame as one ONNX graph. An app needs a landmark detector and nothing else.

Inputs "frame" (H, W, 3) uint8 BGR and "landmarks" (68, 2) float32 in frame pixels (or "matrix" (2, 3): frame pixels to
pixels of the model's crop); output "swapped" (H, W, 3) uint8. Every step is the twin of numpy code: crop and paste of
fsdeploy/runtime/paste.py, mask and colour of fsdeploy/runtime/mask.py.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from fsdeploy.errors import InputError
from fsdeploy.export.builder import Builder, Value
from fsdeploy.export.dfm import sampling, training_crop
from fsdeploy.export.frame_geometry import Map, align, crop_map
from fsdeploy.export.graph import Graph, Port, declare
from fsdeploy.export.settings import Mask
from fsdeploy.export.simplify import drop_dead, drop_identities, share_equal_nodes
from fsdeploy.model.info import ModelInfo
from fsdeploy.runtime.geometry import face_ellipse
from fsdeploy.runtime.mask import (
    HULL_DIRECTIONS,
    THRESHOLD,
    border_window,
    ellipse_mask,
    fade_width,
    raise_brows,
)

FRAME = Port("frame", ("H", "W", 3), "uint8")
LANDMARKS = Port("landmarks", (68, 2))
MATRIX = Port("matrix", (2, 3))
SWAPPED = Port("swapped", ("H", "W", 3), "uint8")
_FAR = 1e6


def mask_kind(info: ModelInfo, wanted: Mask | None, from_matrix: bool) -> Mask:
    """The mask that a frame graph blends with.

    Raises:
        InputError: one that the model or the input cannot give.
    """
    kind = wanted or "auto"
    if kind == "auto":
        kind = "learned" if info.has_mask else "ellipse" if from_matrix else "hull"
    if kind == "learned" and not info.has_mask:
        raise InputError("--mask learned: this model learned no mask; choose --mask hull or ellipse")
    if kind == "hull" and from_matrix:
        raise InputError("--mask hull needs landmarks: export with --graph frame, not frame-matrix")
    return kind


def frame_graph(face: Graph, info: ModelInfo, mask: Mask, from_matrix: bool) -> Graph:
    """Put crop and paste around a traced face graph ("face" -> "swap"[, "mask"])."""
    builder = Builder(face.opset)
    frame = builder.input("frame")
    inner, outer = info.input_size, info.output_size
    large = max(inner, outer)
    if from_matrix:
        given = builder.input("matrix")
        start = Map(builder, given.slice(1, 0, 2), builder.constant(np.zeros(2)), given.slice(1, 2, 3).reshape(2))
        maps = {size: start.resized(size / inner) for size in (large, outer)}
    else:
        landmarks = builder.input("landmarks")
        alignment = align(builder, landmarks, info)
        maps = {size: crop_map(alignment, info, size) for size in (large, outer)}
    crop = _crop(builder, frame, maps[large], large)  # (1, 3, large, large), 0..255
    reference = _shrunk(crop, large, outer) / 255.0
    feed = _colors(_shrunk(crop, large, inner) / 255.0, info)
    builder.nodes.append(onnx.helper.make_node("Identity", [feed.name], ["face"]))
    before = len(builder.nodes)
    swap = _colors(builder.input("swap"), info)
    if mask == "learned":
        raw = builder.input("mask").reshape(outer, outer)
    elif mask == "hull":
        raw = _hull(builder, maps[outer](landmarks), outer)
    else:
        raw = _ellipse(builder, info, outer)
    raw = _cut(builder, raw.clip(0.0, 1.0))
    matched = _match_mean(builder, swap, reference, raw)
    swapped = _paste(builder, frame, matched, _feather(builder, raw, outer), maps[outer], outer)
    builder.nodes.append(onnx.helper.make_node("Identity", [swapped.name], ["swapped"]))
    return _joined(face, builder, before, LANDMARKS if not from_matrix else MATRIX)


def _joined(face: Graph, builder: Builder, before: int, second: Port) -> Graph:
    model = onnx.ModelProto()
    model.CopyFrom(face.model)
    graph = model.graph
    del graph.node[:], graph.input[:], graph.output[:]
    graph.input.extend([declare(FRAME), declare(second)])
    graph.output.append(declare(SWAPPED))
    graph.node.extend([*builder.nodes[:before], *face.model.graph.node, *builder.nodes[before:]])
    graph.initializer.extend(builder.constants.values())
    share_equal_nodes(graph)
    drop_identities(graph)
    drop_dead(graph)
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
    used = {name for node in graph.node for name in node.input}
    return Graph(model, {name: array for name, array in face.weights.items() if name in used})


def _colors(planes: Value, info: ModelInfo) -> Value:
    """BGR planes to the model's order, and back."""
    if info.color_order == "bgr":
        return planes
    return planes.builder.op("Gather", planes, np.array([2, 1, 0], np.int64), axis=1)  # type: ignore[no-any-return]


def _grid(size: int) -> np.ndarray:
    """(S * S, 2) pixel centres x, y, row by row."""
    y, x = np.mgrid[:size, :size]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def _box(builder: Builder, frame: Value, corners: Value, margin: Value | float) -> tuple[list[Value], list[Value]]:
    """Integer starts and stops (x, y) of the part of a frame around `corners` (4, 2), at least one pixel."""
    low = (corners.least(0).floor() - margin).cast("int")
    high = (corners.most(0).ceil() + margin).cast("int")
    starts, stops = [], []
    for axis, edge in enumerate((frame.edge(1), frame.edge(0))):
        start = low.at(axis).maximum(np.int64(0)).minimum(edge - np.int64(1))
        starts.append(start)
        stops.append(high.at(axis).maximum(start + np.int64(1)).minimum(edge))
    return starts, stops


def _crop(builder: Builder, frame: Value, crop: Map, size: int) -> Value:
    """`paste.crop_patch`: (1, 3, S, S) float32 of whole numbers 0..255."""
    scale = crop.scale
    power = (builder.op("Log", 1.0 / scale) / math.log(2)).floor().maximum(0.0)
    factor = builder.op("Pow", 2.0, power).round()
    corners = crop.back(builder.constant(np.array([[0, 0], [size, 0], [size, size], [0, size]]) * 1.0))
    (x0, y0), (x1, y1) = _box(builder, frame, corners, factor * 2.0)
    region = frame.slice(0, y0, y1).slice(1, x0, x1).cast("float")
    region, width, height = _averaged(builder, region, factor.cast("int"))
    planes = region.transpose(2, 0, 1).reshape(1, 3, -1, width)
    seen = crop.back(builder.constant(_grid(size)))
    origin = builder.concat(x0.reshape(1), y0.reshape(1)).cast("float")
    small = (seen - origin - (factor - 1.0) * 0.5) / factor
    grid = _normalised(builder, small, width, height).reshape(1, size, size, 2)
    sampled = builder.where(scale >= 1.0, planes.grid_sample(grid, True), planes.grid_sample(grid, False))
    return sampled.clip(0.0, 255.0).round()


def _averaged(builder: Builder, region: Value, factor: Value) -> tuple[Value, Value, Value]:
    """Shrink (h, w, 3) by a whole factor, filled up with zeros; and its new width and height."""
    zero = builder.constant(np.int64(0))
    rests = [builder.op("Mod", zero - region.edge(axis), factor) for axis in (0, 1)]
    pads = builder.concat(np.zeros(3, np.int64), *(rest.reshape(1) for rest in rests), np.zeros(1, np.int64))
    padded = region.pad(pads)
    height, width = (padded.edge(axis) / factor for axis in (0, 1))
    mean = padded.reshape(height, factor, width, factor, 3).mean(1, 3)
    return mean.round(), width, height


def _normalised(builder: Builder, points: Value, width: Value, height: Value) -> Value:
    """Pixel centres (..., 2) to -1..1 between the outer edges."""
    edges = builder.concat(width.reshape(1), height.reshape(1)).cast("float")
    return (points * 2.0 + 1.0) / edges - 1.0


def _shrunk(crop: Value, size: int, target: int) -> Value:
    """Average (1, 3, size, size) over areas to (1, 3, target, target), whole numbers."""
    if size == target:
        return crop
    weights = sampling(size, target)
    return (crop.builder.constant(weights) @ crop @ weights.T).round()


def _cut(builder: Builder, mask: Value) -> Value:
    """`mask.cut`."""
    low = builder.where(mask < THRESHOLD, 0.0, mask)
    return builder.where(low > 1 - THRESHOLD, 1.0, low)


def _match_mean(builder: Builder, swap: Value, reference: Value, mask: Value) -> Value:
    """`mask.match_mean` on (1, 3, S, S)."""
    weight = mask.sum(0, 1)
    shift = ((reference - swap) * mask).sum(2, 3, keep=True) / weight.maximum(1e-6)
    return builder.where(weight > 0.0, swap + shift, reference).clip(0.0, 1.0)


def _feather(builder: Builder, mask: Value, size: int) -> Value:
    """`mask.feather`: exact Euclidean distances up to the fade's width, by two passes of shifted minima."""
    reach = math.ceil(fade_width(size))
    distance = builder.where(mask >= 0.5, _FAR, 0.0)
    for axis in (0, 1):
        pads = np.zeros(4, np.int64)
        pads[[axis, axis + 2]] = reach
        padded = distance.pad(builder.constant(pads), _FAR)
        shifted = [padded.slice(axis, reach + k, reach + k + size) + float(k * k) for k in range(-reach, reach + 1)]
        distance = builder.op("Min", *shifted)
    x = (distance.sqrt() / fade_width(size)).clip(0.0, 1.0)
    soft = x * x * (3.0 - x * 2.0)
    return mask.minimum(soft) * border_window(size)


def _hull(builder: Builder, points: Value, size: int) -> Value:
    """`mask.hull_mask` of (68, 2) landmarks in crop pixels."""
    raise_all = raise_brows_matrix()
    angles = np.arange(HULL_DIRECTIONS) * (2 * np.pi / HULL_DIRECTIONS)
    directions = builder.constant(np.stack([np.cos(angles), np.sin(angles)]))  # (2, D)
    support = (builder.constant(raise_all) @ points @ directions).most(0)  # (D,)
    depth = (support - builder.constant(_grid(size)) @ directions).least(1)
    return (depth + 0.5).reshape(size, size).clip(0.0, 1.0)


def raise_brows_matrix() -> np.ndarray:
    """`mask.raise_brows` as a (68, 68) matrix: it is linear."""
    basis = np.stack([np.eye(68), np.zeros((68, 68))], axis=-1)  # 68 sets of points, one coordinate at 1 each
    return np.stack([raise_brows(points)[:, 0] for points in basis], axis=1)


def _ellipse(builder: Builder, info: ModelInfo, size: int) -> Value:
    """The ellipse that `Swapper(mask="ellipse")` draws."""
    return builder.constant(ellipse_mask(size, *face_ellipse(*training_crop(info))))


def _paste(builder: Builder, frame: Value, patch: Value, alpha: Value, crop: Map, size: int) -> Value:
    """`paste.paste_patch`: the finished frame."""
    layers = builder.concat(patch * alpha, alpha.reshape(1, 1, size, size), axis=1)  # (1, 4, S, S)
    shrinks = crop.scale > 1.25
    edge = builder.where(shrinks, (float(size) / crop.scale).round().maximum(1.0), float(2 * size))
    weights = builder.where(shrinks, _area(builder, size, edge), _cubic(builder, size, edge))  # (edge, S)
    layers = weights @ layers @ weights.transpose(1, 0)
    layers = layers / layers.slice(1, 3, 4).maximum(1.0)
    small = crop.resized(edge / float(size))
    corners = np.array([[-1.5, -1.5], [size + 0.5, -1.5], [size + 0.5, size + 0.5], [-1.5, size + 0.5]])
    (x0, y0), (x1, y1) = _box(builder, frame, crop.back(builder.constant(corners)), 1.0)
    width, height = x1 - x0, y1 - y0
    x = builder.op(
        "Expand", (builder.range(width) + x0.cast("float")).reshape(1, -1, 1), _shape(builder, height, width)
    )
    y = builder.op(
        "Expand", (builder.range(height) + y0.cast("float")).reshape(-1, 1, 1), _shape(builder, height, width)
    )
    seen = small(builder.concat(x, y, axis=2))  # (h, w, 2)
    whole = edge.cast("int")
    grid = builder.op("Unsqueeze", _normalised(builder, seen, whole, whole), np.array([0], np.int64))
    warped = builder.op("Squeeze", layers.grid_sample(grid, False), np.array([0], np.int64)).transpose(1, 2, 0)
    opacity = warped.slice(2, 3, 4).clip(0.0, 1.0)
    color = warped.slice(2, 0, 3).maximum(0.0).minimum(opacity)
    rows = frame.slice(0, y0, y1)
    under = rows.slice(1, x0, x1).cast("float")
    blended = (under * (1.0 - opacity) + color * 255.0).round().clip(0.0, 255.0).cast("uint8")
    middle = builder.concat(rows.slice(1, 0, x0), blended, rows.slice(1, x1, frame.edge(1)), axis=1)
    return builder.concat(frame.slice(0, 0, y0), middle, frame.slice(0, y1, frame.edge(0)), axis=0)


def _shape(builder: Builder, height: Value, width: Value) -> Value:
    return builder.concat(height.reshape(1), width.reshape(1), np.array([1], np.int64))


def _area(builder: Builder, size: int, edge: Value) -> Value:
    """(edge, S) weights that average a line over areas."""
    ratio = float(size) / edge
    starts = (builder.range(edge.cast("int")) * ratio).reshape(-1, 1)
    pixels = builder.constant(np.arange(size, dtype=np.float32)[None])
    overlap = (starts + ratio).minimum(pixels + 1.0) - starts.maximum(pixels)
    return overlap.maximum(0.0) / ratio


def _cubic(builder: Builder, size: int, edge: Value) -> Value:
    """(edge, S) weights that enlarge a line by cubic convolution (Keys 1981, a = -0.75 as OpenCV); zero outside it."""
    centres = ((builder.range(edge.cast("int")) + 0.5) * (float(size) / edge) - 0.5).reshape(-1, 1)
    d = builder.op("Abs", centres - np.arange(size, dtype=np.float32)[None])
    near = (d * 1.25 - 2.25) * d * d + 1.0
    far = ((d - 5.0) * d + 8.0) * d * -0.75 + 3.0
    return builder.where(d < 1.0, near, builder.where(d < 2.0, far, 0.0))
