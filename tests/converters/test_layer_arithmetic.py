"""Each layer class, against values computed by hand or by plain loops in the file's own (N, H, W, C) order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsdeploy.errors import FsdeployError, HostileFileError, UnsupportedFormatError
from fsdeploy.model.graph.network import GraphNet
from fsdeploy_converters.keras_graph import KerasCall, KerasLayer, KerasNet, Ref
from fsdeploy_converters.layer_config import Dialect
from fsdeploy_converters.translate import translate_net

RNG = np.random.default_rng(7)


def values(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def to_torch(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2) if array.ndim == 4 else array))


def from_torch(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def single(class_name, config, inputs, dialect=Dialect.KERAS2, constants=None, recorded=None, bare=None):
    """A net of one layer, translated."""
    layers = {
        f"in{i}": KerasLayer("InputLayer", f"in{i}", {"batch_shape": [None, *array.shape[1:]]}, ())
        for i, array in enumerate(inputs)
    }
    refs = tuple(Ref(name, 0, 0) for name in layers)
    arguments = () if bare is None else tuple(refs[0] if entry == "x" else entry for entry in bare)
    call = KerasCall(refs, constants or {}, arguments)
    layers["layer"] = KerasLayer(class_name, "layer", config, (call,), bare=bare is not None)
    output = Ref("layer", 0, 0, recorded)
    if recorded is not None:
        layers["after"] = KerasLayer("Activation", "after", {"activation": "linear"}, (KerasCall((output,)),))
        output = Ref("after", 0, 0)
    return translate_net(KerasNet("net", layers, refs, (output,)), dialect, "test.h5")


def run(class_name, config, *inputs, weights=(), train=False, **options):
    """Output (N, H, W, C) of one layer with `weights` in the file's order and layout."""
    built = single(class_name, config, inputs, **options)
    net = GraphNet(built.net)
    assert [slot.shape for slot in built.slots] == [np.shape(array) for array in weights]
    state = {
        s.target: torch.from_numpy(s.layout.apply(w)) for s, w in zip(built.slots, weights, strict=True) if s.target
    }
    net.load_state_dict(state)
    output = net.train(train)(*(to_torch(array) for array in inputs))
    shape = built.outputs[0]
    assert from_torch(output).shape[1:] == shape, "the shape that was derived is the shape that comes out"
    return from_torch(output)


def correlate(image, kernel, stride=1, pads=((0, 0), (0, 0)), dilation=1):
    """Cross-correlation of (H, W, C) with (kh, kw, C, F)."""
    padded = np.pad(image, (*pads, (0, 0))).astype(np.float64)
    reach = [(n - 1) * dilation + 1 for n in kernel.shape[:2]]
    height, width = ((padded.shape[axis] - reach[axis]) // stride + 1 for axis in (0, 1))
    out = np.zeros((height, width, kernel.shape[3]))
    for y in range(height):
        for x in range(width):
            rows = slice(y * stride, y * stride + reach[0], dilation)
            columns = slice(x * stride, x * stride + reach[1], dilation)
            out[y, x] = np.einsum("ijc,ijcf->f", padded[rows, columns], kernel)
    return out


def conv_config(filters, kernel, stride=1, **more):
    return {"filters": filters, "kernel_size": [kernel] * 2, "strides": [stride] * 2, "padding": "same", **more}


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "before", "after"),
    [(8, 5, 2, 1, 1, 2), (9, 5, 2, 1, 2, 2), (8, 3, 2, 1, 0, 1), (6, 4, 1, 1, 1, 2), (7, 3, 1, 2, 2, 2)],
)
def test_a_same_convolution_puts_the_odd_zero_behind(size, kernel, stride, dilation, before, after):
    image, weight, bias = values(1, size, size, 2), values(kernel, kernel, 2, 3), values(3)
    config = conv_config(3, kernel, stride, dilation_rate=[dilation] * 2)
    expected = correlate(image[0], weight, stride, ((before, after),) * 2, dilation) + bias
    np.testing.assert_allclose(run("Conv2D", config, image, weights=(weight, bias))[0], expected, atol=1e-5)


