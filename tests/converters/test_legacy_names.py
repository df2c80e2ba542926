"""`Legacy`, `PatchKerasConfig` and `OptimizerMigrate`: the names of the original API, working on files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from small_models import model_config, write_keras2

from fsdeploy.errors import FsdeployError, InputError
from fsdeploy.model.migrate import open_migration
from fsdeploy.model.native_fit import compare
from fsdeploy_converters import Legacy, OptimizerMigrate, PatchKerasConfig


def config_of(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def test_legacy_counts_calls_of_nested_nets_from_zero_and_flattens_outputs(tmp_path):
    config = Legacy(str(write_keras2(tmp_path / "small.h5"))).config()["config"]
    layers = {layer["name"]: layer for layer in config["layers"]}
    history = [layers[f"decoder_{s}"]["inbound_nodes"][0]["args"][0]["config"]["keras_history"] for s in "ab"]
    assert history == [["encoder", 0, 0], ["encoder", 1, 0]]
    assert config["output_layers"] == [
        ["decoder_a", 1, 0],
        ["decoder_a", 1, 1],
        ["decoder_b", 1, 0],
        ["decoder_b", 1, 1],
    ]
    slope = next(entry for entry in layers["encoder"]["config"]["layers"] if entry["name"] == "slope")
    assert slope["config"]["negative_slope"] == 0.10000000149011612 and "alpha" not in slope["config"]


def test_a_file_written_by_legacy_is_the_same_model(tmp_path):
    source = write_keras2(tmp_path / "small.h5")
    before = source.read_bytes()
    made = Legacy(str(source))(str(tmp_path / "new.keras"))
    assert source.read_bytes() == before
    with open_migration(source) as old, open_migration(made) as new:
        assert compare(old.network(), new.network(), (3, 16, 16)) == 0.0
    with pytest.raises(InputError, match="exists already"):
        Legacy(str(source))(str(made))


def aged(path: Path) -> Path:
    """The archive as an early Keras 3 wrote it: own convolution classes, dots in names."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    text = content["config.json"].decode().replace('"up_slope"', '"up.slope"')
    config = json.loads(text)
    for layer in config["config"]["layers"][2]["config"]["layers"]:
        if layer["class_name"] == "Conv2D":
            layer["module"] = "lib.model.nn_blocks"
    content["config.json"] = json.dumps(config).encode()
    content["metadata.json"] = json.dumps({"keras_version": "3.3.3", "date_saved": ""}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_an_early_file_is_patched_in_place_and_only_in_its_description(tmp_path):
    path = aged(Legacy(str(write_keras2(tmp_path / "small.h5")))(str(tmp_path / "small.keras")))
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    PatchKerasConfig(str(path))()
    text = json.dumps(config_of(path))
    assert "lib.model.nn_blocks" not in text and "up.slope" not in text and "up_slope" in text
    with zipfile.ZipFile(path) as archive:
        assert archive.read("model.weights.h5") == weights
    later = path.read_bytes()
    PatchKerasConfig(str(path))()
    assert path.read_bytes() == later, "a file that needs nothing is left alone"


def dotted(path: Path, *names: str) -> Path:
    """The archive as Keras 3.3 wrote it, with a dot for the underscore of some names; groups are not named then."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    text = content["config.json"].decode()
    for name in names:
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', f'"{name.replace("_", ".")}"')
    config = json.loads(text)
    # A tensor may also be given by name.
    slope = next(e for e in config["config"]["layers"][2]["config"]["layers"] if e["class_name"] == "LeakyReLU")
    node = slope["inbound_nodes"][0]
    node["args"], node["kwargs"] = [], {"inputs": node["args"][0]}
    content["config.json"] = json.dumps(config).encode()
    content["metadata.json"] = json.dumps({"keras_version": "3.3.3", "date_saved": ""}).encode()
    weights = path.with_suffix(".weights")
    weights.write_bytes(content["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        groups: list[str] = []
        file.visit(groups.append)
        for group in groups:
            if "name" in file[group].attrs:
                del file[group].attrs["name"]
    content["model.weights.h5"] = weights.read_bytes()
    weights.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_every_reference_to_a_name_with_a_dot_is_patched(tmp_path):
    """Inputs and outputs of nets, tensors given by position and by name, nested nets: the model stays the same."""
    sound = Legacy(str(write_keras2(tmp_path / "small.h5")))(str(tmp_path / "sound.keras"))
    (tmp_path / "early").mkdir()
    path = Legacy(str(tmp_path / "small.h5"))(str(tmp_path / "early" / "small.keras"))
    dotted(path, "up_slope", "input_1", "face_out", "mask_out", "input_a", "face_in_a", "face_in_b", "decoder_b")
    before = path.read_bytes()
    PatchKerasConfig(str(path))()
    text = json.dumps(config_of(path))
    assert not [word for word in ("up.slope", "input.1", "face.out", "decoder.b", "face.in.a") if word in text]
    with open_migration(sound) as old, open_migration(path) as new:
        assert compare(old.network(), new.network(), (3, 16, 16)) == 0.0
    assert {file.name for file in path.parent.iterdir()} == {"small.keras", "small.keras.unpatched"}
    assert path.with_name("small.keras.unpatched").read_bytes() == before, "the file as it was is kept"
    with open_migration(path.with_name("small.keras.unpatched")) as old, open_migration(path) as new:
        assert compare(old.network(), new.network(), (3, 16, 16)) == 0.0


@pytest.mark.parametrize("problem", ["one name for two", "no such layer", "other weights", "kept already"])
def test_a_file_that_would_be_no_model_after_the_patch_is_left_alone(problem, tmp_path):
    path = dotted(Legacy(str(write_keras2(tmp_path / "small.h5")))(str(tmp_path / "small.keras")), "up_slope")
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    text = content["config.json"].decode()
    if problem == "one name for two":
        text = text.replace('"slope"', '"up_slope"')
    elif problem == "no such layer":
        text = text.replace('["decoder_a", 1, 0]', '["decoder_c", 1, 0]')
    elif problem == "other weights":
        text = text.replace('"units": 5', '"units": 6')
    else:
        path.with_name("small.keras.unpatched").write_bytes(b"older")
    assert problem == "kept already" or text.encode() != content["config.json"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | {"config.json": text.encode()}).items():
            archive.writestr(name, data)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(FsdeployError, match=r"small\.keras"):
        PatchKerasConfig(str(path))()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_migration_reads_the_early_form_as_it_is(tmp_path):
    sound = Legacy(str(write_keras2(tmp_path / "small.h5")))(str(tmp_path / "new.keras"))
    (tmp_path / "early").mkdir()
    early = aged(Legacy(str(tmp_path / "small.h5"))(str(tmp_path / "early" / "small.keras")))
    with zipfile.ZipFile(early) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    weights = tmp_path / "weights.h5"
    weights.write_bytes(content["model.weights.h5"])
    with h5py.File(weights, "a") as file:  # such files do not name their groups
        for key in ("layers/functional/layers/leaky_re_lu_1/vars",):
            del file[key].attrs["name"]
    with zipfile.ZipFile(early, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, weights.read_bytes() if name == "model.weights.h5" else data)
    with open_migration(sound) as new, open_migration(early) as old:
        assert compare(old.network(), new.network(), (3, 16, 16)) == 0.0


def test_the_optimizer_of_a_keras_file_becomes_a_torch_state_dict(unpacked, legacy_models):
    folder = unpacked("keras3_phaze_a_tiny_v300_adam")
    path = folder / "phaze_a.keras"
    state = OptimizerMigrate(config_of(path), str(path)).convert()
    assert state["version"] == 0.5 and state["scaler"] is None
    first, second = state["optimizer"]["param_groups"]
    assert first["params"] == list(range(16)) and second["params"] == list(range(16, 32)), "kernels, then biases"
    assert first["betas"] == (0.9, 0.999)
    reference = np.load(legacy_models / "migrate" / "keras3_phaze_a_tiny_v300_adam" / "reference.npz")
    slots = state["optimizer"]["state"][16]  # the bias of the first convolution
    place = reference["step_idx_001"]
    np.testing.assert_array_equal(slots["exp_avg"].numpy()[place], reference["step_migrated_exp_avg_before_001"])
    np.testing.assert_array_equal(slots["exp_avg_sq"].numpy()[place], reference["step_migrated_exp_avg_sq_before_001"])
    assert slots["step"] == torch.tensor(1234.0)


def test_a_file_without_an_optimizer_gives_none(tmp_path):
    path = Legacy(str(write_keras2(tmp_path / "small.h5")))(str(tmp_path / "small.keras"))
    assert OptimizerMigrate(config_of(path), str(path)).convert() is None


def test_the_small_model_has_the_names_that_these_tests_speak_of():
    assert [layer["name"] for layer in model_config()["config"]["layers"]][2:] == ["encoder", "decoder_a", "decoder_b"]
