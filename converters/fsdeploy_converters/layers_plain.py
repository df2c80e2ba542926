"""Translators of the layer classes without weights, and of bare operations."""

from __future__ import annotations

import math
from collections.abc import Callable

from fsdeploy_converters import limits
from fsdeploy_converters.errors import damaged, hostile, shown
from fsdeploy_converters.layer_config import Dialect, LayerView, Translation, broadcast, one, same_pads, window
from fsdeploy_converters.operations import scalar_op, tf_op_lambda

_ACTIVATIONS = {name: name for name in ("linear", "relu", "relu6", "sigmoid", "tanh", "swish", "quick_gelu", "gelu")}
_ACTIVATIONS |= {name: name for name in ("elu", "selu", "softplus", "softmax", "hard_swish")}
_ACTIVATIONS |= {"silu": "swish", "hard_silu": "hard_swish"}


def activation_of(view: LayerView, value: object) -> str:
    """Our name of an activation given as text; "hard_sigmoid" changed its slope with Keras 3."""
    if value is None:
        return "linear"
    if value == "hard_sigmoid":
        return "hard_sigmoid_sixth" if view.dialect is Dialect.KERAS3 else "hard_sigmoid_fifth"
    if isinstance(value, str) and value in _ACTIVATIONS:
        return _ACTIVATIONS[value]
    raise view.refuse(f"the activation {shown(value)} is not known")


def activation(view: LayerView) -> Translation:
    return one("activation", view.shape, kind=activation_of(view, view.config.get("activation")))


def leaky_relu(view: LayerView) -> Translation:
    """The slope's key changed from `alpha` to `negative_slope`."""
    key = "negative_slope" if "negative_slope" in view.config else "alpha"
    return one("leaky_relu", view.shape, slope=view.number(key, 0.3))


def relu(view: LayerView) -> Translation:
    ceiling = None if view.config.get("max_value") is None else view.number("max_value")
    slope = 0.0 if view.config.get("negative_slope") is None else view.number("negative_slope")
    threshold = 0.0 if view.config.get("threshold") is None else view.number("threshold")
    return one("leaky_relu", view.shape, slope=slope, ceiling=ceiling, threshold=threshold)


def swish(view: LayerView) -> Translation:
    return one("swish", view.shape, beta=view.number("beta", 1.0))


def quick_gelu(view: LayerView) -> Translation:
    return one("activation", view.shape, kind="quick_gelu")


def softmax(view: LayerView) -> Translation:
    view.require_last_axis()
    return one("activation", view.shape, kind="softmax")


def flatten(view: LayerView) -> Translation:
    view.require_channels_last()
    return one("flatten", (math.prod(view.shape),), order="hwc")


def reshape(view: LayerView) -> Translation:
    """Row-major over (H, W, C), the channel fastest; one extent may be -1."""
    value = view.config.get("target_shape")
    if not isinstance(value, list) or not 1 <= len(value) <= 3 or any(type(n) is not int for n in value):
        raise damaged(view.source, f"layer {shown(view.name)}: target_shape is {shown(value)}")
    target, total = list(value), math.prod(view.shape)
    if target.count(-1) == 1:
        rest = math.prod(n for n in target if n != -1)
        target[target.index(-1)] = total // rest if rest > 0 else 0
    if math.prod(target) != total or any(n < 1 for n in target):
        raise hostile(view.source, f"layer {shown(view.name)} would reshape {view.shape} to {shown(value)}")
    return one("reshape", tuple(target), shape=target, order="hwc")


