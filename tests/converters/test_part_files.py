"""Models of 1.x that keep each network in a file of its own: which parts feed which is known, not stored."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from small_models import conv2, layer2, write_keras2

from fsdeploy.model.migrate import open_migration

ENCODER = [
    layer2("InputLayer", "input_1", [], batch_input_shape=[None, 8, 8, 3]),
    layer2("Flatten", "flatten", ["input_1"]),
]
ENCODER += [layer2("Dense", "dense", ["flatten"], units=6, use_bias=True)]
INTER = [
    layer2("InputLayer", "input_2", [], batch_input_shape=[None, 6]),
    layer2("Dense", "dense_1", ["input_2"], units=32, use_bias=True),
    layer2("Reshape", "reshape", ["dense_1"], target_shape=[4, 4, 2]),
]
DECODER = [
    layer2("InputLayer", "input_3", [], batch_input_shape=[None, 4, 4, 4]),
    conv2("up", "input_3", 16),
    layer2("PixelShuffler", "shuffle", ["up"], size=[2, 2]),
    conv2("face_out", "shuffle", 3, activation="sigmoid"),
]
SHAPES = {"dense": (192, 6), "dense_1": (6, 32), "up": (3, 3, 4, 16), "face_out": (3, 3, 4, 3)}
PARTS = {
    "iae": {"encoder": ENCODER, "intermediate_A": INTER, "intermediate_B": INTER, "inter": INTER, "decoder": DECODER},
    "dfl_sae": {"encoder": ENCODER, "intermediate_B": INTER, "intermediate": INTER, "decoder": DECODER},
}


def write_part(path: Path, layers: list, seed: int) -> None:
    """One network with its graph, as standalone Keras 2.2 writes it."""
    ends = {"input_layers": [[layers[0]["name"], 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    config = {"class_name": "Model", "config": {"name": path.stem, "layers": layers, **ends}}
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = np.bytes_("2.2.4")
        file.attrs["model_config"] = np.bytes_(json.dumps(config))
        for layer in layers:
            name = layer["name"]
            group = file.create_group(f"model_weights/{name}")
            if name not in SHAPES:
                group.attrs["weight_names"] = np.zeros(0)
                continue
            # The inner scope is not the layer's name, and names are of fixed length.
            group.attrs["weight_names"] = np.array([f"{name}_7/kernel:0", f"{name}_7/bias:0"], "S")
            group[f"{name}_7/kernel:0"] = rng.standard_normal(SHAPES[name]).astype(np.float32)
            group[f"{name}_7/bias:0"] = rng.standard_normal(SHAPES[name][-1:]).astype(np.float32)


@pytest.fixture(params=PARTS)
def parts(request, tmp_path):
    """Folder of a model with a shared decoder."""
    for seed, (part, layers) in enumerate(PARTS[request.param].items()):
        write_part(tmp_path / f"{request.param}_{part}.h5", layers, seed)
    return request.param, tmp_path


def test_codes_of_a_side_are_joined_in_the_known_order(parts):
    plugin, folder = parts
    any_file = folder / f"{plugin}_decoder.h5"
    with open_migration(any_file) as migration:
        assert migration.model.plugin == plugin
        network = migration.network()
        face = torch.rand(2, 3, 8, 8)
        own = dict(network.named_children())
        if plugin == "iae":
            code = own["encoder"](face)
            pairs = [[own[f"inter_{side}"](code), own["inter_both"](code)] for side in "ab"]
            decoder = own["decoder"]
        else:
            code = own["encoder_liae"](face)
            both, b = own["intermediate_both"](code), own["intermediate_b"](code)
            pairs, decoder = [[both, both], [b, both]], own["decoder_both"]
        for side, pair in enumerate(pairs):
            torch.testing.assert_close(network.swap(face, side)[0], decoder(torch.cat(pair, 1)))
        kernel = h5py.File(folder / f"{plugin}_intermediate_B.h5")["model_weights/dense_1/dense_1_7/kernel:0"][:]
        name = "inter_b" if plugin == "iae" else "intermediate_b"
        stored = own[name].dense_1.weight.detach().numpy()
        assert np.array_equal(np.sort(stored, None), np.sort(kernel, None)), "the file of side B is side B's"


@pytest.mark.parametrize("name", ["printer", "winter", "painter", "my-encoder", "best_encoder", "decoder_A", "x_inter"])
@pytest.mark.parametrize("named", [True, False])
def test_a_whole_model_may_be_called_as_parts_are(name, named, tmp_path):
    """Pointed at itself, or found in its folder: its graph says that it is whole."""
    path = write_keras2(tmp_path / f"{name}.h5")
    with open_migration(path if named else tmp_path) as migration:
        assert migration.model.origin["format"] == "keras2" and migration.model.model_name == "small"


@pytest.mark.parametrize("name", ["printer", "winter"])
def test_a_word_that_ends_as_a_part_is_no_sibling_of_parts(name, parts):
    plugin, folder = parts
    write_keras2(folder / f"{name}.h5")
    with open_migration(folder) as migration:
        assert migration.model.plugin == plugin
    with open_migration(folder / f"{name}.h5") as migration:
        assert migration.model.model_name == "small"
