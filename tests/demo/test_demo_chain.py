"""The demo's chain: commands that exist, a folder that is not overwritten, an outcome that programs can read."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from fsdeploy.cli import cli
from fsdeploy.config.training import TrainingOptions
from fsdeploy.demo import chain
from fsdeploy.demo.chain import DemoSettings, commands, data_command, rows, run_demo
from fsdeploy.demo.dataset import DataSize
from fsdeploy.demo.figures import Figures
from fsdeploy.demo.sheet import contact_sheet
from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.export import export_model
from fsdeploy.images import read_image
from fsdeploy.model.registry import model_class

SMALL = DataSize(faces=2, clip_frames=2, held_out=9)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a compact model that has learned nothing."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    plugin = model_class("compact")(folder / "model")
    plugin.build()
    plugin.io.save(is_exit=True)
    plugin.close()
    return export_model(folder / "model", folder / "a2b.onnx").path


def test_every_command_that_is_shown_is_one_that_a_user_can_type(tmp_path):
    shown = commands(DemoSettings(tmp_path))
    assert list(shown) == ["train", "export", "convert"]
    for line in [data_command(DemoSettings(tmp_path)), *(line for lines in shown.values() for line in lines)]:
        context = click.Context(cli)
        command = cli.get_command(context, line[0])
        assert command is not None
        command.make_context(line[0], list(line[1:]), parent=context)  # raises where an option is unknown or wrong


def test_data_alone_ends_with_the_commands_that_go_on_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "_draw_data", lambda settings: None)
    folder = tmp_path / "my data"
    printed = CliRunner().invoke(cli, ["demo", "--data-only", "-o", str(folder)]).output
    shown = [shlex.split(line.strip(" $")) for line in printed.partition("Next,")[2].splitlines()[1:]]
    wanted = commands(DemoSettings(folder))
    assert shown == [["fsdeploy", *wanted[name][0]] for name in ("train", "export", "convert")]


def test_the_training_options_are_options_that_exist(tmp_path):
    (train,) = commands(DemoSettings(tmp_path))["train"]
    named = {train[i + 1].partition("=")[0] for i, word in enumerate(train) if word == "--set"}
    assert named <= set(TrainingOptions().flat())


def test_the_chain_judges_what_was_exported_and_keeps_a_record(tmp_path, untrained):
    ran, said = [], []

    def run(line):
        ran.append(line[0])
        if line[0] == "export":
            shutil.copy(untrained, line[line.index("-o") + 1])

    folder = tmp_path / "out"
    outcome = run_demo(DemoSettings(folder, iterations=1, size=SMALL, quiet=True), run, said.append)
    assert ran == ["train", "export", "export", "convert"]
    assert [line for line in said if line.startswith("  $ fsdeploy train ")]
    assert outcome.figures is not None and outcome.figures.faces == 9
    assert not outcome.figures.met  # nothing was learned, so nothing may pass
    sheet = read_image(folder / "sheet.png")
    assert sheet.shape[0] > 6 * 128 and sheet.shape[1] > 8 * 128
    record = json.loads((folder / "demo.json").read_text())
    assert record == outcome.as_dict()
    assert record["met"] is False
    assert set(record["figures"]) == {"closer", "median_rank", "gain_db"}
    assert set(record["seconds"]) == {"data", "train", "export", "convert", "check"}


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="holds other files"):
        run_demo(DemoSettings(tmp_path, size=SMALL, force=True, quiet=True), lambda line: None, lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_an_earlier_demo_is_replaced_only_when_asked(tmp_path):
    settings = DemoSettings(tmp_path / "out", size=SMALL, data_only=True, quiet=True)
    run_demo(settings, lambda line: None, lambda text: None)
    note = settings.folder / "notes.txt"
    note.write_text("mine")
    with pytest.raises(InputError, match="--force"):
        run_demo(settings, lambda line: None, lambda text: None)
    forced = DemoSettings(settings.folder, seed=2, size=SMALL, data_only=True, force=True, quiet=True)
    run_demo(forced, lambda line: None, lambda text: None)
    assert json.loads((settings.folder / "demo.json").read_text())["seed"] == 2
    assert note.read_text() == "mine"


def test_data_only_writes_the_data_and_nothing_else(tmp_path):
    folder = tmp_path / "out"
    outcome = run_demo(
        DemoSettings(folder, size=SMALL, data_only=True, quiet=True), lambda line: None, lambda text: None
    )
    assert outcome.figures is None
    assert sorted(path.name for path in folder.iterdir()) == [
        "clip_a.mp4", "clip_a_alignments.fsa", "clip_b.mp4", "clip_b_alignments.fsa", "demo.json", "faces_a", "faces_b",
    ]  # fmt: skip


def test_a_missed_figure_is_shown_as_missed():
    shown = {row.name: row for row in rows(Figures(faces=60, closer=0.89, median_rank=10.0, gain_db=2.9))}
    assert [shown[name].met for name in ("closer", "median_rank", "gain_db")] == [False, True, False]
    assert shown["median_rank"].shown_limit == "<= 10"


@pytest.fixture
def ends_with(monkeypatch):
    """Make the command's chain end at once with these figures."""

    def end(figures: Figures) -> None:
        def fake(settings, run_command, say):
            say("[1/5] Draw two people")
            return chain.Outcome(settings.folder, settings.seed, settings.iterations, {"data": 1.0}, figures)

        monkeypatch.setattr(chain, "run_demo", fake)

    return end


def test_the_command_prints_json_alone_on_stdout(tmp_path, ends_with):
    ends_with(Figures(faces=60, closer=1.0, median_rank=2.0, gain_db=8.0))
    result = CliRunner().invoke(cli, ["demo", "--json", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "Draw two people" in result.stderr
    assert json.loads(result.stdout)["met"] is True


def test_the_command_fails_with_exit_code_1_when_a_figure_is_missed(tmp_path, ends_with):
    ends_with(Figures(faces=60, closer=1.0, median_rank=30.0, gain_db=8.0))
    result = CliRunner().invoke(cli, ["demo", "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, CheckFailedError)
    assert result.exception.exit_code == 1
    assert "MISSED" in result.stdout


def test_a_sheet_has_one_labelled_row_per_entry():
    images = [np.full((32, 32, 3), level, np.uint8) for level in (10, 200)]
    sheet = contact_sheet([("A", images), ("A to B", images)])
    assert sheet.shape == (4 + 2 * 36, 96 + 2 * 36, 3)
    assert (sheet[4:36, 96:128] == 10).all() and (sheet[40:72, 132:164] == 200).all()
    assert sheet[:, :96].min() < 100  # ink


def test_a_sheet_of_uneven_rows_is_refused():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="equal length"):
        contact_sheet([("A", [image]), ("B", [image, image])])