def test_a_valid_convolution_with_groups_and_an_activation():
    image, weight = values(1, 5, 6, 4), values(2, 2, 2, 6)
    config = {**conv_config(6, 2, groups=2, use_bias=False, activation="relu"), "padding": "valid"}
    halves = [correlate(image[0][..., 2 * g : 2 * g + 2], weight[..., 3 * g : 3 * g + 3]) for g in (0, 1)]
    expected = np.maximum(np.concatenate(halves, -1), 0)
    np.testing.assert_allclose(run("Conv2D", config, image, weights=(weight,))[0], expected, atol=1e-5)


def test_a_depthwise_convolution_numbers_its_outputs_by_channel_then_multiplier():
    image, weight, bias = values(1, 6, 6, 3), values(3, 3, 3, 2), values(6)
    config = {**conv_config(1, 3, 2), "depth_multiplier": 2}
    single_channel = [
        correlate(image[0][..., c : c + 1], weight[:, :, c : c + 1, m : m + 1], 2, ((0, 1),) * 2)
        for c in range(3)
        for m in range(2)
    ]
    expected = np.concatenate(single_channel, -1) + bias
    np.testing.assert_allclose(run("DepthwiseConv2D", config, image, weights=(weight, bias))[0], expected, atol=1e-5)


def test_a_separable_convolution_adds_its_bias_after_the_pointwise_part():
    image, depth, point, bias = values(1, 6, 6, 3), values(5, 5, 3, 1), values(1, 1, 3, 4), values(4)
    config = conv_config(4, 5, 2, activation="relu")
    channels = [correlate(image[0][..., c : c + 1], depth[:, :, c : c + 1], 2, ((1, 2),) * 2) for c in range(3)]
    expected = np.maximum(np.concatenate(channels, -1) @ point[0, 0] + bias, 0)
    np.testing.assert_allclose(
        run("SeparableConv2D", config, image, weights=(depth, point, bias))[0], expected, atol=1e-5
    )


@pytest.mark.parametrize(("dialect", "first"), [(Dialect.KERAS2, 0), (Dialect.KERAS3, 1)])
def test_a_transposed_convolution_drops_the_last_row_in_keras_2_and_the_first_in_keras_3(dialect, first):
    image, weight, bias = values(1, 3, 4, 2), values(3, 3, 5, 2), values(5)
    full = np.zeros((7, 9, 5))
    for y in range(3):
        for x in range(4):
            full[2 * y : 2 * y + 3, 2 * x : 2 * x + 3] += np.einsum("ijfc,c->ijf", weight, image[0, y, x])
    expected = full[first : first + 6, first : first + 8] + bias
    result = run("Conv2DTranspose", conv_config(5, 3, 2), image, weights=(weight, bias), dialect=dialect)
    np.testing.assert_allclose(result[0], expected, atol=1e-5)


def test_a_dense_layer_multiplies_rows_and_works_on_the_last_axis_of_images():
    vector, image, weight, bias = values(2, 4), values(2, 3, 3, 4), values(4, 5), values(5)
    for given in (vector, image):
        result = run("Dense", {"units": 5}, given, weights=(weight, bias))
        np.testing.assert_allclose(result, given @ weight + bias, atol=1e-5)


def test_flatten_and_reshape_keep_the_channel_fastest():
    image = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
    np.testing.assert_array_equal(run("Flatten", {}, image), image.reshape(2, -1))
    np.testing.assert_array_equal(run("Reshape", {"target_shape": [4, 3, 2]}, image), image.reshape(2, 4, 3, 2))
    np.testing.assert_array_equal(run("Reshape", {"target_shape": [6, -1]}, image), image.reshape(2, 6, 4))
    np.testing.assert_array_equal(run("Reshape", {"target_shape": [2, 3, 4]}, image.reshape(2, -1)), image)


