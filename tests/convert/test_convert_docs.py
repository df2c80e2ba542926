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
