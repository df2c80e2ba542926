"""A path of the wrong kind gets one line that says what it is, and which command makes what was wanted."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from fsdeploy.cli import main
from fsdeploy.errors import InputError
from fsdeploy.runtime import Swapper


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """All that a refused command line prints, which must be one line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["fsdeploy", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        assert stopped.value.code == 2 and not printed.out and len(printed.err.splitlines()) == 1, printed
        return printed.err

    return run


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "original.h5", "w") as file:
        file["x"] = [1.0]
    return tmp_path / "original.h5"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    (tmp_path / "m_compact").mkdir()
    (tmp_path / "m_compact" / "compact_state.json").write_text("{}")
    (tmp_path / "m_compact" / "compact.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}              ")
    return tmp_path / "m_compact"


@pytest.mark.parametrize("command", ["check", "bench"])
def test_a_legacy_model_where_an_exported_file_belongs_leads_to_migrate(refusal, legacy: Path, command: str) -> None:
    assert f"it is a legacy model, run 'fsdeploy migrate {legacy} --export'" in refusal(command, legacy)


def test_converting_with_a_legacy_model_leads_to_migrate(refusal, legacy: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "l.json").write_text('{"a.png": [[' + ", ".join(["[1, 2]"] * 68) + "]]}")
    arguments = ("-i", tmp_path / "in", "-o", tmp_path / "o", "-l", tmp_path / "l.json")
    assert "fsdeploy migrate" in refusal("convert", "-m", legacy, *arguments) and not (tmp_path / "o").exists()


def test_a_zip_counts_as_a_legacy_model_by_its_name_only(tmp_path: Path) -> None:
    for name, expected in (("m.keras", "legacy model"), ("m.onnx", "truncated or of another format")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("config.json", "{}")
        with pytest.raises(InputError, match=expected):
            Swapper(tmp_path / name)


@pytest.mark.parametrize("command", ["check", "bench"])
def test_a_model_folder_where_a_file_belongs_leads_to_export(refusal, model_folder: Path, command: str) -> None:
    assert f"is a model folder: run 'fsdeploy export {model_folder}'" in refusal(command, model_folder)
    weights = model_folder / "compact.safetensors"
    assert f"run 'fsdeploy export {model_folder}'" in refusal(command, weights)


def test_the_library_says_the_same_of_folders(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="m_compact is a model folder: run 'fsdeploy export"):
        Swapper(model_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty is a folder: give the \.onnx file"):
        Swapper(tmp_path / "empty")


def test_nothing_is_announced_before_the_model_folder_is_known_to_be_one(refusal, legacy: Path, tmp_path: Path) -> None:
    assert "nowhere does not exist" in refusal("export", tmp_path / "nowhere")
    assert f"{legacy} is a legacy model: run 'fsdeploy migrate {legacy}' first" in refusal("export", legacy)
    (tmp_path / "empty").mkdir()
    assert "empty holds no model" in refusal("export", tmp_path / "empty")
