"""Readers of the model folder under random damage: they load what is whole and refuse the rest, always alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import CountingOptimizer, TinyModel

from fsdeploy.errors import ConfigError, CorruptModelError, FsdeployError
from fsdeploy.model.folder import load_model
from fsdeploy.model.saved_set import read_state, state_digest
from fsdeploy.model.tensor_file import read_metadata, read_tensors, write_tensors

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["schema_version", "name", "sessions", "lowest_avg_loss", "iterations", "mixed_precision_layers", "lr_finder",
     "config", "fsdeploy", "fsdeploy.files", "fsdeploy.version", "fsdeploy.saved", "fsdeploy.digest",
     "config.width", "config.coverage", "config.mask_type", "config.optimizer", "sessions.1",
     "fsdeploy.files.tiny.safetensors"]
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz")
    model = TinyModel(path)
    model.build()
    model.state.increment_iterations()
    model.io.save(CountingOptimizer(), is_exit=True)
    for backup in path.glob("*.bk"):
        backup.unlink()
    return path


def replaced(state: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The state with the value of a dotted key replaced."""
    first, _, rest = key.partition(".")
    inner = state.get(first)
    return {**state, first: replaced(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


@FUZZ
@given(key=KEYS, value=JSON, signed=st.booleans())
def test_any_value_under_any_key_of_the_state_loads_or_is_refused(
    folder: Path, key: str, value: Any, signed: bool
) -> None:
    path = folder / "tiny_state.json"
    good = path.read_text()
    try:
        state = replaced(json.loads(good), key, value)
        if isinstance(state["fsdeploy"], dict) and key != "fsdeploy.digest":
            state["fsdeploy"]["digest"] = state_digest(state) if signed else ""
        path.write_text(json.dumps(state))
        try:
            load_model(folder)
        except FsdeployError as error:
            assert "\n" not in str(error)
    finally:
        path.write_text(good)


@FUZZ
@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_are_no_state(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "state.json"
    path.write_bytes(data)
    with pytest.raises(CorruptModelError):
        read_state(path)


@FUZZ
@given(position=st.floats(0, 1), cut=st.booleans(), byte=st.integers(0, 255))
def test_damaged_tensor_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, position: float, cut: bool, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "x.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(1)}, {"plugin": "tiny"})
    data = bytearray(path.read_bytes())
    at = int(position * (len(data) - 1))
    if cut:
        data = data[:at]
    else:
        data[at] = byte
    path.write_bytes(bytes(data))
    for read in (read_tensors, read_metadata):
        try:
            read(path)
        except CorruptModelError as error:
            assert "x.safetensors" in str(error)


def test_a_deeply_nested_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("[" * 200_000)
    with pytest.raises(CorruptModelError, match="damaged"):
        read_state(tmp_path / "s.json")


def test_a_name_that_leaves_the_folder_is_no_model_name(tmp_path: Path) -> None:
    from fsdeploy.model.saved_set import FileSet

    for name in ("../x", "/x", "", "X", "a b"):
        with pytest.raises((ConfigError, FsdeployError), match="cannot be a model name"):
            FileSet(tmp_path, name)
