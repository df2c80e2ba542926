"""Files saved by the original program, each with inputs and outputs that it computed itself."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from fsdeploy.config.training import OptimizerOptions
from fsdeploy.model.folder import load_model
from fsdeploy.model.inference import Inference
from fsdeploy.model.migrate import open_migration, report, write_migration
from fsdeploy.model.reference import compare_with_reference
from fsdeploy.training.optimizer import Optimizer
from fsdeploy_converters.keras2 import Converter as Keras2
from fsdeploy_converters.keras3 import open_archive

ORIGINAL = [
    "keras2_orig_v0_2018", "keras2_orig_v1.0.0", "keras2_orig_v2.10.0_learnmask", "keras2_orig_v2.10.0_lowmem",
]  # fmt: skip
WITH_STEP = ["keras3_phaze_a_tiny_head_adam", "keras3_phaze_a_tiny_head_lion", "keras3_phaze_a_tiny_head_mp"]
KERAS_STEP = ["keras3_phaze_a_tiny_v300_adam", "keras3_phaze_a_tiny_v300_rms-prop"]
HEAVY = ["keras2_orig_v2.10.0_adam", "keras2_orig_v2.3.0_mixed_adam"]
KINDS = [0, 1, 8, 11, 12, 13, 20, 28]
"""Variables of `original` of every kind of layout: convolution, bias, both dense layers, shuffled, output."""
HEAVIEST = ["keras3_original_head_adam", "keras3_original_v300_adam"]


def reference_of(legacy_models: Path, name: str) -> Path:
    return legacy_models / "migrate" / name / "reference.npz"


def migrated(source: Path, output: Path):
    """Migrate `source` to `output`; the report."""
    before = {path: path.stat().st_mtime_ns for path in source.iterdir()}
    with open_migration(source) as migration:
        write_migration(migration, output)
        found = report(migration, output, True)
    assert {path: path.stat().st_mtime_ns for path in source.iterdir()} == before, "the source is only read"
    return found


def differences(model, reference: Path) -> dict[str, float]:
    """Largest difference of the loaded folder from the reference, through the public inference module."""
    return compare_with_reference(model.model, reference)


@pytest.mark.parametrize("name", ORIGINAL)
def test_an_original_model_becomes_the_native_plugin_and_gives_the_same_images(name, unpacked, legacy_models, tmp_path):
    found = migrated(unpacked(name), tmp_path / "out")
    assert found.plugin == "original" and found.native_difference <= 1e-6
    model = load_model(tmp_path / "out")
    worst = differences(model, reference_of(legacy_models, name))
    assert {"a2b_0", "b2a_0"} <= set(worst) and max(worst.values()) <= 1e-4
    assert ("a2b_1" in worst) == ("learnmask" in name)
    assert model.options.lowmem == ("lowmem" in name)
    state = json.loads((tmp_path / "out" / "original_state.json").read_text())
    assert state["iterations"] == 1, "also the first files, which count epochs"
    reference = np.load(reference_of(legacy_models, name))
    if "loadswapped_autoencoder_B_on_a" in reference:
        # Loading "swapped" put decoder B into A. Nothing in the files tells it: it is the export with sides swapped.
        face = torch.from_numpy(reference["in_face_a"].transpose(0, 3, 1, 2).copy())
        (swapped,) = Inference(model, switch_sides=True)(face)
        wanted = reference["loadswapped_autoencoder_B_on_a"]
        np.testing.assert_allclose(swapped.permute(0, 2, 3, 1), wanted, atol=1e-4)
    if "lowmem" in name:
        exported_equals(tmp_path / "out", reference, "b2a", "in_face_in_b", "swap_b2a_0", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_a_keras_2_optimizer_comes_along(name, unpacked, legacy_models, tmp_path):
    """One update by that program's own formula, from our migrated slots, gives that program's own parameters."""
    source = unpacked(name)
    found = migrated(source, tmp_path / "out")
    assert found.plugin == "original" and found.optimizer.startswith("adam")
    model = load_model(tmp_path / "out")
    assert max(differences(model, reference_of(legacy_models, name)).values()) <= 1e-4
    model = load_model(tmp_path / "out", predict=False)
    saved = model.io.load_optimizer()
    scaled = saved["metadata"]["scaler"]
    assert scaled == (None if "mixed" not in name else {
        "scale": 32768.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0,
    })  # fmt: skip
    steps = np.load(legacy_models / "migrate" / name / "optstep.npz")
    hyper = json.loads(str(steps["hyper"]))
    assert model.training.optimizer.ada_beta_1 == 0.5 and model.training.optimizer.ada_beta_2 == 0.99
    with ExitStack() as resources:
        slots = slots_of(source, resources)
        with open_migration(source, with_optimizer=False) as migration:
            names = migration.names()
    parameters = dict(model.model.named_parameters())
    t = int(steps["opt_iterations_before"]) + 1
    b1, b2, eps, lr = (hyper[key] for key in ("beta_1", "beta_2", "epsilon", "learning_rate"))
    for number in KINDS:
        slot, name_here = slots[number], names[slots[number].target]
        place = places(slot, steps[f"idx_{number}"])
        gradient = np.random.RandomState(1000 + number).standard_normal(slot.shape).astype(np.float64) * 1e-3
        g = gradient.astype(np.float32).reshape(-1)[steps[f"idx_{number}"]].astype(np.float64)
        p, m, v = (
            tensor.detach().numpy().reshape(-1)[place].astype(np.float64)
            for tensor in (
                parameters[name_here],
                *(saved["tensors"][f"{name_here}/{k}"] for k in ("exp_avg", "exp_avg_sq")),
            )
        )
        np.testing.assert_array_equal(p.astype(np.float32), steps[f"p0_{number}"])
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        after = p - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
        np.testing.assert_allclose(after, steps[f"p1_{number}"], rtol=1e-6, atol=3e-8)


def slots_of(source: Path, resources: ExitStack):
    """Trainable variables of a file in its own order."""
    file = next(iter(sorted(source.glob("*.h5"))), None)
    if file is None:
        slots = open_archive(source, resources, "").translated.slots
        return [slot for slot in slots if slot.learned]
    from fsdeploy_converters import limits
    from fsdeploy_converters.hdf5 import Hdf5File
    from fsdeploy_converters.keras_graph import Keras2Reader
    from fsdeploy_converters.layer_config import Dialect
    from fsdeploy_converters.translate import translate
    from fsdeploy_converters.window import Window

    opened = Hdf5File(Window.whole(file), limits.KERAS2_HDF5, str(file))
    root = Keras2Reader("").read(json.loads(opened.text("", "model_config")))
    assert Keras2().recognises(source)
    return [slot for slot in translate(root, Dialect.KERAS2, "").slots if slot.learned]


def places(slot, positions: np.ndarray) -> np.ndarray:
    """Where flat positions of the file's array lie in torch's."""
    layout, shape = slot.layout, slot.shape
    place = list(np.unravel_index(positions, shape))
    if layout.axes is not None:
        place, shape = [place[axis] for axis in layout.axes], tuple(shape[axis] for axis in layout.axes)
    place = list(np.unravel_index(np.ravel_multi_index(place, shape), layout.result_shape(slot.shape)))
    for axis, order in enumerate((layout.rows, layout.columns)):
        if order is not None:
            place[axis] = np.argsort(order)[place[axis]]
    return np.ravel_multi_index(place, layout.result_shape(slot.shape))


@pytest.mark.parametrize("name", WITH_STEP + KERAS_STEP)
def test_one_update_from_the_migrated_state_gives_the_reference_parameters(name, unpacked, legacy_models, tmp_path):
    check_update(name, unpacked(name), legacy_models, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVIEST)
def test_one_update_of_a_full_model(name, unpacked, legacy_models, tmp_path):
    found = check_update(name, unpacked(name), legacy_models, tmp_path / "out")
    assert found.plugin == "original"


def check_update(name: str, source: Path, legacy_models: Path, output: Path):
    """Migrate, compare outputs, load as training does, make one update with the given gradients, compare parameters."""
    found = migrated(source, output)
    reference = np.load(reference_of(legacy_models, name))
    model = load_model(output, predict=False)
    assert model.name == found.plugin
    if "a2b_0" in reference:
        with torch.no_grad():
            worst = compare_with_reference(model.model.eval(), reference_of(legacy_models, name))
        assert len(worst) == 2 and max(worst.values()) <= 1e-4
    with ExitStack() as resources:
        slots = slots_of(source, resources)
    with open_migration(source, with_optimizer=False) as migration:
        names = migration.names()
    optimizer = Optimizer(model.model, model.training.optimizer)
    assert model.training.optimizer == OptimizerOptions(optimizer=name.rpartition("_")[2].replace("mp", "adam"))
    optimizer.load_state_dict(model.io.load_optimizer())
    parameters = dict(model.model.named_parameters())
    kinds = list(range(len(slots))) if found.plugin == "imported" else KINDS
    for number, slot in ((number, slots[number]) for number in kinds):
        gradient = np.random.default_rng(10000 + number).standard_normal(slot.shape, np.float32) * np.float32(1e-3)
        parameters[names[slot.target]].grad = torch.from_numpy(slot.layout.apply(gradient))
    # The program's newest code updates by torch's rules, also when the slots came from Keras.
    after = "step_torch_after" if "step_torch_after_000" in reference else "step_migrated_after"
    before = {n: reference[f"step_before_{n:03}"] for n in kinds}
    optimizer.optimizer.step()
    for number, slot in ((number, slots[number]) for number in kinds):
        positions = reference[f"step_idx_{number:03}"]
        ours = parameters[names[slot.target]].detach().numpy().reshape(-1)[places(slot, positions)]
        expected = reference[f"{after}_{number:03}"]
        assert not np.array_equal(before[number], expected)
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9, err_msg=f"{slot.path} {slot.kind}")
    model.close()
    return found


def exported_equals(folder: Path, reference, direction: str, face: str, output: str, tolerance: float) -> None:
    """Export one direction and run it in onnxruntime."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from fsdeploy.export import export_model

    file = folder.parent / f"{direction}.onnx"
    if not file.exists():
        export_model(folder, file, direction == "b2a")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (swap,) = session.run(None, {"face": np.ascontiguousarray(reference[face].transpose(0, 3, 1, 2))})
    np.testing.assert_allclose(swap.transpose(0, 2, 3, 1), reference[output], atol=tolerance)


def test_a_migrated_graph_exports_to_onnx_with_the_same_images(unpacked, legacy_models, tmp_path):
    name = "keras3_phaze_a_tiny_head_mp"
    migrated(unpacked(name), tmp_path / "out")
    reference = np.load(reference_of(legacy_models, name))
    for direction in ("a2b", "b2a"):
        face = f"input_{direction[0]}"
        exported_equals(tmp_path / "out", reference, direction, face, f"{direction}_f32_0", 1e-4)
        exported_equals(tmp_path / "out", reference, direction, face, f"{direction}_0", 5e-3)


def test_inference_cuts_a_migrated_graph_to_one_side(unpacked, tmp_path):
    migrated(unpacked("keras3_phaze_a_tiny_head_lion"), tmp_path / "out")
    cut = Inference(load_model(tmp_path / "out"), switch_sides=False)
    assert list(cut.parts) == ["encoder", "fc_b", "decoder_b"]
