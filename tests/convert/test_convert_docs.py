"""docs/convert.md lists what is installed: the two cannot drift apart."""

from pathlib import Path

from fsdeploy.convert.listing import plugin_lines, plugin_tables

DOCS = Path(__file__).parents[2] / "docs"


def test_every_plugin_and_option_is_documented_with_its_default() -> None:
    text = (DOCS / "convert.md").read_text("utf-8")
    missing = [line for block in plugin_tables() for line in block.strip().splitlines() if line not in text]
    assert not missing, "update the tables at the end of docs/convert.md from fsdeploy.convert.listing.plugin_tables()"


def test_plugins_can_be_listed_on_the_command_line(fsdeploy) -> None:
    code, out, _ = fsdeploy("convert", "--list-plugins")
    assert code == 0 and out.splitlines() == list("\n".join(plugin_lines()).splitlines())
    assert "mask.feather.width=3.0" in out


def test_the_documented_landmark_examples_are_read(tmp_path) -> None:
    import json

    from fsdeploy.convert.landmarks import read_landmarks

    points = [[float(n), float(n % 7)] for n in range(68)]
    (tmp_path / "l.jsonl").write_text(json.dumps({"frame": 0, "face": 0, "landmarks": points}))
    assert read_landmarks(tmp_path / "l.jsonl").face_count == 1


def test_a_configuration_file_holds_the_options_of_convert_plugins(tmp_path, fsdeploy) -> None:
    from fsdeploy.convert.settings import parse_values

    path = tmp_path / "options.toml"
    assert fsdeploy("config", "init", "-o", path)[0] == 0
    text = path.read_text()
    assert "[convert.color.mkl]" in text and "# strength = 100.0" in text
    path.write_text(text.replace("# strength = 100.0", "strength = 70.0", 1).replace("# crf = 20", "crf = 31"))
    code, out, err = fsdeploy("config", "check", path)
    assert code == 0 and "2 options, all valid" in out, err
    values = parse_values(["writer.video.crf=18", "writer.video.level=4.1"], path)
    assert values["color.mkl"] == {"strength": 70.0}
    assert values["writer.video"] == {"crf": 18, "level": "4.1"}
    path.write_text("[convert.color.mkl]\nstrenght = 5\n")
    code, _, err = fsdeploy("config", "check", path)
    assert code == 2 and "strength" in err and "color.mkl" in err
