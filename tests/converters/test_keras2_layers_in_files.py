"""Layers that only pretrained encoders hold, in whole Keras 2 files, and as `Legacy` writes them for Keras 3."""

from __future__ import annotations

import json
import zipfile

import h5py
import numpy as np
import pytest
import torch
from small_models import layer2, model_config, weights, write_keras2

from fsdeploy.errors import CorruptModelError
from fsdeploy.model.migrate import open_migration
from fsdeploy.model.native_fit import compare
from fsdeploy_converters import Legacy

MEAN, VARIANCE = (0.25, 0.5, 0.125), (4.0, 0.25, 1.0)


def normalised(path, count, precision):
    """The small model with a normalisation in front of its first convolution."""
    config, values = model_config(), weights()
    encoder = config["config"]["layers"][2]["config"]["layers"]
    encoder.insert(1, layer2("Normalization", "normalization", ["input_1"], axis=[3]))
    encoder[2]["inbound_nodes"] = [[["normalization", 0, 0, {}]]]
    values["encoder"] |= {
        "normalization/mean": np.array(MEAN, precision),
        "normalization/variance": np.array(VARIANCE, precision),
        "normalization/count": np.asarray(count),
    }
    return write_keras2(path, config, values)


@pytest.mark.parametrize(
    ("count", "precision"),
    [(np.int64(123), np.float32), (np.int32(123), np.float32), (np.int64(1 << 40), np.float16)],
)
def test_a_normalisation_works_on_the_face(count, precision, tmp_path):
    face = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    mean, deviation = (torch.tensor(entry).reshape(3, 1, 1) for entry in (MEAN, np.sqrt(VARIANCE).astype("f4")))
    plain, source = write_keras2(tmp_path / "plain.h5"), normalised(tmp_path / "small.h5", count, precision)
    made = Legacy(str(source))(str(tmp_path / "new.keras"))
    for path in (source, made):
        with open_migration(plain) as one, open_migration(path) as other, torch.inference_mode():
            for side in (0, 1):
                expected = one.network().swap((face - mean) / deviation, side)
                torch.testing.assert_close(other.network().swap(face, side), expected)


def test_counted_samples_have_32_bits_in_keras_3(tmp_path):
    made = Legacy(str(normalised(tmp_path / "small.h5", np.int64(1 << 40), np.float16)))(str(tmp_path / "new.keras"))
    with zipfile.ZipFile(made) as archive:
        (tmp_path / "weights.h5").write_bytes(archive.read("model.weights.h5"))
    with h5py.File(tmp_path / "weights.h5") as file:
        group = file["layers/functional/layers/normalization/vars"]
        assert [group[key].dtype.str for key in "012"] == ["<f4", "<f4", "<i4"]
        assert group["2"][()] == np.iinfo(np.int32).max


def test_weights_of_half_precision_are_still_damage(tmp_path):
    values = weights()
    values["encoder"]["dense/bias"] = values["encoder"]["dense/bias"].astype(np.float16)
    with (
        pytest.raises(CorruptModelError, match="not float32"),
        open_migration(write_keras2(tmp_path / "a.h5", None, values)),
    ):
        pass


def test_legacy_writes_a_scaled_sum_without_its_code(tmp_path):
    config = model_config()
    encoder = config["config"]["layers"][2]["config"]["layers"]
    code = {"function": ["4wEAAAAtracelessbytecode==\n", None, None], "function_type": "lambda"}
    place = {"module": "keras.applications.inception_resnet_v2", "arguments": {"scale": 0.17}}
    encoder.insert(-1, layer2("Lambda", "scaled", ["up_slope", "up"], **code, **place))
    encoder[-1]["inbound_nodes"] = [[["scaled", 0, 0, {}]]]
    source = write_keras2(tmp_path / "small.h5", config)
    made = Legacy(str(source))(str(tmp_path / "new.keras"))
    with zipfile.ZipFile(made) as archive:
        text = archive.read("config.json").decode()
    assert "bytecode" not in text and "Lambda" not in text and "function_type" not in text
    layers = json.loads(text)["config"]["layers"][2]["config"]["layers"]
    layer = next(layer for layer in layers if layer["name"] == "scaled")
    assert layer["class_name"] == "CustomScaleLayer" and layer["config"]["scale"] == 0.17
    with open_migration(source) as old, open_migration(made) as new:
        assert compare(old.network(), new.network(), (3, 16, 16)) == 0.0
        with open_migration(write_keras2(tmp_path / "plain.h5")) as plain:
            assert compare(old.network(), plain.network(), (3, 16, 16)) > 0.0
