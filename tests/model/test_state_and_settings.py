"""State, options of old releases, precision, parts, inference."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import torch
from tiny_model import CountingOptimizer, TinyModel, TinyOptions

from fsdeploy.config.training import LossOptions, MaskOptions, NetworkOptions, TrainingOptions
from fsdeploy.errors import ConfigError, CorruptModelError, InputError
from fsdeploy.model.folder import load_model, write_model_folder
from fsdeploy.model.inference import Inference
from fsdeploy.model.io import get_all_sub_models
from fsdeploy.model.settings import Settings
from fsdeploy.model.state import State, read_schema
from fsdeploy.model.stored_options import resolve, rewrite_legacy
from fsdeploy.model.tensor_file import write_tensors


def saved(folder: Path, steps: int = 1) -> Path:
    model = TinyModel(folder)
    model.build()
    for _ in range(steps):
        model.state.increment_iterations()
    model.state.add_session_batchsize(16)
    model.add_history([0.25, 0.25])
    model.io.save(CountingOptimizer(), is_exit=True)
    return folder


def test_the_state_file_follows_its_schema(tmp_path: Path) -> None:
    saved(tmp_path)
    for suffix in ("", ".bk"):
        jsonschema.validate(json.loads((tmp_path / f"tiny_state.json{suffix}").read_text()), read_schema())
    jsonschema.Draft202012Validator.check_schema(read_schema())


def test_the_documentation_names_every_key_of_the_schema() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "formats" / "model-folder.md").read_text()
    schema = read_schema()
    for key in [*schema["properties"], *schema["properties"]["fsdeploy"]["properties"]]:
        assert re.search(rf"`(fsdeploy\.)?{key}`", page), key


def test_each_run_with_an_iteration_becomes_a_session(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    TinyModel(tmp_path).close()  # a run without an iteration leaves no trace
    saved(tmp_path, 3)
    model = TinyModel(tmp_path, predict=True)
    assert model.iterations == 5
    past = {number: entry["iterations"] for number, entry in model.state.sessions.items() if entry["iterations"]}
    assert past == {1: 2, 2: 3}
    assert model.state.sessions[1]["batchsize"] == 16
    assert model.state.session_id == 3
    assert model.state.filename == str(tmp_path / "tiny_state.json")


def test_found_rates_and_changed_options_are_kept(tmp_path: Path) -> None:
    model = TinyModel(tmp_path)
    model.build()
    model.state.increment_iterations()
    model.state.add_lr_finder(3e-4)
    model.state.update_session_config("learning_rate", 3e-4)
    model.state.extra["run"] = {"seed": 4}
    with pytest.raises(ConfigError, match="must be of type float"):
        model.state.update_session_config("learning_rate", 1)
    with pytest.raises(ConfigError, match="not one that a session records"):
        model.state.update_session_config("coverage", 80.0)
    model.io.save(is_exit=True)
    again = TinyModel(tmp_path)
    assert again.state.lr_finder == 3e-4
    assert again.state.sessions[1]["config"]["learning_rate"] == 3e-4
    assert again.training.optimizer.learning_rate == 3e-4
    assert again.state.extra["run"] == {"seed": 4}


def test_the_state_can_be_saved_alone(tmp_path: Path) -> None:
    saved(tmp_path)
    model = TinyModel(tmp_path)
    model.state.add_lr_finder(1e-3)
    model.state.save()
    model.close()
    assert load_model(tmp_path).state.lr_finder == 1e-3


def test_the_lowest_average_loss_falls_and_ignores_what_is_no_loss() -> None:
    state = State(None, "tiny")
    answers = [state.note_average(value) for value in (0.5, 0.6, 0.4, float("nan"), 0.0, 0.4)]
    assert answers == [True, False, True, False, False, False]
    assert state.lowest_avg_loss == 0.4


def test_damaged_values_of_a_state_are_refused() -> None:
    with pytest.raises(CorruptModelError):
        State(None, "tiny", stored={"iterations": "many"})


def test_option_spellings_of_old_releases_are_understood() -> None:
    assert rewrite_legacy({"dssim_loss": False, "mask_type": None}) == {
        "loss_function": "mae", "mask_type": None, "learn_mask": False,
    }  # fmt: skip
    assert rewrite_legacy({"mask_type": "facehull"}) == {"mask_type": "components", "learn_mask": True}
    assert rewrite_legacy({"l2_reg_term": 80}) == {"loss_function_2": "mse", "loss_weight_2": 80}
    assert rewrite_legacy({"clipnorm": True}) == {"gradient_clipping": "norm"}
    assert rewrite_legacy({"clipnorm": False, "autoclip": True}) == {"gradient_clipping": "autoclip"}


def test_options_absent_from_an_old_file_take_what_they_were_then() -> None:
    found = resolve({"learn_mask": False}, None, TinyOptions, None, "old")
    assert (found.training.face.centering, found.training.face.coverage) == ("legacy", 62.5)


def test_an_impossible_stored_crop_is_an_error_and_other_options_fall_back(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match=r"state\.json: option 'coverage'"):
        resolve({"coverage": 20.0}, None, TinyOptions, None, "state.json")
    with pytest.raises(ConfigError, match=r"state\.json: option 'width'"):
        resolve({"width": 0}, None, TinyOptions, None, "state.json")
    found = resolve({"loss_function": "gone", "mask_type": None}, None, TinyOptions, None, "state.json")
    assert (found.training.loss.loss_function, found.training.mask.mask_type) == ("ssim", "none")
    assert "gone" in caplog.text


@pytest.mark.parametrize("section", [{"mask": MaskOptions(mask_type="none", learn_mask=True)},
                                     {"mask": MaskOptions(mask_type="none"), "loss": LossOptions()}])  # fmt: skip
def test_a_mask_that_is_needed_but_off_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="needs a mask"):
        TinyModel(None, training=TrainingOptions(**section))  # type: ignore[arg-type]


def test_precision_may_be_switched_on_an_existing_model_both_ways(tmp_path: Path) -> None:
    saved(tmp_path)
    layers = ["encoder.conv", "decoder_a.up.conv", "decoder_a.face_out", "decoder_b.up.conv", "decoder_b.face_out"]
    for mixed in (True, False):
        model = TinyModel(tmp_path, training=TrainingOptions(network=NetworkOptions(mixed_precision=mixed)))
        assert model.state.model_needs_rebuild
        model.build()
        assert model.settings.use_mixed_precision is mixed
        assert model.state.mixed_precision_layers == layers
        assert {tensor.dtype for tensor in model.model.parameters()} == {torch.float32}
        model.state.increment_iterations()
        model.io.save(is_exit=True)
    assert not load_model(tmp_path).settings.use_mixed_precision


def test_autocast_computes_in_half_precision_only_when_asked() -> None:
    cpu = torch.device("cpu")
    layer = torch.nn.Linear(2, 2)
    for settings, dtype in (
        (Settings(None, True), torch.bfloat16),
        (Settings(TrainingOptions(network=NetworkOptions(mixed_precision=True))), torch.bfloat16),
        (Settings(None, True, True), torch.float32),
        (Settings(), torch.float32),
    ):
        with settings.autocast(cpu):
            assert layer(torch.ones(1, 2)).dtype == dtype


def test_a_loss_scale_optimizer_skips_a_step_that_overflows_and_equals_the_plain_one_otherwise() -> None:
    weight, plain = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    scaled = Settings.loss_scale_optimizer(torch.optim.SGD([weight], lr=0.5))
    scaled.backward((weight * torch.tensor([1.0, 2.0])).sum())
    scaled.step()
    reference = torch.optim.SGD([plain], lr=0.5)
    (plain * torch.tensor([1.0, 2.0])).sum().backward()
    reference.step()
    assert torch.equal(weight, plain)
    before = scaled.scaler.get_scale()
    scaled.zero_grad()
    scaled.backward((weight * torch.tensor([float("inf"), 1.0])).sum())
    scaled.step()
    assert torch.equal(weight, plain)
    assert scaled.scaler.get_scale() == before / 2
    other = Settings.loss_scale_optimizer(torch.optim.SGD([weight], lr=0.5))
    other.load_state_dict(scaled.state_dict())
    assert other.scaler.get_scale() == before / 2


def test_sub_models_are_listed_once_with_the_model_first() -> None:
    model = TinyModel(None)
    model.build()
    network = model.model
    assert get_all_sub_models(network) == [network, network.encoder, network.decoder_a, network.decoder_b]


def test_parts_are_loaded_into_new_models_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = load_model(saved(tmp_path / "a")).model.state_dict()
    model = TinyModel(tmp_path / "b", load_weights=tmp_path / "a")
    model.build()
    own = model.model.state_dict()
    assert torch.equal(own["encoder.conv.weight"], source["encoder.conv.weight"])
    assert not torch.equal(own["decoder_a.up.conv.weight"], source["decoder_a.up.conv.weight"])
    model.state.increment_iterations()
    model.io.save(is_exit=True)
    TinyModel(tmp_path / "b", load_weights=tmp_path / "a").build()
    assert "weights are loaded into new models only" in caplog.text


def test_loading_parts_reports_each_tensor_that_does_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path / "a")
    wide = TinyModel(None, TinyOptions(width=9), load_weights=tmp_path / "a" / "tiny.safetensors")
    with pytest.raises(InputError, match=r"no tensor of .* fits the parts encoder"):
        wide.build()
    assert "encoder.conv.weight is (4, 3, 5, 5), not (9, 3, 5, 5)" in caplog.text
    assert "encoder.conv.bias is (4,), not (9,)" in caplog.text


def test_weights_of_another_plugin_or_program_are_refused(tmp_path: Path) -> None:
    for name, metadata in (("theirs", {"model_name": "other"}), ("foreign", {})):
        path = tmp_path / f"{name}.safetensors"
        write_tensors(path, {"x": torch.zeros(1)}, metadata)
        model = TinyModel(None, load_weights=path)
        with pytest.raises(InputError, match="not of 'tiny'"):
            model.build()
    (tmp_path / "old.h5").write_bytes(b"")
    with pytest.raises(InputError, match="fsdeploy migrate"):
        TinyModel(None, load_weights=tmp_path / "old.h5").build()


def test_a_folder_without_a_model_of_the_plugin_is_refused_by_what_it_holds(tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_model_folder(other, {"name": "original"}, {"x": torch.zeros(1)})
    (tmp_path / "empty").mkdir()
    for folder, holds in ((other, "a model of 'original'"), (tmp_path / "empty", "no model")):
        model = TinyModel(None, load_weights=folder)
        with pytest.raises(
            InputError, match=f"{folder.name} holds {holds}, .* 'tiny': choose a model of the same plugin"
        ):
            model.build()


def test_frozen_parts_get_no_gradient_and_thaw_in_the_next_run(tmp_path: Path) -> None:
    frozen = TinyModel(saved(tmp_path), freeze_weights=True)
    frozen.build()
    assert {name.split(".")[0]: tensor.requires_grad for name, tensor in frozen.model.named_parameters()} == {
        "encoder": False, "decoder_a": True, "decoder_b": True,
    }  # fmt: skip
    frozen.close()
    thawed = TinyModel(tmp_path)
    thawed.build()
    assert all(tensor.requires_grad for tensor in thawed.model.parameters())


@pytest.mark.parametrize(("switch", "side"), [(False, 1), (True, 0)])
def test_inference_runs_one_direction_and_holds_no_weight_of_the_other(switch: bool, side: int) -> None:
    model = TinyModel(None, training=TrainingOptions(mask=MaskOptions(learn_mask=True)))
    model.build()
    inference = Inference(model, switch)
    face = torch.rand(2, 3, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(inference(face), model.model.swap(face, side), strict=True))
    assert [name for name, _ in inference.parts.named_children()] == ["encoder", "decoder_ab"[:8] + "ab"[side]]
    assert inference() is inference


def test_both_sides_at_once_equal_each_side_alone() -> None:
    model = TinyModel(None)
    model.build()
    a, b = torch.rand(2, 3, 8, 8), torch.rand(3, 3, 8, 8)
    together = model.model([a, b])
    torch.testing.assert_close(together[0][0], model.model.swap(a, 0)[0])
    torch.testing.assert_close(together[1][0], model.model.swap(b, 1)[0])


def test_a_model_tells_its_shapes_and_facts(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path, 7))
    assert model.input_shapes == [(None, 3, 8, 8)] * 2
    assert model.output_shapes == [(None, 3, 8, 8)] * 2
    info = model.info()
    assert (info.name, info.input_size, info.output_sizes, info.has_mask, info.iterations) == (
        "tiny",
        8,
        (8,),
        False,
        7,
    )
    assert (info.centering, info.coverage, info.vertical_offset) == ("face", 1.0, 0.0)
    import hashlib

    assert info.weights_sha256 == hashlib.sha256((tmp_path / "tiny.safetensors").read_bytes()).hexdigest()
