"""The plugins against values that the original system computed (specification of the networks, golden values).

Every tensor is filled from a hash of its Keras name, converted to torch layout, and both sides run on one image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fsdeploy.config.training import LossOptions, MaskOptions, TrainingOptions
from fsdeploy.model.registry import model_class

Array = NDArray[np.float32]


def hashed(count: int, name: str) -> NDArray[np.float64]:
    """Values in -0.5..0.5 that depend on the name alone."""
    x = np.arange(count, dtype=np.uint32)
    x *= np.uint32(2654435761)
    x += np.uint32(zlib.crc32(name.encode()))
    x ^= x >> np.uint32(15)
    x *= np.uint32(2246822519)
    x ^= x >> np.uint32(13)
    x *= np.uint32(3266489917)
    x ^= x >> np.uint32(16)
    return x / 2.0**32 - 0.5


def kernel(name: str, *shape: int) -> Array:
    values = hashed(int(np.prod(shape)), f"{name}/kernel")
    values *= np.sqrt(18 / np.prod(shape[:-1]))
    return values.reshape(shape).astype(np.float32)


def bias(name: str, size: int) -> Array:
    return (0.2 * hashed(size, f"{name}/bias")).astype(np.float32)


def conv(name: str, edge: int, narrow: int, wide: int) -> dict[str, Array]:
    return {"weight": kernel(name, edge, edge, narrow, wide).transpose(3, 2, 0, 1), "bias": bias(name, wide)}


def shuffled_conv(name: str, narrow: int, wide: int) -> dict[str, Array]:
    order = np.arange(wide * 4).reshape(2, 2, wide).transpose(2, 0, 1).reshape(-1)
    return {key: value[order] for key, value in conv(name, 3, narrow, wide * 4).items()}


def dense_after_flatten(name: str, edge: int, channels: int, size: int) -> dict[str, Array]:
    weight = kernel(name, edge * edge * channels, size).reshape(edge, edge, channels, size)
    return {"weight": weight.transpose(3, 2, 0, 1).reshape(size, -1), "bias": bias(name, size)}


def dense_before_reshape(name: str, size: int, edge: int, channels: int) -> dict[str, Array]:
    weight = kernel(name, size, edge * edge * channels).reshape(size, edge, edge, channels)
    flat_bias = bias(name, edge * edge * channels).reshape(edge, edge, channels).transpose(2, 0, 1).reshape(-1)
    return {"weight": weight.transpose(3, 1, 2, 0).reshape(-1, size), "bias": flat_bias}


class Names:
    """Layer names with one process-wide counter per base name, as the original system gives them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __call__(self, base: str) -> str:
        count = self.counts[base] = self.counts.get(base, -1) + 1
        return f"{base}_{count}"


def encoder(names: Names, down: tuple[int, ...], code: int, inner: int, up: int) -> dict[str, dict[str, Array]]:
    edge = 64 // 2 ** len(down)
    tensors = {
        f"encoder.down.{i}.conv": conv(f"encoder/{names(f'conv_{wide}')}_conv2d", 5, narrow, wide)
        for i, (narrow, wide) in enumerate(zip((3, *down), down, strict=False))
    }
    tensors["encoder.dense_1"] = dense_after_flatten("encoder/dense", edge, down[-1], code)
    tensors["encoder.dense_2"] = dense_before_reshape("encoder/dense_1", code, 4, inner)
    tensors["encoder.up.conv"] = shuffled_conv(f"encoder/{names(f'upscale_{up}')}_conv2d_conv2d", inner, up)
    return tensors


def decoder(names: Names, side: str, code: int, widths: tuple[int, ...], mask: bool) -> dict[str, dict[str, Array]]:
    tensors: dict[str, dict[str, Array]] = {}
    part = f"decoder_{side}"
    for up, out, channels in (("up", "face_out", 3), ("mask_up", "mask_out", 1))[: 1 + mask]:
        for i, (narrow, wide) in enumerate(zip((code, *widths), widths, strict=False)):
            layer = f"{part}/{names(f'upscale_{wide}')}_conv2d_conv2d"
            tensors[f"{part}.{up}.{i}.conv"] = shuffled_conv(layer, narrow, wide)
        tensors[f"{part}.{out}"] = conv(f"{part}/{names(f'{out}_{side}')}_conv2d", 5, widths[-1], channels)
    return tensors


def original(mask: bool = False, lowmem: bool = False) -> dict[str, dict[str, Array]]:
    names = Names()
    down, code = ((128, 256, 512), 512) if lowmem else ((128, 256, 512, 1024), 1024)
    tensors = encoder(names, down, code, 1024, 512)
    for side in "ab":
        tensors |= decoder(names, side, 512, (256, 128, 64), mask)
    return tensors


def lightweight() -> dict[str, dict[str, Array]]:
    names = Names()
    tensors = encoder(names, (128, 256, 512), 512, 512, 256)
    for side in "ab":
        tensors |= decoder(names, side, 256, (512, 256, 128), False)
    return tensors


