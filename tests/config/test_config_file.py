"""The configuration file and settings on the command line."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from fsdeploy.cli.config import config
from fsdeploy.config.file import parse_settings, read_file, sections, write_commented
from fsdeploy.config.option import option, specs
from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import ConfigError, InputError


@dataclass(frozen=True)
class ToyOptions:
    width: int = option(4, "Channels.", minimum=1, maximum=8)
    parts: tuple[str, ...] = option(("encoder",), "Parts.", choices=("encoder", "decoder_a"))


PLUGINS: dict[str, type] = {"toy": ToyOptions}


def write(folder: Path, text: str) -> Path:
    path = folder / "options.toml"
    path.write_text(text)
    return path


def test_a_file_sets_options_by_section(tmp_path: Path) -> None:
    path = write(tmp_path, '[optimizer]\nlearning_rate = 1e-4\n[loss]\nloss_function = "mae"\n[model.toy]\nwidth = 6\n')
    values = read_file(path, PLUGINS)
    assert values.training == {"learning_rate": 1e-4, "loss_function": "mae"}
    assert values.plugins == {"toy": {"width": 6}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimiser]\nx = 1", r"unknown section \[optimiser\]: did you mean 'optimizer'"),
        ("[optimizer]\nlearning_rte = 1", r"option 'learning_rte' in \[optimizer\]: did you mean 'learning_rate'"),
        ("[optimizer]\nloss_function = 'mae'", r"'loss_function' in \[optimizer\]: it belongs to \[loss\]"),
        ("[optimizer]\nlearning_rate = 5.0", r"0\.1, got 5\.0: the nearest valid value is 0\.1"),
        ("[optimizer]\nada_beta_1 = 1.0", r"'ada_beta_1' must be in 0\.0\.\.0\.99999, got 1\.0"),
        ("[optimizer]\nada_beta_2 = 1.0", r"'ada_beta_2' must be in 0\.0\.\.0\.99999, got 1\.0"),
        ("[optimizer]\nlearning_rate = 'fast'", r"must be of type float"),
        ("[loss]\nloss_function = 'sim'", r"cannot be 'sim': did you mean 'ssim'"),
        ("[model.tow]\nwidth = 1", r"unknown section \[model\.tow\]: did you mean 'toy'"),
        ("[model.toy]\nwidth = 9", r"'width' must be in 1\.\.8, got 9: the nearest valid value is 8"),
        ("[model]\ntoy = 3", r"\[model\.toy\] must be a table"),
        ("learning_rate = 1e-4", r"'learning_rate' stands outside of a section"),
        ("[optimizer", r"no valid TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_name_with_the_nearest_right_thing(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as failure:
        read_file(path, PLUGINS)
    assert str(path) in str(failure.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 5000 + "]" * 5000, "no valid TOML"),
        ("x = " + "9" * 5000, "no valid TOML"),
        ("[optimizer]\nlearning_rate = 1" + "0" * 400, r"'learning_rate' cannot be a number of 401 digits"),
        ("[model.toy]\nparts = 3", "'parts' must be a list of names, got 3"),
        ("[model.toy]\nparts = {encoder = 1}", "'parts' must be a list of names"),
        ("[augmentation]\nmask_color = 'zzz'", "'mask_color' must look like #rrggbb, got 'zzz'"),
        ("[augmentation]\nmask_color = '#ff00001'", "'mask_color' must look like #rrggbb"),
        ("[augmentation]\nmask_color = '#ff0000\\n'", "no valid TOML|must look like"),
        ('[augmentation]\nmask_color = "#ff0000\\n"', "'mask_color' must look like #rrggbb"),
    ],
)  # fmt: skip
def test_a_file_beyond_what_an_option_can_hold_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    from fsdeploy.convert.settings import parse_values

    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as failure:
        read_file(path, PLUGINS)
    assert str(path) in str(failure.value)
    if text.startswith("x"):
        with pytest.raises(ConfigError, match=message):
            parse_values((), path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    from fsdeploy.convert.settings import parse_values

    path = tmp_path / "options.toml"
    path.write_bytes(b"\xef\xbb\xbf[loss]\nloss_function = 'mae'\n[convert.writer.video]\ncrf = 18\n")
    assert read_file(path, PLUGINS).training == {"loss_function": "mae"}
    assert parse_values((), path) == {"writer.video": {"crf": 18}}


def test_a_colour_is_checked_where_it_is_set() -> None:
    assert parse_settings(["mask_color=#00Ff7f"], "toy", ToyOptions).training == {"mask_color": "#00Ff7f"}
    with pytest.raises(ConfigError, match="#rrggbb"):
        parse_settings(["mask_color=red"], "toy", ToyOptions)


def test_show_and_check_know_the_options_of_convert_plugins(tmp_path: Path) -> None:
    runner = CliRunner()
    path = write(tmp_path, "[convert.writer.video]\ncrf = 18\n")
    rows = json.loads(runner.invoke(config, ["show", str(path), "--json"]).output)
    (row,) = [row for row in rows if (row["section"], row["name"]) == ("convert.writer.video", "crf")]
    assert row["value"] == 18 != row["default"]
    text = runner.invoke(config, ["init"]).output
    sections = [line[1:-1] for line in text.splitlines() if line.startswith("[")]
    assert len([name for name in sections if name.startswith("convert.")]) > 5
    assert set(sections) == {row["section"] for row in rows}
    for wrong in ("[convert.color.nope]\nx = 1\n", "[convert.writer.video]\nnope = 1\n", "[convert.nope.x]\ny = 1\n"):
        path.write_text(wrong)
        for command in ("check", "show"):
            failure = runner.invoke(config, [command, str(path)]).exception
            assert isinstance(failure, ConfigError) and "nope" in str(failure) and str(path) in str(failure)


def test_values_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, '[loader]\ncache_folder = "/data/[/x][red]"\n')
    result = CliRunner().invoke(config, ["show", str(path)], env={"COLUMNS": "300"})
    assert result.exit_code == 0 and "/data/[/x][red]" in result.output


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fsdeploy config init"):
        read_file(tmp_path / "none.toml", PLUGINS)


def test_settings_are_parsed_by_the_type_of_their_option() -> None:
    settings = ["mixed_precision=yes", "learning-rate=1e-3", "zoom_amount=7", "width=3", "parts=encoder, decoder_a"]
    values = parse_settings(settings, "toy", ToyOptions)
    assert values.training == {"mixed_precision": True, "learning_rate": 1e-3, "zoom_amount": 7}
    assert values.plugins["toy"] == {"width": 3, "parts": ("encoder", "decoder_a")}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("mixed_precision", "write name=value"),
        ("mixed_precison=true", "did you mean 'mixed_precision'"),
        ("mixed_precision=maybe", "true or false"),
        ("zoom_amount=2.5", "must be of type int"),
        ("widt=3", "did you mean 'width'"),
    ],
)
def test_a_wrong_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings([setting], "toy", ToyOptions)


def test_the_commented_file_names_every_option_and_sets_none(tmp_path: Path) -> None:
    text = write_commented(PLUGINS)
    path = write(tmp_path, text)
    values = read_file(path, PLUGINS)
    assert not values.training
    assert not any(values.plugins.values())
    for kind in [*sections().values(), ToyOptions]:
        for name in specs(kind):
            assert f"\n# {name} = " in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_commented_file_with_every_comment_mark_removed_sets_the_defaults(tmp_path: Path) -> None:
    names = [name for kind in [*sections().values(), ToyOptions] for name in specs(kind)]
    lines = write_commented(PLUGINS).splitlines()
    active = [line[2:] if any(line.startswith(f"# {name} = ") for name in names) else line for line in lines]
    values = read_file(write(tmp_path, "\n".join(active)), PLUGINS)
    assert values.training == TrainingOptions().flat()
    assert values.plugins["toy"] == {"width": 4, "parts": ("encoder",)}
    assert tomllib.loads("\n".join(active))["face"]["coverage"] == 100.0


def test_flat_values_become_sections_and_unknown_names_are_refused() -> None:
    made = TrainingOptions.from_flat({"learning_rate": 1e-3, "coverage": 70.0})
    assert (made.optimizer.learning_rate, made.face.coverage, made.loss.loss_function) == (1e-3, 70.0, "ssim")
    assert TrainingOptions.from_flat(made.flat()) == made
    with pytest.raises(ConfigError, match="did you mean 'coverage'"):
        TrainingOptions.from_flat({"coverge": 70.0})


def test_the_command_writes_checks_and_shows(tmp_path: Path) -> None:
    runner, path = CliRunner(), tmp_path / "options.toml"
    assert runner.invoke(config, ["init", "-o", str(path)]).exit_code == 0
    assert "[model.original]" in path.read_text()
    again = runner.invoke(config, ["init", "-o", str(path)])
    assert isinstance(again.exception, InputError)
    assert "0 options, all valid" in runner.invoke(config, ["check", str(path)]).output
    path.write_text("[optimizer]\nlearning_rate = 1e-4\n")
    shown = json.loads(runner.invoke(config, ["show", str(path), "--json"]).output)
    (row,) = [row for row in shown if row["name"] == "learning_rate"]
    assert (row["value"], row["default"], row["section"]) == (1e-4, 5e-5, "optimizer")
    assert "lowmem" in runner.invoke(config, ["show"], env={"COLUMNS": "200"}).output


def test_a_trainer_offers_the_defaults_of_its_own_sections() -> None:
    from fsdeploy.training.trainer_config import Augmentation, Loader, get_defaults

    assert get_defaults() == {"augmentation": Augmentation(), "loader": Loader()}
    assert get_defaults()["augmentation"].zoom_amount == 5
