"""Files made to harm: each is refused by a named error, nothing runs, nothing outside is read, memory is bounded."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_models import encoder, model_config, net2, rewritten, small_keras, weights, write_keras2
from torch_programs import pickled, tensor, text, torch_file

from fsdeploy.errors import CorruptModelError, FsdeployError, HostileFileError, UnsupportedFormatError
from fsdeploy.model.migrate import open_migration, write_migration
from fsdeploy.model.migration import find_converter
from fsdeploy_converters import child

HOSTILE = [
    "cyclic_hard_link", "external_link", "external_raw_storage", "graph_cycle", "gzip_bomb", "huge_shape_never_written",
    "lambda_layer", "missing_weight", "not_hdf5", "shape_mismatch", "soft_link", "truncated",
]  # fmt: skip


def refuse(path: Path, kind: type[FsdeployError] = FsdeployError) -> str:
    """Migration of `path` must fail with `kind`, in one line that names the file."""
    with pytest.raises(kind) as caught, open_migration(path):
        pass
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(name, legacy_models, tmp_path):
    path = tmp_path / f"{name}.h5"
    shutil.copy(legacy_models / "hostile" / f"{name}.h5", path)
    shutil.copy(legacy_models / "hostile" / "outside.bin", tmp_path)
    refuse(path)
    assert {file.name for file in tmp_path.iterdir()} == {f"{name}.h5", "outside.bin"}, "nothing was written"


def test_the_sound_control_migrates(legacy_models, tmp_path):
    with open_migration(legacy_models / "hostile" / "ok_control.h5") as migration:
        write_migration(migration, tmp_path / "out")
        assert any("one side only" in warning for warning in migration.model.warnings)
    assert (tmp_path / "out" / "imported.safetensors").is_file()


LIMITED = """
import resource, sys
from pathlib import Path
from fsdeploy.errors import FsdeployError
from fsdeploy.model.migrate import open_migration
from fsdeploy.model.migration import find_converter
import fsdeploy_converters.keras0, fsdeploy_converters.keras3_torch
import fsdeploy_plugins.models.original, fsdeploy_plugins.models.imported
pages = int(Path("/proc/self/statm").read_text().split()[0])
room = 1 << 30
for name in sys.argv[1:]:
    path = Path(name)
    limit = pages * resource.getpagesize() + room + path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        with open_migration(path):
            print(path.name, "migrated")
    except FsdeployError:
        print(path.name, "refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are tested on Linux")
