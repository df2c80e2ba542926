"""Mutated PNGs, headers and alignments: only the named errors may come out."""

from __future__ import annotations

import contextlib
import pickle
import random
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdeploy.errors import InputError
from fsdeploy.faces import png
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.alignments import read_alignments

FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip

TOKENS = [
    "'", '"', "\\", "{", "}", "[", "]", "(", ")", ",", ":", "b'", "np.int32(", "nan", "inf", "-", "None", "1e999", "0x",
    "9" * 5000, "\0", "\ue000fsdeploy-bytes:7", "\\ud800", "[" * 300, "'mask'", "lambda", "é", "#", "\n", "True", "_",
]  # fmt: skip
VALUES = [
    None, True, -1, 0, 10**9, 10**40, -1e300, 0.5, "", "x" * 9999, "face", b"", b"\xff" * 99, [], [[]], {}, [1, 2],
    [[0.0, 0.0]] * 68, [[1e38, -1e38]] * 68, [[1, 2, 3]] * 3, {"mask": 5}, {"a": {"b": [{}]}}, "../../etc", "\x00",
]  # fmt: skip


def mutated(data, seed, count):
    """Bytes with some of them flipped, removed, doubled or replaced by hostile numbers."""
    rng = random.Random(seed)
    data = bytearray(data)
    for _ in range(count):
        at = rng.randrange(len(data) + 1)
        choice = rng.randrange(5)
        if choice == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif choice == 1:
            del data[at : at + rng.choice([1, 2, 4, 40])]
        elif choice == 2:
            data[at:at] = rng.choice([b"\xff\xff\xff\xff", b"\0" * 4, b"\x7f\xff\xff\xff", rng.randbytes(8)])
        elif choice == 3:
            data[at:at] = data[max(0, at - 30) : at]
        elif at < len(data):
            data[at] = rng.randrange(256)
    return bytes(data)


def every_place(value, path=()):
    """Paths to all values inside nested dicts and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in items:
        yield from every_place(entry, (*path, key))


def replaced(value, path, new, remove):
    """A copy with one place changed or removed."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if remove and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = replaced(value[path[0]], path[1:], new, remove)
    return copy


def use(header):
    """What a data set does with a header that was accepted; it too may only raise the named errors."""
    face = AlignedFace.from_landmarks(header.face.landmarks)
    face.aligned_landmarks(64, "face", 0.875, 0.1)
    for mask in header.face.masks.values():
        mask.decompress()


@FUZZ
@given(seed=st.integers(0, 2**32), count=st.integers(1, 20))
def test_mutated_png_files_give_named_errors(tmp_path, make_png, face_chunk, header_dict, seed, count):
    pixels = [np.random.default_rng(row).integers(0, 256, 24, np.uint8).tobytes() for row in range(8)]
    path = tmp_path / "face.png"
    path.write_bytes(mutated(make_png(face_chunk(str(header_dict)), pixels=pixels), seed, count))
    with contextlib.suppress(InputError):
        image, header = png.read_face(path)
        assert image.shape == (8, 8, 3)
        use(header)


@FUZZ
@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
def test_mutated_header_text_gives_named_errors(make_png, face_chunk, header_dict, seed, count):
    rng = random.Random(seed)
    text = str(header_dict)
    for _ in range(count):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(TOKENS) + text[at + rng.choice([0, 0, 1, 3, 60]) :]
    with contextlib.suppress(InputError):
        header = png.read_header(make_png(face_chunk(text.encode("utf-8", "replace").decode())))
        use(header)
        png.header_chunk(header)


@FUZZ
@given(seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_headers_with_wrong_values_give_named_errors(make_png, face_chunk, header_dict, seed, count):
    rng = random.Random(seed)
    value = header_dict
    for _ in range(count):
        places = [place for place in every_place(value) if place]
        value = replaced(
            value, rng.choice(places[:40] if rng.random() < 0.5 else places), rng.choice(VALUES), rng.random() < 0.2
        )
    with contextlib.suppress(InputError):
        header = png.read_header(make_png(face_chunk(str(value))))
        use(header)
        png.header_chunk(header)


def alignments_bytes(face, protocol, arrays):
    face = dict(face, thumb=None)
    if arrays:
        face["landmarks_xy"] = np.array(face["landmarks_xy"], np.float32)
        face["x"] = np.int32(face["x"])
    frames = {"f_000001.mp4": {"faces": [face], "video_meta": {"pts_time": 1, "keyframe": True}}, "g": {"faces": []}}
    return pickle.dumps({"__meta__": {"version": 2.4}, "__data__": frames}, protocol)


@FUZZ
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), protocol=st.integers(0, 5), arrays=st.booleans())
def test_mutated_alignments_give_named_errors(tmp_path, header_dict, seed, count, protocol, arrays):
    path = tmp_path / "a.fsa"
    path.write_bytes(
        zlib.compress(mutated(alignments_bytes(header_dict["alignments"], protocol, arrays), seed, count), 1)
    )
    with contextlib.suppress(InputError):
        for faces in read_alignments(path).frames.values():
            for face in faces:
                AlignedFace.from_landmarks(face.landmarks)


@FUZZ
@given(data=st.binary(max_size=400))
def test_random_bytes_give_named_errors(tmp_path, data):
    path = tmp_path / "a.fsa"
    for content in (data, zlib.compress(data)):
        path.write_bytes(content)
        with contextlib.suppress(InputError):
            read_alignments(path)
    for content in (data, png.SIGNATURE + data):
        with pytest.raises(InputError):
            png.read_header(content)