Rows = list[tuple[int, int, list[float]]]

# (side, output, mean, std, pixel (0,0), pixel (H/2, W/3), pixel (H-1, W-1))
CASES: dict[str, tuple[str, dict[str, bool], bool, Callable[[], dict[str, dict[str, Array]]], Rows]] = {
    "original": ("original", {}, False, original, [
        (0, 0, [0.466148, 0.055712, 0.51774, 0.47748, 0.47129, 0.53766, 0.34381, 0.47371, 0.48529, 0.48613, 0.49842]),
        (1, 0, [0.443135, 0.063472, 0.48175, 0.49045, 0.45441, 0.41980, 0.37616, 0.45493, 0.46531, 0.50579, 0.46370]),
    ]),
    "original with a learned mask": ("original", {}, True, lambda: original(mask=True), [
        (0, 1, [0.500996, 0.050848, 0.50881, 0.50809, 0.52041]),
        (1, 0, [0.443137, 0.064430, 0.48058, 0.44874, 0.45920, 0.44955, 0.47092, 0.34862, 0.48620, 0.46460, 0.47893]),
        (1, 1, [0.520150, 0.055792, 0.51024, 0.47947, 0.54665]),
    ]),
    "original lowmem": ("original", {"lowmem": True}, False, lambda: original(lowmem=True), [
        (0, 0, [0.461186, 0.067799, 0.50787, 0.46137, 0.47123, 0.57252, 0.41734, 0.59731, 0.48140, 0.48963, 0.52003]),
        (1, 0, [0.434859, 0.078088, 0.48685, 0.50340, 0.45023, 0.37391, 0.36302, 0.35146, 0.46407, 0.51665, 0.46049]),
    ]),
    "lightweight": ("lightweight", {}, False, lightweight, [
        (0, 0, [0.492509, 0.071333, 0.51040, 0.49042, 0.47115, 0.56604, 0.44650, 0.47193, 0.48086, 0.48784, 0.46562]),
        (1, 0, [0.462972, 0.064586, 0.48838, 0.49067, 0.46713, 0.47755, 0.39897, 0.41162, 0.49186, 0.46535, 0.47430]),
    ]),
}  # fmt: skip


def test_the_hash_gives_the_specified_first_values() -> None:
    assert hashed(3, "face_in") + 0.5 == pytest.approx([0.825966, 0.691039, 0.848681], abs=1e-6)
    first = kernel("encoder/conv_128_0_conv2d", 5, 5, 3, 128).reshape(-1)[:4]
    assert first == pytest.approx([0.0957388, 0.0161176, 0.0139179, 0.1970612], abs=1e-6)
    assert bias("encoder/conv_128_0_conv2d", 128)[:2] == pytest.approx([-0.0999117, -0.0582795], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_plugin_computes_what_the_original_system_computed(case: str) -> None:
    plugin, options, learn_mask, fill, rows = CASES[case]
    cls = model_class(plugin)
    training = TrainingOptions(mask=MaskOptions(learn_mask=learn_mask), loss=LossOptions())
    with torch.device("meta"):
        model = cls(None, cls.Options(**options), training)
        model.build()
    tensors = {
        f"{module}.{key}": torch.from_numpy(np.ascontiguousarray(value))
        for module, values in fill().items()
        for key, value in values.items()
    }
    model.model.load_state_dict(tensors, strict=True, assign=True)
    face = torch.from_numpy((hashed(64 * 64 * 3, "face_in") + 0.5).astype(np.float32)).reshape(1, 64, 64, 3)
    with torch.no_grad():
        sides = model.model([face.permute(0, 3, 1, 2)] * 2)
    for side, index, expected in rows:
        image = sides[side][index][0].permute(1, 2, 0).double().numpy()
        height, width = image.shape[:2]
        pixels = [*image[0, 0], *image[height // 2, width // 3], *image[-1, -1]]
        assert [image.mean(), image.std(), *pixels] == pytest.approx(expected, abs=2e-4), (side, index)


PARAMETERS = [
    ("original", {}, False, [69_662_976, 6_199_747, 6_199_747]),
    ("original", {"lowmem": True}, False, [48_165_632, 6_199_747, 6_199_747]),
    ("original", {}, True, [69_662_976, 12_396_292, 12_396_292]),
    ("lightweight", {}, False, [29_806_336, 10_630_019, 10_630_019]),
    ("lightweight", {}, True, [29_806_336, 21_253_636, 21_253_636]),
]


@pytest.mark.parametrize(("plugin", "options", "learn_mask", "counts"), PARAMETERS)
def test_the_parts_have_as_many_parameters_as_specified(
    plugin: str, options: dict[str, bool], learn_mask: bool, counts: list[int]
) -> None:
    cls = model_class(plugin)
    with torch.device("meta"):
        model = cls(None, cls.Options(**options), TrainingOptions(mask=MaskOptions(learn_mask=learn_mask)))
        model.build()
    found = [sum(tensor.numel() for tensor in part.parameters()) for part in model.model.children()]
    assert found == counts
