"""Programs of `data.pkl` and archives of `torch.save`, written by hand."""

from __future__ import annotations

import io
import struct
import zipfile


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tensor(shape: list[int], stride: list[int], count: int, key: str = "0") -> bytes:
    """A tensor as torch writes it, with any claim about itself."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    shapes = b"".join(b"(" + b"".join(map(number, axes)) + b"t" for axes in (shape, stride))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + shapes + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def torch_file(program: bytes, records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", b"little")
        for key, data in records.items():
            archive.writestr(f"archive/data/{key}", data)
    return target.getvalue()
