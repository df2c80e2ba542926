"""A model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from fsdeploy.errors import CheckFailedError, InputError
from fsdeploy.export import ExportSettings, export_model


@pytest.mark.parametrize("io", [None, "uint8"])
def test_the_configuration_is_valid_by_tritons_own_schema_and_fits_the_model(
    tiny_masked: Path, tmp_path: Path, io: str | None
) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc", reason="needs the package tritonclient[grpc]").model_config_pb2
    repository = tmp_path / "repo"
    report = export_model(tiny_masked, repository, settings=ExportSettings(format="triton", io=io))
    name = f"{tiny_masked.name}_a2b"
    folder = repository / name
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (name, "onnxruntime", 16)
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    types = {schema.TYPE_FP32: "tensor(float)", schema.TYPE_UINT8: "tensor(uint8)"}
    for declared, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(entry.name, types[entry.data_type], ["N", *entry.dims]) for entry in declared] == [
            (entry.name, entry.type, entry.shape) for entry in real
        ]
    assert report.path == repository and report.max_difference <= (1e-4 if io is None else 1.01 / 255)


def test_a_second_model_joins_the_repository_and_the_first_is_kept(tiny: Path, tmp_path: Path) -> None:
    repository, settings = tmp_path / "repo", ExportSettings(format="triton")
    export_model(tiny, repository, settings=settings)
    export_model(tiny, repository, True, settings=settings)
    assert sorted(path.name for path in repository.iterdir()) == ["tiny_a2b", "tiny_b2a"]
    with pytest.raises(InputError, match="--force"):
        export_model(tiny, repository, settings=settings)
    export_model(tiny, repository, settings=settings, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo"]


def test_a_model_that_fails_its_check_leaves_no_repository(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError):
        export_model(tiny, tmp_path / "repo", settings=ExportSettings(format="triton", atol=1e-12))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A repository on another file system than the folder it is seen in."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        repository = tmp_path / "repo"
        repository.symlink_to(folder, target_is_directory=True)
        yield repository


def test_a_repository_may_be_a_file_system_of_its_own(tiny: Path, mounted: Path) -> None:
    settings = ExportSettings(format="triton")
    for force in (False, True):
        export_model(tiny, mounted, settings=settings, force=force)
        assert [path.name for path in mounted.iterdir()] == ["tiny_a2b"]
        assert sorted(path.name for path in (mounted / "tiny_a2b").iterdir()) == ["1", "config.pbtxt"]
        assert (mounted / "tiny_a2b").stat().st_mode & 0o777 == 0o755
    with pytest.raises(CheckFailedError):
        export_model(tiny, mounted, True, settings=ExportSettings(format="triton", atol=1e-12))
    assert [path.name for path in mounted.iterdir()] == ["tiny_a2b"]
    assert [path.name for path in mounted.parent.iterdir()] == ["repo"]


def test_a_model_that_cannot_be_replaced_stays(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, settings = tmp_path / "repo", ExportSettings(format="triton")
    export_model(tiny, repository, settings=settings)
    before = (repository / "tiny_a2b" / "1" / "model.onnx").read_bytes()
    rename, target = Path.rename, repository / "tiny_a2b"
    refusals = iter([True])

    def refuse_once(path: Path, to: Path) -> Path:
        if to == target and next(refusals, False):
            raise PermissionError(13, "Permission denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse_once)
    with pytest.raises(InputError, match="cannot write"):
        export_model(tiny, repository, settings=settings, force=True)
    assert (target / "1" / "model.onnx").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo"]
