"""Translators of the layer classes that carry weights."""

from __future__ import annotations

from collections.abc import Callable

from fsdeploy.model.graph.description import Operation
from fsdeploy_converters import limits
from fsdeploy_converters.errors import damaged, shown
from fsdeploy_converters.layer_config import Dialect, LayerView, Shape, Translation, Weight, window
from fsdeploy_converters.layers_plain import activation_of
from fsdeploy_converters.layout import CONV, DENSE, Layout, depthwise

Parts = list[tuple[str, Operation]]


def _with_activation(view: LayerView, parts: Parts) -> tuple[tuple[str, Operation], ...]:
    kind = activation_of(view, view.config.get("activation"))
    return tuple(parts) if kind == "linear" else (*parts, ("activation", Operation("activation", {"kind": kind})))


def _conv(
    view: LayerView, inputs: int, outputs: int, groups: int, bias: bool
) -> tuple[Operation, tuple[int, int], tuple[int, int]]:
    view.require_channels_last()
    kernel, stride = view.pair("kernel_size", limits.KERNEL), view.pair("strides", limits.STRIDE, 1)
    dilation = view.pair("dilation_rate", limits.KERNEL, 1)
    pads, size = window(view, kernel, stride, dilation)
    attributes = {
        "inputs": inputs,
        "outputs": outputs,
        "kernel": list(kernel),
        "stride": list(stride),
        "pad": pads,
        "dilation": list(dilation),
        "groups": groups,
        "bias": bias,
    }
    return Operation("conv", attributes), kernel, size


