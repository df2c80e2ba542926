"""Members of a zip archive come out whole, however zlib cuts its output, or not at all."""

from __future__ import annotations

import os
import zipfile
import zlib

import pytest

from fsdeploy.errors import CorruptModelError
from fsdeploy_converters.archive import Archive
from fsdeploy_converters.window import Window

MEBIBYTE = 1 << 20


def archive_of(path, data: bytes, level: int = 6) -> Archive:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.writestr("member", data)
    return Archive(Window.whole(path), path.name)


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("beyond", [-1, 0, 1, 10, 64, 128, 257, 258, 259, 1000, MEBIBYTE, MEBIBYTE + 64])
def test_the_last_bytes_of_a_packed_member_are_not_lost(beyond, level, tmp_path):
    data = bytes(MEBIBYTE + beyond)
    archive = archive_of(tmp_path / "a.zip", data, level)
    assert archive.read("member", len(data)) == data
    with archive.window_of("member", len(data)) as window:
        assert window.path.read_bytes() == data
    assert max(map(len, archive.chunks("member"))) <= MEBIBYTE


def test_a_member_that_does_not_shrink_comes_out_whole(tmp_path):
    data = os.urandom(2 * MEBIBYTE + 77)
    assert archive_of(tmp_path / "a.zip", data).read("member", len(data)) == data


@pytest.mark.parametrize("change", ["no end", "more behind the end"])
def test_packed_bytes_that_do_not_end_where_they_should_are_damage(change, tmp_path):
    """A stream without its end mark, or with something behind it, although content and checksum are right."""
    path, content = tmp_path / "a.zip", b"weights" * 100
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush(zlib.Z_SYNC_FLUSH if change == "no end" else zlib.Z_FINISH)
    packed += b"" if change == "no end" else b"hidden"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("member", packed)  # stored, then declared to be packed
    data = bytearray(path.read_bytes())
    for signature, method, crc in ((b"PK\x03\x04", 8, 14), (b"PK\x01\x02", 10, 16)):
        place = data.find(signature)
        data[place + method : place + method + 2] = (8).to_bytes(2, "little")
        data[place + crc : place + crc + 4] = zlib.crc32(content).to_bytes(4, "little")
        data[place + crc + 8 : place + crc + 12] = len(content).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(CorruptModelError, match="cannot be unpacked"):
        Archive(Window.whole(path), path.name).read("member", len(content))
