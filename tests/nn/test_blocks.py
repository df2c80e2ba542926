"""The blocks against hand-written formulas."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fsdeploy.nn import (
    Conv2DBlock,
    Conv2DOutput,
    InstanceNormalization,
    ResidualBlock,
    SameConv2d,
    SeparableConv2DBlock,
    Upscale2xBlock,
    UpscaleBlock,
)  # fmt: skip
from fsdeploy.nn.conv import same_padding
from fsdeploy.nn.initializers import convolution_aware_, glorot_uniform_, he_uniform_, icnr_, residual_uniform_
from fsdeploy.nn.options import reflect_padding, restart_weights


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (64, 5, 2, (1, 2)), (65, 5, 2, (2, 2)), (64, 3, 2, (0, 1)), (64, 4, 1, (1, 2)), (64, 3, 1, (1, 1)),
        (7, 5, 1, (2, 2)), (64, 1, 1, (0, 0)), (5, 3, 3, (0, 1)),
    ],
)  # fmt: skip
def test_same_padding_puts_the_odd_row_after(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def correlate(
    x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64], stride: int, mode: str
) -> NDArray[np.float64]:
    """SAME convolution of one image (C, H, W) by loops."""
    kernel = weight.shape[2]
    out = -(-x.shape[1] // stride)
    total = max((out - 1) * stride + kernel - x.shape[1], 0)
    pad = (total // 2, total - total // 2)
    padded = np.pad(x, ((0, 0), pad, pad), mode=mode)  # type: ignore[call-overload]
    result = np.empty((weight.shape[0], out, out))
    for row in range(out):
        for column in range(out):
            window = padded[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            result[:, row, column] = (weight * window).sum(axis=(1, 2, 3)) + bias
    return result


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 5, 2), (9, 5, 2), (8, 3, 2), (8, 3, 1), (6, 4, 1)])
def test_a_same_convolution_equals_one_by_loops(size: int, kernel: int, stride: int, reflect: bool) -> None:
    conv = SameConv2d(2, 3, kernel, stride)
    nn.init.normal_(conv.bias)  # type: ignore[arg-type]
    if reflect:
        reflect_padding(conv)
    x = torch.randn(1, 2, size, size)
    expected = correlate(
        x[0].double().numpy(), conv.weight.detach().double().numpy(), conv.bias.detach().double().numpy(),  # type: ignore[union-attr]
        stride, "reflect" if reflect else "constant",
    )  # fmt: skip
    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-5)


def test_reflection_leaves_outputs_and_plain_convolutions_alone() -> None:
    network = nn.ModuleList([Conv2DBlock(3, 4), UpscaleBlock(4, 4), Upscale2xBlock(4, 4), Conv2DOutput(4, 3)])
    reflect_padding(network)
    found = {name: module.reflect for name, module in network.named_modules() if isinstance(module, SameConv2d)}
    assert found == {"0.conv": True, "1.conv": True, "2.shuffled.conv": True, "2.resized": False, "3": False}


def test_an_upscale_block_activates_before_it_shuffles() -> None:
    block = UpscaleBlock(2, 3)
    x = torch.randn(2, 2, 5, 5)
    planes = torch.nn.functional.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    planes = torch.where(planes > 0, planes, 0.1 * planes).detach()
    expected = torch.zeros(2, 3, 10, 10)
    for channel in range(3):
        for row in range(2):
            for column in range(2):
                expected[:, channel, row::2, column::2] = planes[:, channel * 4 + row * 2 + column]
    torch.testing.assert_close(block(x).detach(), expected)


@pytest.mark.parametrize(("fast", "wanted", "channels"), [(False, 8, 8), (False, 35, 36), (True, 8, 8)])
def test_a_double_upscale_block_has_both_branches(fast: bool, wanted: int, channels: int) -> None:
    block = Upscale2xBlock(4, wanted, fast=fast)
    x = torch.randn(1, 4, 6, 6)
    assert block(x).shape == (1, channels, 12, 12)
    assert block.out_channels == channels
    nn.init.zeros_(block.resized.weight)
    expected = block.shuffled(x)
    torch.testing.assert_close(block(x)[:, : expected.shape[1]], expected)


def test_a_residual_block_adds_its_input_and_starts_small() -> None:
    block = ResidualBlock(4)
    x = torch.randn(1, 4, 6, 6)
    conv = torch.nn.functional.conv2d
    inner = torch.nn.functional.leaky_relu(conv(x, block.conv_1.weight, padding=1), 0.2)
    expected = torch.nn.functional.leaky_relu(x + conv(inner, block.conv_2.weight, padding=1), 0.2)
    torch.testing.assert_close(block(x), expected)
    assert float(block.conv_2.weight.detach().abs().max()) <= np.sqrt(0.6 / 36)


def test_a_separable_block_halves_the_size_and_never_goes_negative() -> None:
    block = SeparableConv2DBlock(6, 8)
    out = block(torch.randn(2, 6, 12, 12))
    assert out.shape == (2, 8, 6, 6)
    assert float(out.detach().min()) >= 0.0
    assert float(block.depthwise.weight.detach().abs().max()) <= np.sqrt(6 / (25 * 6))


def test_instance_normalization_takes_all_of_a_sample_together_and_adds_eps_to_the_deviation() -> None:
    x = torch.randn(3, 4, 5, 5) * 7 + 2
    values = x.double().numpy().reshape(3, -1)
    expected = (values - values.mean(1, keepdims=True)) / (values.std(1, keepdims=True) + 1e-3)
    norm = InstanceNormalization()
    np.testing.assert_allclose(norm(x).detach().numpy().reshape(3, -1), expected, atol=1e-5)


def test_the_output_is_float32_under_autocast() -> None:
    output = Conv2DOutput(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = output(torch.randn(1, 4, 8, 8))
    assert image.dtype == torch.float32
    assert 0.0 < float(image.min()) <= float(image.max()) < 1.0


def test_initialisers_keep_their_bounds_and_biases_start_at_zero() -> None:
    weight = torch.empty(64, 32, 5, 5)
    for initializer, bound in (
        (he_uniform_, np.sqrt(6 / 800)), (residual_uniform_, np.sqrt(0.6 / 800)),
        (glorot_uniform_, np.sqrt(6 / (800 + 1600))),
    ):  # fmt: skip
        initializer(weight)
        assert 0.99 * bound < float(weight.abs().max()) <= bound
        assert float(weight.var()) == pytest.approx(bound**2 / 3, rel=0.05)
    assert float(SameConv2d(3, 4, 3).bias.abs().max()) == 0.0  # type: ignore[union-attr]


@pytest.mark.parametrize("scale", [2, 4])
def test_icnr_starts_as_nearest_neighbour_resizing(scale: int) -> None:
    block = UpscaleBlock(3, 2, scale=scale)
    restart_weights(block, icnr=True, conv_aware=False)
    out = block(torch.randn(1, 3, 4, 4))
    cells = out.unfold(2, scale, scale).unfold(3, scale, scale)
    assert float((cells - cells[..., :1, :1]).abs().max()) < 1e-6
    with pytest.raises(ValueError, match="cannot be shuffled"):
        icnr_(torch.empty(6, 3, 3, 3), he_uniform_, 2)


def test_convolution_aware_filters_have_the_variance_of_he_and_orthogonal_spectra() -> None:
    weight = torch.empty(8, 6, 5, 5)
    convolution_aware_(weight)
    assert float(weight.var(correction=0)) == pytest.approx(2 / (6 * 25), rel=1e-4)
    convolution_aware_(weight, noise=0.0)
    spectra = torch.fft.rfft2(weight).reshape(8, 6, -1)
    gram = (spectra @ spectra.mH).abs()
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # The inverse real FFT drops the imaginary part of a few bins, so the rows are nearly, not exactly, orthogonal.
    assert float((gram - torch.diag_embed(diagonal)).mean()) < 0.2 * float(diagonal.mean())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("size", [16, 17])
def test_uneven_padding_is_exported_as_conv_attributes(size: int) -> None:
    network = nn.Sequential(
        Conv2DBlock(3, 4), SeparableConv2DBlock(4, 6), UpscaleBlock(6, 2), Conv2DOutput(2, 3)
    ).eval()
    x = torch.randn(3, 3, size, size)
    buffer = io.BytesIO()
    torch.onnx.export(
        network, (x[:1],), buffer, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes={"x": {0: "N"}}
    )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= {
        "Conv", "LeakyRelu", "Relu", "DepthToSpace", "Sigmoid", "Identity",
    }  # fmt: skip
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], network(x).detach().numpy(), atol=1e-6)


def test_the_blocks_compile_to_one_graph_and_export_with_a_free_batch() -> None:
    network = nn.Sequential(
        Conv2DBlock(3, 4), SeparableConv2DBlock(4, 4), InstanceNormalization(), UpscaleBlock(4, 2), Conv2DOutput(2, 3)
    )
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("N", min=2)},))
    more = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(exported.module()(more), network(more))