def conv2d(view: LayerView) -> Translation:
    """Cross-correlation, kernel (kh, kw, in / groups, out)."""
    channels, filters = view.image()[2], view.integer("filters", limits.WIDTH)
    groups, bias = view.integer("groups", limits.WIDTH, 1), view.flag("use_bias", True)
    if channels % groups or filters % groups:
        raise damaged(view.source, f"layer {shown(view.name)}: {groups} groups do not divide its channels")
    operation, kernel, size = _conv(view, channels, filters, groups, bias)
    weights = [Weight("kernel", (*kernel, channels // groups, filters), "weight", CONV)]
    if bias:
        weights.append(Weight("bias", (filters,), "bias"))
    return Translation(_with_activation(view, [("", operation)]), view.checked((*size, filters)), tuple(weights))


def depthwise_conv2d(view: LayerView) -> Translation:
    """One group per channel; output channel is channel * multiplier + m."""
    channels, multiplier = view.image()[2], view.integer("depth_multiplier", 64, 1)
    bias, outputs = view.flag("use_bias", True), channels * multiplier
    operation, kernel, size = _conv(view, channels, outputs, channels, bias)
    shape = (*kernel, channels, multiplier)
    weights = [Weight("depthwise_kernel", shape, "weight", depthwise(shape))]
    if bias:
        weights.append(Weight("bias", (outputs,), "bias"))
    return Translation(_with_activation(view, [("", operation)]), view.checked((*size, outputs)), tuple(weights))


def separable_conv2d(view: LayerView) -> Translation:
    """A convolution per channel without bias, then a 1x1 one with bias."""
    channels, filters = view.image()[2], view.integer("filters", limits.WIDTH)
    multiplier, bias = view.integer("depth_multiplier", 64, 1), view.flag("use_bias", True)
    middle = channels * multiplier
    operation, kernel, size = _conv(view, channels, middle, channels, False)
    point = Operation("conv", {"inputs": middle, "outputs": filters, "kernel": [1, 1], "bias": bias})
    shape = (*kernel, channels, multiplier)
    weights = [
        Weight("depthwise_kernel", shape, "weight", depthwise(shape)),
        Weight("pointwise_kernel", (1, 1, middle, filters), "weight", CONV, part=1),
    ]
    if bias:
        weights.append(Weight("bias", (filters,), "bias", part=1))
    parts = _with_activation(view, [("depth", operation), ("point", point)])
    return Translation(parts, view.checked((*size, filters)), tuple(weights))


def conv2d_transpose(view: LayerView) -> Translation:
    """Transposed convolution, kernel (kh, kw, out, in). With "same", Keras 2 drops the odd row at the end of the full
    result and Keras 3 on torch the one at its start."""
    view.require_channels_last()
    height, width, channels = view.image()
    filters, bias = view.integer("filters", limits.WIDTH), view.flag("use_bias", True)
    kernel, stride = view.pair("kernel_size", limits.KERNEL), view.pair("strides", limits.STRIDE, 1)
    if view.config.get("output_padding") is not None or view.pair("dilation_rate", 8, 1) != (1, 1):
        raise view.refuse("output padding or dilation")
    same = view.choice("padding", "valid", ("valid", "same")) == "same"
    crop, size = [], []
    for axis, source in enumerate((height, width)):
        k, s = kernel[axis], stride[axis]
        if not same:
            crop.append(0)
            size.append(source * s + max(k - s, 0))
            continue
        size.append(source * s)
        if view.dialect is Dialect.KERAS3:
            # The rule by which Keras chooses torch's `padding` for an output of source * stride.
            crop.append(max(-((s - k) // 2), 0))
        else:
            crop.append(max(k - s, 0) // 2)
    attributes = {
        "inputs": channels,
        "outputs": filters,
        "kernel": list(kernel),
        "stride": list(stride),
        "crop": crop,
        "size": size,
        "source": [height, width],
        "bias": bias,
    }
    weights = [Weight("kernel", (*kernel, filters, channels), "weight", CONV)]
    if bias:
        weights.append(Weight("bias", (filters,), "bias"))
    parts = _with_activation(view, [("", Operation("conv_transpose", attributes))])
    return Translation(parts, view.checked((*size, filters)), tuple(weights))


def dense(view: LayerView) -> Translation:
    """y = x K + b with K (in, out), over the last axis."""
    inputs, units, bias = view.shape[-1], view.integer("units", limits.WIDTH), view.flag("use_bias", True)
    weights = [Weight("kernel", (inputs, units), "weight", DENSE)]
    if bias:
        weights.append(Weight("bias", (units,), "bias"))
    operation = Operation("linear", {"inputs": inputs, "outputs": units, "bias": bias})
    output = view.checked((*view.shape[:-1], units))
    return Translation(_with_activation(view, [("", operation)]), output, tuple(weights))


def batch_normalization(view: LayerView) -> Translation:
    """(x - mean) / sqrt(variance + eps) * gamma + beta."""
    view.require_last_axis()
    channels, scale, center = view.shape[-1], view.flag("scale", True), view.flag("center", True)
    attributes = {
        "channels": channels,
        "eps": view.number("epsilon", 1e-3),
        "momentum": view.number("momentum", 0.99),
        "scale": scale,
        "center": center,
    }
    weights = [*_gamma_beta((channels,), scale, center)]
    weights.append(Weight("moving_mean", (channels,), "running_mean", learned=False))
    weights.append(Weight("moving_variance", (channels,), "running_var", learned=False))
    return Translation((("", Operation("batch_norm", attributes)),), view.shape, tuple(weights))


def _gamma_beta(shape: Shape, scale: bool, center: bool) -> list[Weight]:
    flat = Layout(shape=(shape[-1],))
    found = [Weight("gamma", shape, "weight", flat)] if scale else []
    return [*found, Weight("beta", shape, "bias", flat)] if center else found


def instance_normalization(view: LayerView) -> Translation:
    """eps is added to the deviation; with axis null one scalar pair works over H, W and C together."""
    channels = view.image()[2]
    joint = view.config.get("axis") is None
    if not joint:
        view.require_last_axis()
    scale, center = view.flag("scale", True), view.flag("center", True)
    attributes = {
        "channels": channels,
        "eps": view.number("epsilon", 1e-3),
        "joint": joint,
        "scale": scale,
        "center": center,
    }
    weights = _gamma_beta((1,) if joint else (channels,), scale, center)
    return Translation((("", Operation("instance_norm", attributes)),), view.shape, tuple(weights))


def group_normalization(view: LayerView) -> Translation:
    """Groups of consecutive channels, gamma and beta (1, 1, 1, C)."""
    channels = view.image()[2]
    view.require_last_axis()
    groups = view.integer("group" if "group" in view.config else "groups", limits.WIDTH, 32)
    if channels % groups:
        raise damaged(view.source, f"layer {shown(view.name)}: {groups} groups do not divide {channels} channels")
    attributes = {"channels": channels, "groups": groups, "eps": view.number("epsilon", 1e-6)}
    weights = _gamma_beta((1, 1, 1, channels), True, True)
    return Translation((("", Operation("group_norm", attributes)),), view.shape, tuple(weights))


def layer_normalization(view: LayerView) -> Translation:
    """Over the last axis, per position."""
    view.require_last_axis()
    channels, scale, center = view.shape[-1], view.flag("scale", True), view.flag("center", True)
    if view.config.get("rms_scaling"):
        raise view.refuse("rms_scaling")
    attributes = {
        "channels": channels,
        "eps": view.number("epsilon", 1e-3),
        "scale": scale,
        "center": center,
    }
    weights = _gamma_beta((channels,), scale, center)
    return Translation((("", Operation("layer_norm", attributes)),), view.shape, tuple(weights))


def rms_normalization(view: LayerView) -> Translation:
    """scale * x / sqrt(mean(x^2) + eps)."""
    view.require_last_axis()
    if view.config.get("partial") not in (None, 0, 0.0) or view.config.get("bias") not in (None, False):
        raise view.refuse("a partial or biased form")
    channels = view.shape[-1]
    operation = Operation("rms_norm", {"channels": channels, "eps": view.number("epsilon", 1e-8)})
    return Translation((("", operation),), view.shape, (Weight("scale", (channels,), "weight"),))


def normalization(view: LayerView) -> Translation:
    """(x - mean) / max(sqrt(variance), 1e-7) with stored statistics."""
    view.require_last_axis()
    if view.config.get("invert") or view.config.get("mean") is not None or view.config.get("variance") is not None:
        raise view.refuse("fixed or inverted statistics")
    channels = view.shape[-1]
    weights = (
        Weight("mean", (channels,), "mean", learned=False),
        Weight("variance", (channels,), "variance", learned=False),
        Weight("count", (), "", learned=False),
    )
    return Translation((("", Operation("fixed_norm", {"channels": channels})),), view.shape, weights)


def prelu(view: LayerView) -> Translation:
    """One slope per element, shared along `shared_axes`."""
    shared = view.config.get("shared_axes") or []
    if not isinstance(shared, list) or any(axis not in range(1, len(view.shape) + 1) for axis in shared):
        raise damaged(view.source, f"layer {shown(view.name)}: shared_axes are {shown(shared)}")
    stored = tuple(1 if axis + 1 in shared else n for axis, n in enumerate(view.shape))
    layout = Layout(axes=(2, 0, 1)) if len(stored) == 3 else Layout()
    operation = Operation("prelu", {"shape": list(layout.result_shape(stored))})
    return Translation((("", operation),), view.shape, (Weight("alpha", stored, "weight", layout),))


def layer_scale(view: LayerView) -> Translation:
    """One factor per channel."""
    channels = view.shape[-1]
    operation = Operation("channel_scale", {"channels": channels})
    return Translation((("", operation),), view.shape, (Weight("gamma", (channels,), "weight"),))


def attention(view: LayerView) -> Translation:
    """Query and value (N, T, D); kernels (D, heads, size) and back (heads, size, D)."""
    tokens, dimension = view.shape if len(view.shape) == 2 else (0, 0)
    if not tokens or any(shape[-1] != dimension for shape in view.shapes):
        raise view.refuse("inputs that are not tokens of one width")
    heads, size = view.integer("num_heads", 1_024), view.integer("key_dim", 16_384)
    value_size = size if view.config.get("value_dim") is None else view.integer("value_dim", 16_384)
    if view.config.get("output_shape") is not None or view.config.get("attention_axes") not in (None, [1], 1):
        raise view.refuse("another output shape or other axes")
    bias = view.flag("use_bias", True)
    attributes = {
        "dimension": dimension,
        "heads": heads,
        "key_size": size,
        "value_size": value_size,
        "outputs": dimension,
        "bias": bias,
    }
    weights = []
    for name, width in (("query", size), ("key", size), ("value", value_size)):
        into = Layout(axes=(1, 2, 0), shape=(heads * width, dimension))
        weights.append(Weight("kernel", (dimension, heads, width), f"{name}.weight", into, place=f"{name}_dense"))
        if bias:
            flat = Layout(shape=(heads * width,))
            weights.append(Weight("bias", (heads, width), f"{name}.bias", flat, place=f"{name}_dense"))
    back = Layout(axes=(2, 0, 1), shape=(dimension, heads * value_size))
    weights.append(Weight("kernel", (heads, value_size, dimension), "output.weight", back, place="output_dense"))
    if bias:
        weights.append(Weight("bias", (dimension,), "output.bias", place="output_dense"))
    return Translation((("", Operation("attention", attributes)),), view.shape, tuple(weights))


def table(view: LayerView) -> Translation:
    """A class embedding (D), a positional table (T, D) or a projection (D, P), the same for every sample.

    Its size stands nowhere but in the shapes that the file records for its consumers."""
    shape = view.recorded
    if shape is None or not 1 <= len(shape) <= 2 or any(n < 1 for n in shape):
        raise view.refuse("a table whose size the file does not tell")
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    stored: Shape = (rows, columns)
    layout = Layout()
    if view.class_name == "ClassEmbedding":
        stored, layout = (columns,), Layout(shape=(1, columns))
        if rows != 1:
            raise view.refuse(f"a class embedding of shape {shape}")
    elif view.class_name == "Projection":
        stored, layout = (columns, rows), DENSE
    parts: Parts = [("", Operation("table", {"rows": rows, "columns": columns}))]
    if len(shape) == 1:
        parts.append(("row", Operation("reshape", {"shape": [columns]})))
    return Translation(tuple(parts), view.checked(shape), (Weight("table", stored, "weight", layout),))


WEIGHTED: dict[str, Callable[[LayerView], Translation]] = {
    "Conv2D": conv2d,
    "DepthwiseConv2D": depthwise_conv2d,
    "SeparableConv2D": separable_conv2d,
    "Conv2DTranspose": conv2d_transpose,
    "Dense": dense,
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "Normalization": normalization,
    "PReLU": prelu,
    "LayerScale": layer_scale,
    "MultiHeadAttention": attention,
    "ClassEmbedding": table,
    "PositionalEmbedding": table,
    "Projection": table,
}