def test_a_pixel_shuffle_reads_the_block_position_from_the_slow_part_of_the_channel():
    image = values(1, 2, 3, 8)
    expected = np.zeros((4, 6, 2), np.float32)
    for y, x, i, j, f in np.ndindex(2, 3, 2, 2, 2):
        expected[2 * y + i, 2 * x + j, f] = image[0, y, x, (i * 2 + j) * 2 + f]
    for name, config in (("PixelShuffler", {"size": [2, 2]}), ("SubPixelUpscaling", {"scale_factor": 2})):
        np.testing.assert_array_equal(run(name, config, image)[0], expected)


@pytest.mark.parametrize(
    ("size", "stride", "kernel", "pads"), [(8, 2, 5, (1, 2)), (7, 2, 5, (2, 2)), (6, 1, 3, (1, 1))]
)
def test_reflection_padding_has_the_amounts_of_a_same_convolution(size, stride, kernel, pads):
    image = values(1, size, size, 2)
    expected = np.pad(image[0], (pads, pads, (0, 0)), "reflect")
    result = run("ReflectionPadding2D", {"stride": stride, "kernel_size": kernel}, image)
    np.testing.assert_array_equal(result[0], expected)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [(Dialect.KERAS1, [0, 0.5, 1, 2.5, 4, 4]), (Dialect.KERAS2, [0, 0.25, 0.75, 1.75, 3.25, 4])],
)
def test_bilinear_upsampling_shifts_by_half_a_pixel_since_tensorflow_2(dialect, expected):
    row = np.array([0, 1, 4], np.float32).reshape(1, 1, 3, 1)
    result = run("UpSampling2D", {"size": [1, 2], "interpolation": "bilinear"}, row, dialect=dialect)
    np.testing.assert_allclose(result.reshape(-1), expected, atol=1e-6)


def test_upsampling_by_nearest_repeats_pixels():
    image = values(1, 2, 3, 2)
    expected = image[0].repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(run("UpSampling2D", {"size": [2, 2], "interpolation": "nearest"}, image)[0], expected)
    np.testing.assert_array_equal(run("KResizeImages", {"size": 2, "interpolation": "nearest"}, image)[0], expected)


def test_resizing_by_a_fraction_goes_to_the_rounded_size():
    ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1).repeat(4, 1)
    result = run("KResizeImages", {"size": 1.5, "interpolation": "bilinear"}, ramp)
    assert result.shape == (1, 6, 6, 1)
    np.testing.assert_allclose(result[0, 0, :, 0], [0, 0.5, 7 / 6, 11 / 6, 2.5, 3], atol=1e-6)


