"""The walk over the program in a `torch.save` archive: only plain arrays come out, and it ends soon."""

from __future__ import annotations

import sys
import zipfile
from typing import Any

import numpy as np
import pytest
from torch_programs import number, pickled, tensor, text, torch_file

from fsdeploy.errors import CorruptModelError, HostileFileError
from fsdeploy_converters.torch_archive import TensorRef, TorchArchive, Walker
from fsdeploy_converters.window import Window


@pytest.mark.parametrize(
    "program",
    [
        pickled(b"cos\nsystem\n", text("true"), b"\x85R"),
        pickled(b"cbuiltins\neval\n", text("1"), b"\x85R"),
        pickled(b"ctorch\nload\n", b")R"),
        pickled(b"\x8c\x02os", b"\x8c\x06system", b"\x93"),
        pickled(b"}", b"b"),
        pickled(b"ccollections\nOrderedDict\n", b")\x81"),
    ],
)
def test_a_program_that_names_or_does_anything_else_is_refused(program):
    with pytest.raises(HostileFileError):
        Walker(program, "test").walk()


@pytest.mark.parametrize(
    ("shape", "stride", "count"),
    [([1000000, 1000000], [0, 0], 1), ([2, 2], [2, 1], 5), ([2, 2], [1, 2], 4), ([0], [1], 0), ([-1], [1], 1)],
)
def test_a_tensor_that_is_no_plain_array_is_refused(shape, stride, count):
    with pytest.raises(HostileFileError):
        Walker(pickled(tensor(shape, stride, count)), "test").walk()


def test_a_plain_tensor_is_read(tmp_path):
    values = np.arange(6, dtype="<f4")
    path = tmp_path / "plain.pt"
    path.write_bytes(torch_file(pickled(tensor([2, 3], [3, 1], 6)), {"0": values.tobytes()}))
    archive = TorchArchive(Window.whole(path), "plain.pt")
    assert archive.content == TensorRef("0", (2, 3))
    np.testing.assert_array_equal(archive.read(archive.content), values.reshape(2, 3))


def test_packed_records_inside_an_optimizer_are_refused(tmp_path):
    path = tmp_path / "packed.pt"
    data = torch_file(pickled(tensor([1 << 20], [1], 1 << 20)), {"0": b"\0" * (4 << 20)}, zipfile.ZIP_DEFLATED)
    path.write_bytes(data)
    with pytest.raises(HostileFileError):
        TorchArchive(Window.whole(path), "packed.pt")


def steps_of(program: bytes) -> int:
    """Instructions of Python that a walk takes."""
    count = 0

    def counted(frame: Any, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return counted

    before = sys.gettrace()
    sys.settrace(counted)
    try:
        Walker(program, "test").walk()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("opened", [b"(t", b"](K\x01e", b"}(K\x01K\x02u"])
def test_the_walk_takes_time_in_proportion_to_the_program(opened):
    """What stands below a mark is not looked through each time a list, dict or tuple is closed."""
    short, long = (pickled(b"(", opened * count, b"t") for count in (200, 400))
    assert steps_of(short) > 400
    assert steps_of(long) < 2.2 * steps_of(short)


@pytest.mark.parametrize("parts", [[b"K\x01("], [b"(K\x01"], [b"K\x01t"], [b"]K\x01e"], [b"}(", number(1), b"s"]])
def test_marks_that_do_not_pair_are_damage(parts):
    with pytest.raises(CorruptModelError, match="does not fit together"):
        Walker(pickled(*parts), "test").walk()
