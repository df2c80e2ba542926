"""`fsdeploy train` as a user runs it, on real and on drawn faces."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_process import TINY

from fsdeploy.cli.train import train
from fsdeploy.errors import FsdeployError


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments], standalone_mode=False)


def refused(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, FsdeployError), result.exception
    assert result.exception.exit_code == 2
    message = str(result.exception)
    assert "\n" not in message
    return message


def test_a_model_is_trained_on_real_faces_and_trained_on(tmp_path: Path, real_data: Path) -> None:
    faces = ["-A", real_data / "faces" / "A", "-B", real_data / "faces" / "B", "-m", tmp_path / "model"]
    first = invoke(*faces, *TINY, "-i", 3, "--seed", 1, "--warmup", 2, "--set", "learning_rate=1e-3", "-q")
    assert first.exception is None
    second = invoke(*faces, *TINY, "-i", 2, "--set", "loss_function=mae", "-M", "--no-flip", "--no-warp", "-c", "-q")
    assert second.exception is None
    state = json.loads((tmp_path / "model" / "compact_state.json").read_text())
    assert state["iterations"] == 5
    assert (state["config"]["width"], state["config"]["loss_function"]) == (8, "mae")
    assert state["config"]["learning_rate"] == 1e-3, "what a run does not set stays as the run before had it"
    assert load_file(tmp_path / "model" / "compact.safetensors")


def test_the_same_seed_gives_the_same_model(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    for name in ("one", "two"):
        assert invoke("-A", a, "-B", b, "-m", tmp_path / name, *TINY, "-i", 2, "--seed", 7, "-q").exception is None
    one, two = ((tmp_path / name / "compact.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_configuration_file_is_overruled_by_settings(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    file = tmp_path / "options.toml"
    file.write_text('[loss]\nloss_function = "mae"\nloss_weight_2 = 50\n[model.compact]\nwidth = 16\n')
    result = invoke("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "--config", file, "-i", 1, "-q")
    assert result.exception is None
    config = json.loads((tmp_path / "m" / "compact_state.json").read_text())["config"]
    assert (config["loss_function"], config["loss_weight_2"], config["width"]) == ("mae", 50, 8)


def test_weights_of_another_model_start_a_new_one(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    arguments = ["-A", a, "-B", b, *TINY, "-i", 1, "-q"]
    assert invoke(*arguments, "-m", tmp_path / "old").exception is None
    result = invoke(*arguments, "-m", tmp_path / "new", "--load-weights", tmp_path / "old", "--freeze-weights")
    assert result.exception is None
    old, new = (load_file(tmp_path / name / "compact.safetensors") for name in ("old", "new"))
    assert all((old[name] == new[name]).all() for name in old if name.startswith("encoder."))
    assert any((old[name] != new[name]).any() for name in old if name.startswith("decoder_"))


def test_the_summary_lists_the_parts_and_creates_nothing(tmp_path: Path) -> None:
    result = invoke("-m", tmp_path / "none", "-t", "compact", "--summary")
    assert result.exception is None
    assert "encoder" in result.output
    assert "decoder_b" in result.output
    assert not (tmp_path / "none").exists()


def test_bad_input_is_refused_by_name_and_leaves_nothing_behind(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    empty, model = tmp_path / "empty", tmp_path / "model"
    empty.mkdir()
    good = ["-A", a, "-B", b, "-m", model, "-i", 1, "-q"]
    assert "nowhere is not a folder" in refused("-A", tmp_path / "nowhere", "-B", b, "-m", model)
    assert f"{empty} holds no PNG" in refused("-A", a, "-B", empty, "-m", model)
    assert "-B" in refused("-A", a, "-m", model)
    assert "did you mean 'compact'" in refused(*good, "-t", "compcat")
    assert "did you mean 'learning_rate'" in refused(*good, *TINY, "--set", "learning_rat=1")
    assert "need" in refused(*good, *TINY, "--set", "loss_function_2=lpips_alex")
    few = tmp_path / "few"
    few.mkdir()
    path = next(iter(sorted(b.iterdir())))
    (few / path.name).write_bytes(path.read_bytes())
    assert "few holds 1 usable faces" in refused("-A", a, "-B", few, "-m", model, *TINY)
    assert not model.exists()


def test_the_folder_of_another_plugin_is_refused(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    assert invoke("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-i", 1, "-q").exception is None
    message = refused("-A", a, "-B", b, "-m", tmp_path / "m", "-t", "original", "-i", 1)
    assert "'compact'" in message


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/1").exists(), reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_refused(drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    assert "write permission" in refused("-A", a, "-B", b, "-m", "/proc/fsdeploy_model", *TINY, "-i", 1)


def test_previews_time_lapse_and_logs_are_written(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    film = tmp_path / "film"
    looks = ["-w", "-x", a, "-y", b, "-z", film, "--set", "preview_images=2", "--set", "coverage=80"]
    result = invoke("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, *looks, "-s", 2, "-i", 3, "-q")
    assert result.exception is None, repr(result.exception)
    # Two samples, columns A, A > A, A > B, B, B > B, B > A of 80 px (64 at 80 % coverage), a header of 17 px.
    assert cv2.imread(str(tmp_path / "m" / "training_preview.png")).shape == (2 * 80 + 17, 6 * 80, 3)
    assert all(cv2.imread(str(path)) is not None for path in film.iterdir())
    (log,) = (tmp_path / "m" / "compact_logs" / "session_1" / "train").iterdir()
    events = EventAccumulator(str(log)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"batch_total", "batch_face_A", "batch_weighted_B/ssim", "batch_unweighted_A/mse", "lr", "grad_norm"} <= tags
    assert [event.step for event in events.Scalars("batch_total")] == [1, 2, 3]
    both = events.Scalars("batch_face_A")[0].value + events.Scalars("batch_face_B")[0].value
    assert events.Scalars("batch_total")[0].value == pytest.approx(both, rel=1e-5)


def test_without_logs_no_log_folder_is_made(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    assert invoke("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-i", 2, "-s", 1, "-q", "--no-logs").exception is None
    assert not (tmp_path / "m" / "compact_logs").exists()


def test_messages_go_to_a_file_as_well(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    file = tmp_path / "training.log"
    result = invoke("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-i", 1, "-F", file)
    assert result.exception is None
    assert "iteration 1 saved to" in file.read_text()
    assert "cannot write" in refused("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-F", tmp_path / "no" / "file")


def test_half_a_time_lapse_is_refused(tmp_path: Path, drawn_faces: tuple[Path, Path]) -> None:
    a, b = drawn_faces
    assert "-y" in refused("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-x", a)


def test_a_time_lapse_that_cannot_be_written_is_refused_at_the_start(
    tmp_path: Path, drawn_faces: tuple[Path, Path]
) -> None:
    a, b = drawn_faces
    film = tmp_path / "film"
    film.write_text("a file")
    outputs = [film, film / "inside"]
    if Path("/proc/1").exists():
        outputs.append(Path("/proc/fsdeploy_film"))  # nobody can write there, not even root
    for output in outputs:
        line = ["-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-i", 1, "-q", "-x", a, "-y", b, "-z", output]
        message = refused(*line)
        assert f"cannot write the time-lapse into {output}" in message
        assert "-z" in message
    assert film.read_text() == "a file"
    assert not (tmp_path / "m").exists()


def test_without_a_display_the_preview_is_a_file(
    tmp_path: Path, drawn_faces: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    a, b = drawn_faces
    result = invoke("-A", a, "-B", b, "-m", tmp_path / "m", *TINY, "-p", "--set", "preview_images=2", "-i", 2, "-q")
    assert result.exception is None
    assert cv2.imread(str(tmp_path / "m" / "training_preview.png")) is not None
