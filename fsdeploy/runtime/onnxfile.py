"""Look into an ONNX file without loading it: is it whole, and does everything it needs lie inside it?

A small reader of the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) that walks the messages
of onnx.proto and skips the weights. It needs neither the onnx package nor memory for the tensors.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from fsdeploy.errors import HostileFileError, InputError

_MODEL_GRAPH, _MODEL_FUNCTIONS, _MODEL_IR, _MODEL_OPSET, _MODEL_METADATA = 7, 25, 1, 8, 14
_MAX_DEPTH = 32


@dataclass(frozen=True)
class OnnxFile:
    """What the outermost messages of an ONNX file say."""

    ir_version: int
    opsets: dict[str, int]
    """Operator domain ("" is the standard one) -> version."""
    metadata: dict[str, str]
    external: tuple[str, ...] = field(default=())
    """Side files that hold weights; empty for a file that stands alone."""


class _TruncatedError(Exception):
    pass


def scan(path: Path) -> OnnxFile:
    """Read the outline of an ONNX file.

    Raises:
        InputError: missing, empty, truncated, or not an ONNX file.
        HostileFileError: keeps weights in a file outside its own folder.
    """
    if path.is_dir():
        model = any(path.glob("*_state.json"))
        remedy = f"run 'fsdeploy export {path}' and give the file that it writes" if model else "give the .onnx file"
        raise InputError(f"{path} is a {'model ' if model else ''}folder: {remedy}")
    try:
        with path.open("rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # closed with its last view
        outline = _model(memoryview(data))
    except (_TruncatedError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a whole ONNX file: {_what_else(path)}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is empty"
        raise InputError(f"cannot read {path}: {reason}") from error
    for location in outline.external:
        _check_location(path, location)
    return outline


def _what_else(path: Path) -> str:
    """What a file may be that is no ONNX file, and what to do with it."""
    with path.open("rb") as stream:
        head = stream.read(8)
    if head == b"\x89HDF\r\n\x1a\n" or (head.startswith(b"PK\x03\x04") and path.suffix.lower() == ".keras"):
        return f"it is a legacy model, run 'fsdeploy migrate {path} --export'"
    if path.suffix.lower() == ".safetensors":
        return f"it holds the weights of a model folder, run 'fsdeploy export {path.parent}'"
    return "it is truncated or of another format"


def _check_location(path: Path, location: str) -> None:
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    outside = posix.is_absolute() or windows.is_absolute() or bool(windows.drive)
    if outside or ".." in posix.parts or ".." in windows.parts:
        raise HostileFileError(f"{path} wants to read weights from '{location}', outside its own folder: refused")


def _model(data: memoryview) -> OnnxFile:
    version, graphs = 0, 0
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    external: set[str] = set()
    for number, value in _fields(data):
        if number == _MODEL_IR and isinstance(value, int):
            version = value
        elif not isinstance(value, memoryview):
            continue
        elif number == _MODEL_OPSET:
            parts = dict(_fields(value))
            number_of_set = parts.get(2, 0)
            if not isinstance(number_of_set, int):
                raise _TruncatedError
            opsets[_text(parts.get(1, b""))] = number_of_set
        elif number == _MODEL_METADATA:
            parts = dict(_fields(value))
            metadata[_text(parts.get(1, b""))] = _text(parts.get(2, b""))
        elif number == _MODEL_GRAPH:
            graphs += 1
            external |= set(_graph_locations(value, 0))
        elif number == _MODEL_FUNCTIONS:
            external |= {name for n, v in _fields(value) if n == 7 for name in _node_locations(v, 0)}
    if not graphs or not version:
        raise _TruncatedError
    return OnnxFile(version, opsets, metadata, tuple(sorted(external)))


def _graph_locations(graph: memoryview, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _TruncatedError
    for number, value in _fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            yield from _node_locations(value, depth)
        elif number == 5:
            yield from _tensor_locations(value)
        elif number == 15:  # SparseTensorProto: values 1, indices 2
            for part, tensor in _fields(value):
                if part in (1, 2) and isinstance(tensor, memoryview):
                    yield from _tensor_locations(tensor)


def _node_locations(node: object, depth: int) -> Iterator[str]:
    for number, attribute in _fields(node):
        if number != 5 or not isinstance(attribute, memoryview):
            continue
        for part, value in _fields(attribute):
            if not isinstance(value, memoryview):
                continue
            if part in (5, 10):
                yield from _tensor_locations(value)
            elif part in (6, 11):
                yield from _graph_locations(value, depth + 1)


def _tensor_locations(tensor: memoryview) -> Iterator[str]:
    entries, external = [], False
    for number, value in _fields(tensor):
        if number == 13:
            entries.append(dict(_fields(value)))
        elif number == 14:
            external = value == 1
    if external:
        for entry in entries:
            if _text(entry.get(1, b"")) == "location":
                yield _text(entry.get(2, b""))


def _text(value: object) -> str:
    return bytes(value).decode("utf-8") if isinstance(value, (bytes, memoryview)) else ""


def _fields(data: object) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value (a number, or the bytes of a string or message) of one protobuf message."""
    if not isinstance(data, memoryview):
        raise _TruncatedError
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            whole, position = _varint(data, position)
            yield number, whole
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _TruncatedError
        if number == 0 or position + length > end:
            raise _TruncatedError
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise _TruncatedError
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _TruncatedError


def without_weights(path: Path, limit: int = 4096) -> bytes:
    """The model as it stands in the file, with every large initialiser turned into a typed input after the real ones.

    The result keeps all nodes, borders and small constants, so a checker can judge them without memory for the weights.

    Args:
        limit: initialisers of more bytes than this are turned into inputs.
    """
    with path.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    model = bytearray()
    for key, value in _fields(memoryview(data)):
        if key == _MODEL_GRAPH and isinstance(value, memoryview):
            model += _message(_MODEL_GRAPH, _graph_without_weights(value, limit))
        else:
            model += _message(key, value)
    return bytes(model)


def _graph_without_weights(graph: memoryview, limit: int) -> bytes:
    kept, inputs = bytearray(), bytearray()
    for key, value in _fields(graph):
        if key == 5 and isinstance(value, memoryview) and len(value) > limit:
            tensor = list(_fields(value))
            dims = b"".join(_message(1, _message(1, edge)) for n, edge in tensor if n == 1)
            kind = next(v for n, v in tensor if n == 2)
            name = next(v for n, v in tensor if n == 8)
            shape = _message(1, _message(1, kind) + _message(2, dims))  # TypeProto.tensor_type
            inputs += _message(11, _message(1, name) + _message(2, shape))  # ValueInfoProto
        else:
            kept += _message(key, value)
    return bytes(kept + inputs)


def _message(number: int, value: int | bytes | bytearray | memoryview) -> bytes:
    """One protobuf field: a number, or bytes with their length."""
    if isinstance(value, int):
        return _encode(number << 3) + _encode(value)
    return _encode(number << 3 | 2) + _encode(len(value)) + bytes(value)


def _encode(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
