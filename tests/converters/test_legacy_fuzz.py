"""Mutated legacy files: a named error or a model that runs, nothing else, and never for long.

FSDEPLOY_FUZZ_COUNT sets the number of mutations, 1000 by default.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from small_models import model_config, write_keras2
from torch_programs import pickled, tensor, text

from fsdeploy.errors import FsdeployError
from fsdeploy.model.graph.network import GraphNetwork
from fsdeploy.model.native_fit import load_on
from fsdeploy_converters import Legacy, child, keras2, keras3, keras3_torch
from fsdeploy_converters.torch_archive import Walker

COUNT = int(os.environ.get("FSDEPLOY_FUZZ_COUNT", "1000"))
SECONDS = 10.0
CONVERTERS = [keras2.Converter(), keras3.Converter(), keras3_torch.Converter()]
HOSTILE_VALUES = [
    None, True, -1, 0, 1, 7, 2**31, 10**12, 10**30, -(10**9), 1e308, 0.5, "", "x" * 999, "same", "Functional", "Lambda",
    "../../x", "\x00", [], [[]], {}, [1, 2], [-1, -1], ["encoder", 1, 0], [None, 16, 16, 3], {"class_name": "Lambda"},
]  # fmt: skip
HOSTILE_BYTES = [b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\x00\x00\x00\x80", b"\x01", b"HDF", b"PK\x03\x04"]


def attempt(path: Path) -> bool:
    """Read a file and run the model; True when it migrated. Anything but a named error fails the test."""
    started = time.monotonic()
    try:
        with ExitStack() as resources:
            converter = next((entry for entry in CONVERTERS if entry.recognises(path)), None)
            if converter is None:
                return False
            model = converter.read(path, resources)
            tensors = {name: torch.from_numpy(tensor.read()) for name, tensor in model.tensors.items()}
            network = load_on(GraphNetwork, tensors, model.description)
            face = torch.rand(1, *model.description.net.inputs[0])
            with torch.inference_mode():
                for side in (0, 1):
                    assert network.swap(face, side)
    except FsdeployError as error:
        assert "\n" not in str(error)
        return False
    finally:
        assert time.monotonic() - started < SECONDS
    return True


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, replaced, removed or doubled; half of the time near structure rather than in weights."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        structure = [changed.find(mark) for mark in (b"TREE", b"SNOD", b"HEAP", b"OHDR", b"GCOL", b"PK\x01\x02", b"{")]
        near = [place for place in structure if place >= 0]
        place = rng.randrange(len(changed)) if rng.random() < 0.5 or not near else rng.choice(near) + rng.randrange(400)
        place = min(place, len(changed) - 1)
        kind = rng.randrange(6)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.randrange(256)
        elif kind == 2:
            value = rng.choice(HOSTILE_BYTES)
            changed[place : place + len(value)] = value
        elif kind == 3:
            del changed[place : place + rng.randint(1, 64)]
        elif kind == 4:
            changed[place:place] = changed[place : place + rng.randint(1, 64)]
        elif rng.random() < 0.2:
            del changed[place:]
        if not changed:
            return b"\0"
    return bytes(changed)


def mutated_json(value, rng: random.Random):
    """One to three places of a description replaced by something else, removed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        holder = value
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = rng.choice(keys)
            deeper = isinstance(holder[key], (dict, list)) and holder[key]
            if deeper and rng.random() < 0.85:
                holder = holder[key]
                continue
            if rng.random() < 0.2:
                del holder[key]
            elif isinstance(holder, list) and rng.random() < 0.3:
                holder.insert(key, copy.deepcopy(rng.choice(holder)))
            else:
                holder[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
            break
    return value


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    """Some mutations make HDF5 run without end: these small files need no minute."""
    monkeypatch.setattr(child, "SECONDS", 4.0)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Sound files to start from."""
    folder = tmp_path_factory.mktemp("fuzz")
    two = write_keras2(folder / "small.h5")
    return {"two": two, "three": Legacy(str(two))(str(folder / "small.keras"))}


def test_the_files_to_start_from_are_sound(bases):
    assert all(attempt(path) for path in bases.values())


def test_mutated_hdf5_files_fail_by_name_or_run(bases, tmp_path, request):
    data = [bases["two"].read_bytes()]
    # Where the real control file is not at hand, the small one does.
    with contextlib.suppress(pytest.skip.Exception):
        data.append((request.getfixturevalue("legacy_models") / "hostile" / "ok_control.h5").read_bytes())
    rng = random.Random(1)
    path = tmp_path / "mutated.h5"
    outcomes = set()
    for number in range(COUNT // 4):
        path.write_bytes(mutated_bytes(data[number % len(data)], rng))
        outcomes.add(attempt(path))
    assert outcomes == {True, False}, "some mutations only touch weights, others are found"


def test_mutated_archives_fail_by_name_or_run(bases, tmp_path):
    rng = random.Random(2)
    data = bases["three"].read_bytes()
    path = tmp_path / "mutated.keras"
    for _ in range(COUNT * 3 // 20):
        path.write_bytes(mutated_bytes(data, rng))
        attempt(path)


def test_mutated_graphs_of_keras_2_fail_by_name_or_run(tmp_path):
    rng = random.Random(3)
    path = tmp_path / "mutated.h5"
    for _ in range(COUNT * 3 // 20):
        write_keras2(path, mutated_json(model_config(), rng))
        attempt(path)


def test_mutated_graphs_of_keras_3_fail_by_name_or_run(bases, tmp_path):
    rng = random.Random(4)
    path = tmp_path / "mutated.keras"
    with zipfile.ZipFile(bases["three"]) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    for _ in range(COUNT * 3 // 20):
        with zipfile.ZipFile(path, "w") as archive:
            for name, member in content.items():
                archive.writestr(name, json.dumps(mutated_json(config, rng)) if name == "config.json" else member)
        attempt(path)


def test_mutated_optimizer_programs_fail_by_name_or_end():
    rng = random.Random(5)
    program = pickled(b"}q\x00(", text("state"), b"}(K\x00", tensor([2, 3], [3, 1], 6), b"uK\x01", text("x"), b"u")
    assert Walker(program, "test").walk()["state"]
    for _ in range(COUNT * 3 // 10):
        data = mutated_bytes(program, rng)
        try:
            Walker(data, "test").walk()
        except FsdeployError as error:
            assert "\n" not in str(error)