def pixel_shuffler(view: LayerView) -> Translation:
    """out[y r + i, x r + j, f] = in[y, x, (i r + j) F + f]."""
    height, width, channels = view.image()
    key = "scale_factor" if view.class_name == "SubPixelUpscaling" else "size"
    rows, columns = view.pair(key, 8, 2)
    if rows != columns or channels % (rows * rows):
        raise damaged(view.source, f"layer {shown(view.name)} cannot spread {channels} channels by {rows} x {columns}")
    output = (height * rows, width * rows, channels // (rows * rows))
    return one("pixel_shuffle", output, factor=rows, source=[channels, height, width], order="dcr")


def reflection_padding(view: LayerView) -> Translation:
    """Amounts as of a "same" convolution of that kernel and stride, mirrored."""
    height, width, channels = view.image()
    stride, kernel = view.pair("stride", limits.STRIDE, 2), view.pair("kernel_size", limits.KERNEL, 5)
    pads = [*same_pads(height, kernel[0], stride[0]), *same_pads(width, kernel[1], stride[1])]
    if max(pads[:2]) >= height or max(pads[2:]) >= width:
        raise damaged(view.source, f"layer {shown(view.name)} mirrors more than the image has")
    output = (height + pads[0] + pads[1], width + pads[2] + pads[3], channels)
    return one("pad", output, pad=pads, mode="reflect")


def _four(view: LayerView, key: str) -> list[int]:
    value = view.config.get(key, 1)
    if isinstance(value, int):
        value = [[value, value], [value, value]]
    rows = value if isinstance(value, list) and len(value) == 2 else []
    pairs = [[row, row] if isinstance(row, int) else row for row in rows]
    flat = [n for pair in pairs if isinstance(pair, list) for n in pair]
    if len(flat) != 4 or any(type(n) is not int or not 0 <= n <= 64 for n in flat):
        raise damaged(view.source, f"layer {shown(view.name)}: {key} is {shown(value)}")
    return flat


def zero_padding(view: LayerView) -> Translation:
    height, width, channels = view.image()
    top, bottom, left, right = pads = _four(view, "padding")
    return one("pad", view.checked((height + top + bottom, width + left + right, channels)), pad=pads, mode="zeros")


def cropping(view: LayerView) -> Translation:
    height, width, channels = view.image()
    top, bottom, left, right = _four(view, "cropping")
    output = view.checked((height - top - bottom, width - left - right, channels))
    return one("crop", output, top=top, left=left, height=output[0], width=output[1])


def pooling(view: LayerView) -> Translation:
    view.require_channels_last()
    size = view.pair("pool_size", limits.KERNEL, 2)
    given = view.config.get("strides")
    stride = size if given is None else view.pair("strides", limits.KERNEL)
    pads, places = window(view, size, stride)
    kind = "max" if view.class_name.startswith("Max") else "mean"
    output = view.checked((*places, view.shape[2]))
    return one("pool", output, kind=kind, size=list(size), stride=list(stride), pad=pads)


def global_pooling(view: LayerView) -> Translation:
    channels, keep = view.image()[2], view.flag("keepdims", False)
    kind = {"A": "mean", "X": "max", "I": "min", "S": "deviation"}[_pool_letter(view.class_name)]
    return one("global_pool", (1, 1, channels) if keep else (channels,), kind=kind, keep=keep)


def _pool_letter(class_name: str) -> str:
    letters = {"GlobalAveragePooling2D": "A", "GlobalMaxPooling2D": "X", "GlobalMinPooling2D": "I"}
    return letters.get(class_name, "S")


def up_sampling(view: LayerView) -> Translation:
    """Bilinear without the half-pixel shift in standalone Keras 2.2 on TensorFlow 1, with it ever since."""
    view.require_channels_last()
    height, width, channels = view.image()
    rows, columns = view.pair("size", 64, 2)
    bilinear = view.choice("interpolation", "nearest", ("nearest", "bilinear")) == "bilinear"
    size = [height * rows, width * columns]
    mode = ("corner" if view.dialect is Dialect.KERAS1 else "half_pixel") if bilinear else "nearest"
    output = view.checked((size[0], size[1], channels))
    return one("resize", output, source=[height, width], size=size, mode=mode)


def resize_images(view: LayerView) -> Translation:
    """An integer factor, nearest or bilinear; another factor is always bilinear to the rounded size."""
    height, width, channels = view.image()
    value = view.config.get("size", 2)
    factor = view.finite("size", value[0] if isinstance(value, list) and len(set(map(str, value))) == 1 else value)
    if not 0.0 < factor <= 64.0:
        raise hostile(view.source, f"layer {shown(view.name)} resizes by {factor}")
    whole = float(factor).is_integer()
    nearest = view.choice("interpolation", "nearest", ("nearest", "bilinear")) == "nearest" and whole
    size = [round(height * factor), round(width * factor)]
    output = view.checked((size[0], size[1], channels))
    mode = "nearest" if nearest else "half_pixel"
    return one("resize", output, source=[height, width], size=size, mode=mode)


_JOINS = {
    "Add": "add", "Multiply": "multiply", "Subtract": "subtract", "Average": "average", "Maximum": "maximum",
    "Minimum": "minimum",
}  # fmt: skip


def join(view: LayerView) -> Translation:
    """Elementwise over all inputs, extents of 1 spread."""
    output = broadcast(view)
    if len(view.shapes) < 2 or (view.class_name == "Subtract" and len(view.shapes) != 2):
        raise damaged(view.source, f"layer {shown(view.name)} joins {len(view.shapes)} inputs")
    return one("join", output, kind=_JOINS[view.class_name])


def concatenate(view: LayerView) -> Translation:
    rank = len(view.shape)
    axis = view.integer("axis", rank, -1, least=-rank)
    axis = axis - 1 if axis > 0 else rank + axis
    rests = {shape[:axis] + shape[axis + 1 :] for shape in view.shapes if len(shape) == rank}
    if axis < 0 or len(rests) != 1 or any(len(shape) != rank for shape in view.shapes):
        raise damaged(view.source, f"layer {shown(view.name)} joins the shapes {view.shapes}")
    output = (*view.shape[:axis], sum(shape[axis] for shape in view.shapes), *view.shape[axis + 1 :])
    return one("concat", view.checked(output), axis=torch_axis(axis, rank))


def torch_axis(axis: int, rank: int) -> int:
    """Axis of (N, C, H, W), (N, T, D) or (N, D) for an axis of a shape without the batch in the file's order."""
    return {0: 2, 1: 3, 2: 1}[axis] if rank == 3 else axis + 1


def dot(view: LayerView) -> Translation:
    axes = view.config.get("axes")
    last = (-1, [-1, -1])
    ranks = [len(shape) for shape in view.shapes]
    if axes not in last or view.flag("normalize", False) or len(ranks) != 2 or max(ranks) > 2:
        raise view.refuse("a product over other axes than the last")
    first, second = view.shapes
    if first[-1] != second[-1]:
        raise damaged(view.source, f"layer {shown(view.name)} multiplies {first} by {second}")
    return one("dot", (*first[:-1], *second[:-1]) or (1,))


def adaptive_instance_normalization(view: LayerView) -> Translation:
    """Inputs are image, shift, scale."""
    channels = view.image()[2]
    if len(view.shapes) != 3 or any(shape not in ((1, 1, channels), (channels,)) for shape in view.shapes[1:]):
        raise damaged(view.source, f"layer {shown(view.name)} normalises the shapes {view.shapes}")
    return one("adaptive_norm", view.shape, eps=view.number("epsilon", 1e-3))


def l2_normalize(view: LayerView) -> Translation:
    rank = len(view.shape)
    axis = view.integer("axis", rank, -1, least=-rank)
    return one("unit_length", view.shape, axis=torch_axis(axis - 1 if axis > 0 else rank + axis, rank))


def rescaling(view: LayerView) -> Translation:
    scale = view.numbers("scale", view.config.get("scale", 1.0))
    return one("affine", view.shape, scale=scale, offset=view.numbers("offset", view.config.get("offset", 0.0)))


def dropout(view: LayerView) -> Translation:
    """Identity at inference; what is dropped together in training is kept."""
    rate = view.number("rate", 0.0)
    if not 0.0 <= rate < 1.0:
        raise damaged(view.source, f"layer {shown(view.name)}: rate is {rate}")
    together = view.config.get("noise_shape")
    samples = view.class_name in ("StochasticDepth", "FixedDropout") or (
        isinstance(together, list) and together[1:] == [1] * len(view.shape)
    )
    unit = "channels" if view.class_name == "SpatialDropout2D" else "samples" if samples else "elements"
    return one("dropout", view.shape, rate=rate, unit=unit)


def noise(view: LayerView) -> Translation:
    return one("noise", view.shape, deviation=view.number("stddev", 1.0))


KNOWN_CODE = "keras.applications.inception_resnet_v2"
"""Module of the one function that real files carry as code."""


def scaled_sum(view: LayerView) -> Translation:
    """x0 + scale * x1: the one function that real files carry as code. The code itself is never looked at."""
    arguments = view.config.get("arguments") if view.class_name == "Lambda" else view.config
    if not isinstance(arguments, dict) or len(view.shapes) != 2 or len(set(view.shapes)) != 1:
        raise hostile(view.source, f"layer {shown(view.name)} carries program code")
    if view.class_name == "Lambda" and set(arguments) != {"scale"}:
        raise hostile(view.source, f"layer {shown(view.name)} carries program code")
    return one("join", view.shape, kind="scaled_add", scale=view.finite("scale", arguments.get("scale")))


PLAIN: dict[str, Callable[[LayerView], Translation]] = {
    "Activation": activation,
    "LeakyReLU": leaky_relu,
    "ReLU": relu,
    "Swish": swish,
    "QuickGELU": quick_gelu,
    "Softmax": softmax,
    "Flatten": flatten,
    "Reshape": reshape,
    "PixelShuffler": pixel_shuffler,
    "SubPixelUpscaling": pixel_shuffler,
    "ReflectionPadding2D": reflection_padding,
    "ZeroPadding2D": zero_padding,
    "Cropping2D": cropping,
    "MaxPooling2D": pooling,
    "AveragePooling2D": pooling,
    "GlobalAveragePooling2D": global_pooling,
    "GlobalMaxPooling2D": global_pooling,
    "GlobalMinPooling2D": global_pooling,
    "GlobalStdDevPooling2D": global_pooling,
    "UpSampling2D": up_sampling,
    "KResizeImages": resize_images,
    "Concatenate": concatenate,
    "Dot": dot,
    "AdaInstanceNormalization": adaptive_instance_normalization,
    "L2Normalize": l2_normalize,
    "L2_normalize": l2_normalize,
    "Rescaling": rescaling,
    "Dropout": dropout,
    "SpatialDropout2D": dropout,
    "StochasticDepth": dropout,
    "FixedDropout": dropout,
    "GaussianNoise": noise,
    "Lambda": scaled_sum,
    "CustomScaleLayer": scaled_sum,
    "TFOpLambda": tf_op_lambda,
    "ScalarOp": scalar_op,
    **dict.fromkeys(_JOINS, join),
}
