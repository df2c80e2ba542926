"""Small legacy files, written with h5py and json from what the format descriptions say."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fsdeploy_converters import Legacy


def layer2(class_name: str, name: str, sources: list[str], **config: Any) -> dict[str, Any]:
    """A Keras 2 layer called once."""
    nodes = [[[source, 0, 0, {}] for source in sources]] if sources else []
    return {"class_name": class_name, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def conv2(name: str, source: str, filters: int, kernel: int = 3, stride: int = 1, **config: Any) -> dict[str, Any]:
    sizes = {"filters": filters, "kernel_size": [kernel, kernel], "strides": [stride, stride]}
    return layer2("Conv2D", name, [source], **{"padding": "same", "use_bias": True, **sizes, **config})


def encoder() -> list[dict[str, Any]]:
    """(16, 16, 3) -> (4, 4, 8), by way of every kind of re-ordering: flatten, reshape, pixel shuffle."""
    return [
        layer2("InputLayer", "input_1", [], batch_input_shape=[None, 16, 16, 3]),
        conv2("conv", "input_1", 6, 5, 2),
        layer2("LeakyReLU", "slope", ["conv"], alpha=0.10000000149011612),
        layer2("Flatten", "flatten", ["slope"]),
        layer2("Dense", "dense", ["flatten"], units=5, use_bias=True),
        layer2("Dense", "dense_1", ["dense"], units=24, use_bias=True),
        layer2("Reshape", "reshape", ["dense_1"], target_shape=[2, 2, 6]),
        conv2("up", "reshape", 32),
        layer2("LeakyReLU", "up_slope", ["up"], alpha=0.10000000149011612),
        layer2("PixelShuffler", "shuffle", ["up_slope"], size=[2, 2]),
    ]


def decoder(side: str) -> list[dict[str, Any]]:
    """(4, 4, 8) -> face (8, 8, 3) and mask (8, 8, 1), layers interleaved by depth as real files have them."""
    return [
        layer2("InputLayer", f"input_{side}", [], batch_input_shape=[None, 4, 4, 8]),
        conv2("face_up", f"input_{side}", 16),
        conv2("mask_up", f"input_{side}", 8),
        layer2("PixelShuffler", "face_shuffle", ["face_up"], size=[2, 2]),
        layer2("PixelShuffler", "mask_shuffle", ["mask_up"], size=[2, 2]),
        conv2("face_conv", "face_shuffle", 3, 5),
        conv2("mask_conv", "mask_shuffle", 1, 5),
        layer2("Activation", "face_out", ["face_conv"], activation="sigmoid"),
        layer2("Activation", "mask_out", ["mask_conv"], activation="sigmoid"),
    ]


def net2(name: str, layers: list[dict[str, Any]], inputs: list[str], outputs: list[str], calls: list[Any]):
    config = {
        "name": name,
        "layers": layers,
        "input_layers": [[entry, 0, 0] for entry in inputs],
        "output_layers": [[entry, 0, 0] for entry in outputs],
    }
    return {"class_name": "Functional", "name": name, "config": config, "inbound_nodes": calls}


def model_config() -> dict[str, Any]:
    """A swap model with masks, in the grammar of Keras 2: nested nets count calls from one, outputs nest by side."""
    layers = [
        layer2("InputLayer", "face_in_a", [], batch_input_shape=[None, 16, 16, 3]),
        layer2("InputLayer", "face_in_b", [], batch_input_shape=[None, 16, 16, 3]),
        net2("encoder", encoder(), ["input_1"], ["shuffle"], [[["face_in_a", 0, 0, {}]], [["face_in_b", 0, 0, {}]]]),
        net2("decoder_a", decoder("a"), ["input_a"], ["face_out", "mask_out"], [[["encoder", 1, 0, {}]]]),
        net2("decoder_b", decoder("b"), ["input_b"], ["face_out", "mask_out"], [[["encoder", 2, 0, {}]]]),
    ]
    outputs = [[["decoder_a", 1, 0], ["decoder_a", 1, 1]], [["decoder_b", 1, 0], ["decoder_b", 1, 1]]]
    config = {"name": "small", "layers": layers, "input_layers": [["face_in_a", 0, 0], ["face_in_b", 0, 0]]}
    return {"class_name": "Functional", "config": {**config, "output_layers": outputs}}


SHAPES = {
    "conv": (5, 5, 3, 6), "dense": (384, 5), "dense_1": (5, 24), "up": (3, 3, 6, 32), "face_up": (3, 3, 8, 16),
    "mask_up": (3, 3, 8, 8), "face_conv": (5, 5, 4, 3), "mask_conv": (5, 5, 2, 1),
}  # fmt: skip


def weights(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Net -> "layer/kernel" and "layer/bias" -> values, in the file's order."""
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, layers in (("encoder", encoder()), ("decoder_a", decoder("a")), ("decoder_b", decoder("b"))):
        found[name] = {}
        for layer in layers:
            if layer["name"] in SHAPES:
                shape = SHAPES[layer["name"]]
                scale = np.sqrt(2 / np.prod(shape[:-1]))
                found[name][f"{layer['name']}/kernel"] = rng.standard_normal(shape).astype(np.float32) * scale
                found[name][f"{layer['name']}/bias"] = rng.standard_normal(shape[-1:]).astype(np.float32) * 0.1
    return {net: {k: v.astype(np.float32) for k, v in values.items()} for net, values in found.items()}


def write_keras2(path: Path, config: dict[str, Any] | None = None, values: Any = None) -> Path:
    """A Keras 2 `.h5`."""
    values = values or weights()
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = "2.10.0"
        file.attrs["model_config"] = json.dumps(config or model_config())
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["face_in_a", "face_in_b", *values]
        for name in ("face_in_a", "face_in_b"):
            group.create_group(name).attrs["weight_names"] = np.zeros(0)
        for net, entries in values.items():
            own = group.create_group(net)
            own.attrs["weight_names"] = [f"{name}:0" for name in entries]
            for name, array in entries.items():
                own.create_dataset(f"{name}:0", data=array)
    return path


def small_keras(folder: Path, name: str = "small.keras") -> Path:
    """A sound Keras 3 archive."""
    source = write_keras2(folder / "source.h5")
    made = Legacy(str(source))(str(folder / name))
    source.unlink()
    return made


def rewritten(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """The archive with some members replaced or added."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {**content, **members}.items():
            archive.writestr(name, data)
    return path
