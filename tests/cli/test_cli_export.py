"""`fsdeploy export`, `check` and `bench` as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

from fsdeploy.cli import cli, main
from fsdeploy.model.folder import write_model_folder

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the plugin `compact`, never trained."""
    from fsdeploy.model.registry import model_class

    folder = tmp_path_factory.mktemp("models") / "mine"
    plugin = model_class("compact")(folder)
    plugin.build()
    plugin.io.save(is_exit=True)
    plugin.io.close()
    return folder


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the whole command, errors handled as for a user."""
    monkeypatch.setattr(sys, "argv", ["fsdeploy", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def test_the_last_lines_say_file_size_opset_difference_digest_and_use(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(monkeypatch, capsys, "export", model)
    lines = out.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("file "))
    assert code == 0 and lines[first].endswith("mine_a2b.onnx")
    assert [line.split()[0] for line in lines[first : first + 7]] == [
        "file",
        "manifest",
        "size",
        "opset",
        "largest",
        "sha256",
        "use",
    ]
    assert lines[first + 1].endswith("mine_a2b.onnx.json") and (tmp_path / "mine_a2b.onnx.json").is_file()
    assert not any(line.startswith(" ") for line in lines), "one margin for all lines"
    code, out, _ = run(monkeypatch, capsys, "export", model, "--swap-sides", "--json")
    values = json.loads(out)
    assert values["metadata"]["direction"] == "b2a" and (tmp_path / "mine_b2a.onnx").is_file()
    assert values["manifest"] == "mine_b2a.onnx.json"
    code, out, _ = run(monkeypatch, capsys, "check", "mine_a2b.onnx")
    assert code == 0 and "pass  C17" in out
    code, out, _ = run(monkeypatch, capsys, "bench", "mine_a2b.onnx", "-n", "2", "-b", "1", "-p", "cpu")
    assert code == 0 and out.splitlines()[2].split()[:3] == ["CPU", "CPU", "1"]
    code, out, err = run(monkeypatch, capsys, "bench", "mine_a2b.onnx", "-n", "1", "-p", "coreml", "--strict")
    assert code == 3 and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--atol", "1e-13"], 1, "no file was written"),
        (["--opset", "99"], 2, "opset 99 cannot be written"),
        (["--size", "224"], 2, "--size is not for --format onnx"),
        (["--format", "dfm", "--io", "uint8"], 2, "--io is not for --format dfm"),
        (["--batch", "many"], 2, "--batch must be 'dynamic' or a number"),
        (["--precision", "int8"], 2, "--precision int8 needs --faces"),
        (["--precision", "fp16", "--faces", "nowhere"], 2, "nowhere is not a folder"),
        (["-o", "blocked/m.onnx"], 2, "cannot write"),
        (["-o", "there.onnx"], 2, "--force"),
        (["-o", "foo"], 2, "name it foo.onnx"),
        (["-o", "foo", "--format", "dfm"], 2, "name it foo.dfm"),
        (["-o", "me.v2"], 2, "name it me.v2.onnx"),
        (["-o", "me.dfm"], 2, "add --format dfm, or name it me.onnx"),
        (["-o", "folder", "--force"], 2, "folder is a folder: name a file to write with -o"),
        (["-o", "folder"], 2, "folder is a folder: name a file to write with -o"),
    ],
)
def test_a_wrong_wish_is_one_line_with_its_exit_code_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blocked").write_text("a file, not a folder")
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    got, _, err = run(monkeypatch, capsys, "export", model, *arguments)
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert got == code and len(errors) == 1 and message in errors[0] and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_a_whole_frame_graph_is_not_sent_to_the_convert_command(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(monkeypatch, capsys, "export", model, "--graph", "frame")
    assert code == 0 and "docs/embedding.md" in out and "fsdeploy convert" not in out
    code, out, _ = run(monkeypatch, capsys, "export", model, "--force")
    assert code == 0 and "use with fsdeploy convert -m mine_a2b.onnx" in out


def test_a_file_that_cannot_get_its_name_leaves_the_earlier_pair(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, capsys, "export", model)[0] == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if target.name == "mine_a2b.onnx":
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    code, _, err = run(monkeypatch, capsys, "export", model, "--force", "--io", "uint8")
    assert code == 2 and "cannot write" in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damage_inside_a_graph_is_a_damaged_file_for_inspect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 99, [1])], [helper.make_tensor_value_info("y", 1, ["N"])],
    )  # fmt: skip
    proto = helper.make_model(graph, ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    code, out, _ = run(monkeypatch, capsys, "inspect", path, "--json")
    assert code == 0 and json.loads(out)["tensors"][0]["type"] == "unknown (99)"
    value = b"\x6a\x04\x0a\x7fno"  # field 13, value_info: a name that is longer than the message
    content = proto.graph.SerializeToString() + value
    outline = onnx.ModelProto(ir_version=8).SerializeToString()
    path.write_bytes(outline + b"\x3a" + bytes([len(content)]) + content)
    code, _, err = run(monkeypatch, capsys, "inspect", path)
    assert code == 2 and "m.onnx is damaged inside its graph" in err and err.count("\n") == 1
    path.write_bytes(proto.SerializeToString().replace(b"x", b"\xff"))
    code, _, err = run(monkeypatch, capsys, "inspect", path)
    assert code == 2 and "m.onnx is damaged inside its graph" in err and err.count("\n") == 1


def test_a_folder_that_is_no_model_an_unknown_plugin_and_a_damaged_one_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = run(monkeypatch, capsys, "export", "empty")
    assert code == 2 and "holds no model" in err
    write_model_folder(tmp_path / "other", {"name": "orignal", "config": {}}, {})
    code, _, err = run(monkeypatch, capsys, "export", "other")
    assert code == 2 and "did you mean 'original'" in err
    shutil.copytree(model, tmp_path / "damaged")
    for path in (tmp_path / "damaged").glob("*.safetensors*"):
        path.write_bytes(path.read_bytes()[:100])
    code, _, err = run(monkeypatch, capsys, "export", "damaged")
    assert code == 2 and "Traceback" not in err
    assert not list(tmp_path.glob("*.onnx"))


def test_an_unreadable_file_is_exit_2_for_check_and_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x08\x12\x70half")
    for command in ("check", "bench"):
        code, _, err = run(monkeypatch, capsys, command, tmp_path / "cut.onnx")
        assert code == 2 and err.count("\n") == 1 and "cut.onnx" in err


def test_a_batch_beyond_all_memory_is_a_note_or_a_refusal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.onnx"
    assert run(monkeypatch, capsys, "export", model, "-o", file)[0] == 0
    code, _, err = run(monkeypatch, capsys, "bench", file, "-b", "99999999")
    assert code == 2 and err.count("\n") == 1 and "1<=x<=4096" in err

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fsdeploy.runtime.bench.random_inputs", full)
    code, out, _ = run(monkeypatch, capsys, "bench", file, "-b", "64", "-p", "cpu")
    assert code == 0 and "64 faces at once do not fit into memory" in out


@pytest.mark.parametrize("command", ["export", "check", "bench"])
def test_help_shows_examples_and_loads_nothing_heavy(command: str) -> None:
    assert "Examples:" in RUNNER.invoke(cli, [command, "--help"]).output
    code = (
        f"import sys; from fsdeploy.cli import cli; cli(['{command}', '--help'], standalone_mode=False); "
        "assert not {'torch', 'cv2', 'onnxruntime', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