def test_hostile_files_stay_within_a_gigabyte_over_their_size(legacy_models, tmp_path):
    files = sorted((legacy_models / "hostile").glob("*.h5"))
    files += [bomb(tmp_path), huge_dense(tmp_path), stride_zero(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, files)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = dict(line.split() for line in done.stdout.splitlines())
    assert len(results) == len(files)
    sound = {"ok_control.h5", "stride_zero.keras"}  # the second only loses its optimizer state
    assert {name for name, result in results.items() if result == "migrated"} == sound


def bomb(folder: Path) -> Path:
    """An archive whose weights unpack to 20 GB of zeros, as its directory says."""
    path = small_keras(folder, "bomb.keras")
    return rewritten(path, {"model.weights.h5": b"\0" * (200 << 20)}, zipfile.ZIP_DEFLATED)


def huge_dense(folder: Path) -> Path:
    """A graph whose dense layer would take a terabyte."""
    config = model_config()
    config["config"]["layers"][2]["config"]["layers"][4]["config"]["units"] = 10**6
    return write_keras2(folder / "huge_dense.h5", config)


def stride_zero(folder: Path) -> Path:
    """An optimizer whose tensor claims 10^12 elements with one value behind them."""
    claim = tensor([1000, 1000, 1000, 1000], [0, 0, 0, 0], 1)
    program = pickled(b"}(", text("version"), b"G?\xf0\0\0\0\0\0\0", text("optimizer"), claim, text("scaler"), b"Nu")
    return rewritten(small_keras(folder, "stride_zero.keras"), {"optimizer.pt": torch_file(program, {"0": b"\0" * 4})})


def test_the_small_models_of_these_tests_are_sound(tmp_path):
    with open_migration(write_keras2(tmp_path / "small.h5")) as two, open_migration(small_keras(tmp_path)) as three:
        assert two.plugin == three.plugin == "imported"
        for name, values in two.tensors.items():
            np.testing.assert_array_equal(values, three.tensors[name])


@pytest.mark.parametrize("member", ["../evil.json", "/etc/passwd", "a\\b", "C:evil", "folder/../../x"])
def test_an_archive_with_a_climbing_member_name_is_refused(member, tmp_path):
    refuse(rewritten(small_keras(tmp_path), {member: b"x"}), HostileFileError)


def test_an_archive_with_two_members_of_one_name_is_refused(tmp_path):
    path = small_keras(tmp_path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("config.json", "{}")
    refuse(path, HostileFileError)


def test_an_archive_with_thousands_of_members_is_refused(tmp_path):
    refuse(rewritten(small_keras(tmp_path), {f"assets/{n}": b"" for n in range(100)}), HostileFileError)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    path = rewritten(small_keras(tmp_path), {}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02")  # the last member of the directory: the weights
    size = struct.unpack_from("<I", data, place + 24)[0]
    struct.pack_into("<I", data, place + 24, size - 8)
    path.write_bytes(data)
    refuse(path)


def test_weights_that_unpack_to_more_than_the_graph_needs_are_refused(tmp_path):
    assert "claim" in refuse(bomb(tmp_path), HostileFileError)


def test_a_deflated_archive_in_any_order_is_read(tmp_path):
    path = small_keras(tmp_path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in reversed(archive.namelist())}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with open_migration(path) as migration:
        assert len(migration.tensors) == 24


def test_a_bad_optimizer_is_dropped_and_the_model_kept(tmp_path):
    path = rewritten(small_keras(tmp_path), {"optimizer.pt": b"PK\x03\x04 nonsense"})
    with open_migration(path) as migration:
        assert migration.model.optimizer is None
        assert any("optimizer" in warning for warning in migration.model.warnings)


def test_another_programs_network_is_refused(tmp_path):
    config = model_config()
    config["config"]["output_layers"] = [["encoder", 1, 0], ["encoder", 2, 0]]
    del config["config"]["layers"][3:]
    path = write_keras2(tmp_path / "classifier.h5", config, {"encoder": weights()["encoder"]})
    assert "not a face-swap model" in refuse(path, UnsupportedFormatError)


@pytest.mark.parametrize(
    "damage",
    [
        "missing",
        "extra name",
        "twice",
        "kind",
        "nan",
        "wrong version",
        "no graph",
        "dangling",
        "call",
        "output",
        "deep",
    ],
)
def test_a_damaged_graph_or_weight_list_is_refused(damage, tmp_path):
    path = write_keras2(tmp_path / "small.h5")
    config = model_config()
    with h5py.File(path, "a") as file:
        group = file["model_weights/encoder"]
        names = list(group.attrs["weight_names"])
        if damage == "missing":
            del group["dense/bias:0"]
        elif damage == "extra name":
            group.attrs["weight_names"] = [*names, "dense/more:0"]
        elif damage == "twice":
            group.attrs["weight_names"] = [names[0], *names[:-1]]
        elif damage == "kind":
            group.attrs["weight_names"] = [names[1], names[0], *names[2:]]
        elif damage == "nan":
            group["conv/bias:0"][2] = np.nan
        elif damage == "wrong version":
            file.attrs["keras_version"] = "1.2.2"
        elif damage == "no graph":
            del file.attrs["model_config"]
        elif damage == "dangling":
            config["config"]["layers"][3]["inbound_nodes"] = [[["nobody", 1, 0, {}]]]
        elif damage == "call":
            config["config"]["layers"][3]["inbound_nodes"] = [[["encoder", 9, 0, {}]]]
        elif damage == "output":
            config["config"]["output_layers"][0][1] = ["decoder_a", 1, 7]
        elif damage == "deep":
            config["config"]["deep"] = json.loads("[" * 80 + "]" * 80)
        if damage in ("dangling", "call", "output", "deep"):
            file.attrs["model_config"] = json.dumps(config)
    refuse(path)


def test_a_name_that_climbs_out_of_its_group_is_refused(tmp_path):
    path = write_keras2(tmp_path / "small.h5")
    with h5py.File(path, "a") as file:
        group = file["model_weights/encoder"]
        names = list(group.attrs["weight_names"])
        group.attrs["weight_names"] = ["/model_weights/decoder_a/face_up/kernel:0", *names[1:]]
    refuse(path, HostileFileError)


def test_arrays_that_share_bytes_are_refused(tmp_path):
    """Two datasets with one place on disk: found by moving the address of one in the file."""
    path = write_keras2(tmp_path / "small.h5")
    with h5py.File(path) as file:
        one = file["model_weights/encoder/dense/kernel:0"].id.get_offset()
        other = file["model_weights/encoder/up/kernel:0"].id.get_offset()
    data = path.read_bytes()
    assert data.count(struct.pack("<Q", other)) == 1
    path.write_bytes(data.replace(struct.pack("<Q", other), struct.pack("<Q", one)))
    assert "bytes of another" in refuse(path, HostileFileError)


def test_a_graph_that_would_run_without_end_is_refused(tmp_path):
    """Sixteen calls of a net of sixteen calls of a net: a small file, 16^4 operations and more."""

    def nest(depth: int) -> dict:
        layers = [
            {"class_name": "InputLayer", "name": "i", "config": {"batch_input_shape": [None, 4]}, "inbound_nodes": []}
        ]
        inner = (
            {"class_name": "Activation", "name": "f", "config": {"activation": "linear"}}
            if depth == 0
            else nest(depth - 1)
        )
        inner["name"] = "f"
        base = 0 if depth == 0 else 1
        calls = [[["i", 0, 0, {}]]] + [[["f", n + base, 0, {}]] for n in range(15)]
        inner["inbound_nodes"] = calls
        layers.append(inner)
        config = {
            "name": f"n{depth}",
            "layers": layers,
            "input_layers": [["i", 0, 0]],
            "output_layers": [["f", 15 + base, 0]],
        }
        return {"class_name": "Functional", "config": config}

    path = write_keras2(tmp_path / "endless.h5", nest(3), {})
    refuse(path)


def test_a_state_file_of_nonsense_only_costs_the_state(tmp_path):
    path = write_keras2(tmp_path / "small.h5")
    (tmp_path / "small_state.json").write_text('{"iterations": {"a": 1}, "config": [1], "sessions": 3, "name": 7}')
    with open_migration(path) as migration:
        assert migration.model.state["iterations"] == 0 and migration.model.state["sessions"] == {}


@pytest.mark.skipif(sys.platform == "win32", reason="no sparse files")
def test_a_huge_state_file_is_not_read(tmp_path):
    path = write_keras2(tmp_path / "small.h5")
    with (tmp_path / "small_state.json").open("wb") as stream:
        stream.truncate(1 << 31)
    with open_migration(path) as migration:
        assert migration.model.state["iterations"] == 0
        assert any(f"a state of {1 << 31} bytes" in warning for warning in migration.model.warnings)


def test_something_else_is_no_legacy_model(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    refuse(path, UnsupportedFormatError)
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", UnsupportedFormatError)


def test_recognising_reads_no_more_than_it_must(tmp_path):
    converter = find_converter(small_keras(tmp_path))
    with ExitStack() as resources:
        assert "keras" in converter.read(tmp_path / "small.keras", resources).origin["format"]


def test_a_missing_part_of_a_three_file_model_is_named(tmp_path):
    alone = net2("encoder", encoder(), ["input_1"], ["shuffle"], [])
    path = write_keras2(tmp_path / "original_encoder.h5", alone)
    assert "*decoder_A.h5, *decoder_B.h5" in refuse(path, CorruptModelError)


def test_a_file_that_hdf5_never_finishes_with_is_refused_in_time(tmp_path, monkeypatch):
    """The child that looks a file over is stopped, and the next file gets a new one."""
    path = write_keras2(tmp_path / "small.h5")
    monkeypatch.setattr(child, "SECONDS", 0.0)
    assert "does not come to an end" in refuse(path, HostileFileError)
    monkeypatch.setattr(child, "SECONDS", 60.0)
    with open_migration(path) as migration:
        assert len(migration.tensors) == 24


def test_a_file_that_crashes_hdf5_is_refused(tmp_path, monkeypatch):
    path = write_keras2(tmp_path / "small.h5")
    monkeypatch.setattr(child._Child, "ask", lambda *_: b"")
    assert "crashes" in refuse(path, CorruptModelError)