def test_batch_normalisation_uses_stored_statistics_and_updates_them_in_training():
    image, gamma, beta, mean, variance = values(2, 3, 3, 2), values(2), values(2), values(2), abs(values(2)) + 0.1
    config = {"axis": [3], "epsilon": 1e-3, "momentum": 0.9}
    expected = (image - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    weights = (gamma, beta, mean, variance)
    np.testing.assert_allclose(run("BatchNormalization", config, image, weights=weights), expected, atol=1e-5)
    learned = run("BatchNormalization", config, image, weights=weights, train=True)
    own = (image - image.mean((0, 1, 2))) / np.sqrt(image.var((0, 1, 2)) + 1e-3) * gamma + beta
    np.testing.assert_allclose(learned, own, atol=1e-5)


def test_instance_normalisation_adds_epsilon_to_the_deviation_and_spans_all_axes():
    image, gamma, beta = values(2, 4, 4, 3), values(1), values(1)
    centred = image - image.mean((1, 2, 3), keepdims=True)
    expected = centred / (image.std((1, 2, 3), keepdims=True) + 1e-3) * gamma + beta
    result = run("InstanceNormalization", {"axis": None, "epsilon": 1e-3}, image, weights=(gamma, beta))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    gamma, beta = values(3), values(3)
    expected = (image - image.mean((1, 2), keepdims=True)) / (image.std((1, 2), keepdims=True) + 1e-3) * gamma + beta
    result = run("InstanceNormalization", {"axis": -1, "epsilon": 1e-3}, image, weights=(gamma, beta))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_adaptive_normalisation_takes_the_shift_second_and_the_scale_third():
    image, shift, scale = values(2, 4, 4, 3), values(2, 1, 1, 3), values(2, 1, 1, 3)
    expected = (image - image.mean((1, 2), keepdims=True)) / (image.std((1, 2), keepdims=True) + 1e-3) * scale + shift
    np.testing.assert_allclose(run("AdaInstanceNormalization", {}, image, shift, scale), expected, atol=1e-5)


def test_group_layer_and_rms_normalisation():
    image = values(2, 3, 3, 64)
    gamma, beta = values(1, 1, 1, 64), values(1, 1, 1, 64)
    grouped = image.reshape(2, 3, 3, 32, 2)
    mean, variance = grouped.mean((1, 2, 4), keepdims=True), grouped.var((1, 2, 4), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(image.shape) * gamma + beta
    result = run("GroupNormalization", {"axis": -1, "epsilon": 1e-6}, image, weights=(gamma, beta))
    np.testing.assert_allclose(result, expected, atol=1e-4)
    gamma, beta = values(64), values(64)
    mean, variance = image.mean(-1, keepdims=True), image.var(-1, keepdims=True)
    result = run("LayerNormalization", {"axis": [3], "epsilon": 1e-3}, image, weights=(gamma, beta))
    np.testing.assert_allclose(result, (image - mean) / np.sqrt(variance + 1e-3) * gamma + beta, atol=1e-5)
    result = run("RMSNormalization", {"axis": -1, "epsilon": 1e-8}, image, weights=(gamma,))
    np.testing.assert_allclose(result, gamma * image / np.sqrt((image**2).mean(-1, keepdims=True) + 1e-8), atol=1e-5)


def test_a_fixed_normalisation_divides_by_the_stored_deviation():
    image, mean = values(1, 2, 2, 3), values(3)
    variance = np.array([4.0, 0.0, 0.25], np.float32)
    result = run("Normalization", {"axis": -1}, image, weights=(mean, variance, np.int32(5)), dialect=Dialect.KERAS3)
    np.testing.assert_allclose(result, (image - mean) / [2.0, 1e-7, 0.5], rtol=1e-5)


def test_activations():
    x = np.array([[-4.0, -1.0, 0.0, 0.5, 7.0]], np.float32)
    sigmoid = 1 / (1 + np.exp(-x))
    for config, expected in (({"alpha": 0.10000000149011612}, 0.1), ({"negative_slope": 0.2}, 0.2)):
        np.testing.assert_allclose(run("LeakyReLU", config, x), np.where(x < 0, expected * x, x), rtol=1e-6)
    np.testing.assert_allclose(run("ReLU", {"max_value": 6.0}, x), np.clip(x, 0, 6))
    np.testing.assert_allclose(run("Swish", {"beta": 2.0}, x), 2 * x / (1 + np.exp(-2 * x)), rtol=1e-5)
    np.testing.assert_allclose(run("QuickGELU", {}, x), x / (1 + np.exp(-1.702 * x)), rtol=1e-5)
    np.testing.assert_allclose(run("Activation", {"activation": "sigmoid"}, x), sigmoid, rtol=1e-6)
    np.testing.assert_allclose(run("Activation", {"activation": "swish"}, x), x * sigmoid, rtol=1e-5)
    fifth, sixth = np.clip(0.2 * x + 0.5, 0, 1), np.clip(x + 3, 0, 6) / 6
    np.testing.assert_allclose(run("Activation", {"activation": "hard_sigmoid"}, x), fifth, atol=1e-6)
    result = run("Activation", {"activation": "hard_sigmoid"}, x, dialect=Dialect.KERAS3)
    np.testing.assert_allclose(result, sixth, atol=1e-6)


def test_a_learned_slope_per_element():
    image, alpha = values(1, 2, 3, 4), values(2, 3, 4)
    np.testing.assert_allclose(run("PReLU", {}, image, weights=(alpha,)), np.where(image < 0, alpha * image, image))
    alpha = values(1, 1, 4)
    result = run("PReLU", {"shared_axes": [1, 2]}, image, weights=(alpha,))
    np.testing.assert_allclose(result, np.where(image < 0, alpha * image, image))


def test_pooling_drops_odd_edges_and_never_counts_padding():
    image = values(1, 5, 5, 2)
    blocks = image[0, :4, :4].reshape(2, 2, 2, 2, 2)
    np.testing.assert_allclose(run("AveragePooling2D", {"pool_size": [2, 2]}, image)[0], blocks.mean((1, 3)), atol=1e-6)
    np.testing.assert_allclose(run("MaxPooling2D", {"pool_size": [2, 2]}, image)[0], blocks.max((1, 3)))
    config = {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"}
    row = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 4, 1).repeat(4, 1)
    np.testing.assert_allclose(run("AveragePooling2D", config, row)[0, 0, :, 0], [2, 3.5])
    np.testing.assert_allclose(run("MaxPooling2D", config, -row)[0, 0, :, 0], [-1, -3])


def test_global_pooling():
    image = values(2, 3, 4, 5)
    for name, function in (("Average", "mean"), ("Max", "max"), ("Min", "min"), ("StdDev", "std")):
        result = run(f"Global{name}Pooling2D", {"keepdims": False}, image)
        np.testing.assert_allclose(result, getattr(image, function)((1, 2)), atol=1e-6)
    assert run("GlobalAveragePooling2D", {"keepdims": True}, image).shape == (2, 1, 1, 5)


def test_joins():
    a, b, row = values(2, 3, 3, 4), values(2, 3, 3, 4), values(2, 1, 1, 4)
    np.testing.assert_allclose(run("Add", {}, a, b), a + b)
    np.testing.assert_allclose(run("Multiply", {}, a, row), a * row)
    np.testing.assert_allclose(run("Subtract", {}, a, b), a - b)
    np.testing.assert_allclose(run("Concatenate", {"axis": -1}, a, b), np.concatenate([a, b], -1))
    np.testing.assert_allclose(run("Concatenate", {"axis": 1}, a, b), np.concatenate([a, b], 1))
    known = {"module": "keras.applications.inception_resnet_v2", "function": ["4wEAAA=="], "arguments": {"scale": 0.17}}
    np.testing.assert_allclose(run("Lambda", known, a, b), a + np.float32(0.17) * b, rtol=1e-6)


def test_edges():
    image = values(1, 4, 5, 2)
    padded = np.pad(image[0], ((1, 2), (3, 0), (0, 0)))
    np.testing.assert_array_equal(run("ZeroPadding2D", {"padding": [[1, 2], [3, 0]]}, image)[0], padded)
    np.testing.assert_array_equal(run("Cropping2D", {"cropping": [[1, 0], [2, 1]]}, image)[0], image[0, 1:, 2:4])


def test_scaling_by_constants():
    image = values(1, 2, 2, 3)
    given = {"scale": [1.0, 2.0, 3.0], "offset": -1.0}
    np.testing.assert_allclose(run("Rescaling", given, image), image * [1, 2, 3] - 1, rtol=1e-6)
    result = run("TFOpLambda", {"function": "math.multiply"}, image, constants={"y": 255.0, "name": None})
    np.testing.assert_allclose(result, image * 255, rtol=1e-6)
    result = run("ScalarOp", {"operation": "truediv", "value": 4.0}, image, dialect=Dialect.KERAS3)
    np.testing.assert_allclose(result, image / 4)
    result = run("Subtract", {}, image, bare=("x", 1.0), dialect=Dialect.KERAS3)
    np.testing.assert_allclose(result, image - 1)
    result = run("Subtract", {}, image, bare=(1.0, "x"), dialect=Dialect.KERAS3)
    np.testing.assert_allclose(result, 1 - image)


def test_attention_and_tables():
    tokens = values(2, 5, 6)
    heads, size = 3, 2
    q, k, v = (values(6, heads, size) for _ in range(3))
    qb, kb, vb = (values(heads, size) for _ in range(3))
    out, ob = values(heads, size, 6), values(6)
    project = lambda kernel, bias: np.einsum("ntd,dhs->nhts", tokens, kernel) + bias[None, :, None]  # noqa: E731
    scores = np.einsum("nhts,nhus->nhtu", project(q, qb), project(k, kb)) / np.sqrt(size)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("nhtu,nhus->nths", scores / scores.sum(-1, keepdims=True), project(v, vb))
    expected = np.einsum("nths,hsd->ntd", mixed, out) + ob
    config = {"num_heads": heads, "key_dim": size, "value_dim": None}
    result = run("MultiHeadAttention", config, tokens, tokens, weights=(q, qb, k, kb, v, vb, out, ob))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    table = values(5, 6)
    result = run("PositionalEmbedding", {}, tokens, weights=(table,), recorded=(5, 6), dialect=Dialect.KERAS3)
    np.testing.assert_array_equal(result, np.stack([table] * 2))
    result = run("ClassEmbedding", {}, tokens, weights=(table[0],), recorded=(1, 6), dialect=Dialect.KERAS3)
    np.testing.assert_array_equal(result, np.stack([table[:1]] * 2))
    matrix = values(6, 4)
    result = run("Projection", {}, tokens, weights=(matrix,), recorded=(4, 6), dialect=Dialect.KERAS3)
    np.testing.assert_array_equal(result, np.stack([matrix.T] * 2))
    np.testing.assert_allclose(run("Dot", {"axes": -1}, tokens[:, 0], result), tokens[:, 0] @ matrix, atol=1e-5)
    first = [("slice", None, None, None), 0]
    result = run("GetItem", {}, tokens, bare=("x", first), dialect=Dialect.KERAS3)
    np.testing.assert_array_equal(result, tokens[:, 0])


def test_what_only_works_in_training_is_the_identity_at_inference():
    image = values(2, 3, 3, 4)
    for name, config in (
        ("Dropout", {"rate": 0.5}),
        ("SpatialDropout2D", {"rate": 0.5}),
        ("GaussianNoise", {"stddev": 1.0}),
    ):
        np.testing.assert_array_equal(run(name, config, image), image)
        assert not np.array_equal(run(name, config, image, train=True), image)


@pytest.mark.parametrize(
    ("class_name", "config", "error"),
    [
        ("Lambda", {"module": "builtins", "function": ["4wEAAA=="], "arguments": {"scale": 1.0}}, HostileFileError),
        ("TFOpLambda", {"function": "io.read_file"}, HostileFileError),
        ("os.system", {}, UnsupportedFormatError),
        ("Conv2D", {"filters": 10**12, "kernel_size": [3, 3]}, HostileFileError),
        ("Conv2D", {"filters": 4, "kernel_size": [999, 999]}, HostileFileError),
        ("Reshape", {"target_shape": [10**9, 10**9]}, FsdeployError),
        ("UpSampling2D", {"size": [10**6, 10**6]}, HostileFileError),
        ("Dense", {"units": "4"}, FsdeployError),
        ("LeakyReLU", {"alpha": float("nan")}, FsdeployError),
    ],
)
def test_a_layer_that_claims_too_much_is_refused_before_anything_is_built(class_name, config, error):
    with pytest.raises(error):
        single(class_name, config, [values(1, 4, 4, 3)])
