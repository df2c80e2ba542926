"""TensorBoard logs: written while training, and read back record by record, also while they grow."""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.images import encode_image

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from torch import nn

logger = logging.getLogger(__name__)

Logs = Mapping[str, float | Mapping[str, float]]

_LARGEST_RECORD: Final = 1 << 30
_LENGTH: Final = struct.Struct("<Q")
_CRC_BYTES: Final = 4
_FILE_BYTES: Final = 8 << 20
"""A log goes on in a new file from here on: finished files never change, so snapshots of a model can share them."""
_PICTURE_SPACING: Final = 1.1
"""Growth of a session from one logged picture to the next: a million iterations hold about 130 at most."""
_JPEG_QUALITY: Final = 90


class TorchTensorBoard:
    """Writes losses and figures of a training session for TensorBoard.

    The log lies in `<log_dir>/train`, in files of some 8 MB, and is opened by the first thing written. A log that
    cannot be written (a full disk) is given up with a warning; training goes on.

    Args:
        log_dir: Folder of the session.
        write_graph: Accepted for users of the Keras callback; a graph is never written.
        update_freq: Write every that many batches; "batch" is 1. Training has no epochs, so "epoch" is 1 as well.

    Raises:
        ValueError: `update_freq` is none of these.
    """

    def __init__(
        self,
        log_dir: str | Path = "logs",
        write_graph: bool = True,
        update_freq: Literal["batch", "epoch"] | int = "epoch",
    ) -> None:
        if update_freq not in ("batch", "epoch") and (not isinstance(update_freq, int) or update_freq < 1):
            raise ValueError(f"update_freq is {update_freq!r}: give 'batch', 'epoch' or a number of batches")
        self._folder = Path(log_dir) / "train"
        self._every = update_freq if isinstance(update_freq, int) else 1
        self._writer: EventFileWriter | None = None
        self._failed = False
        self._batches = 0
        self._bytes = 0
        self._pictures: dict[str, tuple[int, int]] = {}

    def set_model(self, model: nn.Module) -> None:
        """Log the model's layers as text, tag `model/text_summary`, step 0."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        layers = "\n".join(f"    {line}" for line in str(model).splitlines())
        text = TensorProto(
            dtype="DT_STRING",
            string_val=[layers.encode("utf-8")],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._write([Summary.Value(tag="model/text_summary", metadata=metadata, tensor=text)], 0)

    def on_train_begin(self, logs: object = None) -> None:
        """Start counting batches; `logs` is unused."""
        self._batches = 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Log the figures of one iteration, as scalars `batch_<name>` and `batch_<name>/<part>`.

        Args:
            batch: The model's total iterations.
            logs: Name -> figure, or name -> part -> figure.

        Raises:
            TypeError: a value is neither.
        """
        self._batches += 1
        if not logs or self._batches % self._every:
            return
        flat: dict[str, float] = {}
        for name, value in logs.items():
            if isinstance(value, Mapping):
                flat.update({f"batch_{name}/{part}": float(figure) for part, figure in value.items()})
            elif isinstance(value, int | float | np.number):
                flat[f"batch_{name}"] = float(value)
            else:
                raise TypeError(f"'{name}' is a {type(value).__name__}: log numbers, or tables of numbers")
        self.add_scalars(batch, flat)

    def add_scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures under their own tags (learning rate, gradient norm, iterations per second)."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write([Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()], step)

    def add_image(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """Log a picture (H, W, 3) uint8 BGR, such as a preview sheet, as JPEG.

        A picture that comes before the session has grown by a tenth since the last one of its tag is left out: a sheet
        per save would fill disks, and TensorBoard shows a few of them anyway.

        Args:
            step: The model's total iterations.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        before, last = self._pictures.get(tag, (step - 1, step - 1))
        if step - before < max(_PICTURE_SPACING * (last - before), last - before + 1):
            return
        self._pictures[tag] = (before, step)
        height, width = image.shape[:2]
        data = encode_image(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._write([Summary.Value(tag=tag, image=picture)], step)

    def on_save(self) -> None:
        """Bring what was logged to disk."""
        self._guarded(lambda writer: writer.flush())

    def on_train_end(self, logs: object = None) -> None:
        """Bring what was logged to disk and close the file; `logs` is unused. Logging again opens a new one."""
        self._guarded(lambda writer: (writer.flush(), writer.close()))
        self._writer = None
        self._bytes = 0

    def _write(self, values: list[Any], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._writer is None and not self._failed:
            self._open()
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._guarded(lambda writer: writer.add_event(event))
        self._bytes += event.ByteSize()
        if self._bytes >= _FILE_BYTES:
            self.on_train_end()

    def _open(self) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventFileWriter(str(self._folder))
        except OSError as error:
            self._give_up(error)

    def _guarded(self, action: Any) -> None:
        """Do something with the open writer. Its thread reports a full disk here, at some later call."""
        if self._writer is None:
            return
        try:
            action(self._writer)
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        self._writer = None
        logger.warning("no more TensorBoard logs in %s: %s; training goes on without", self._folder, error)


class RecordIterator(Iterator[bytes]):
    """Reads the records of an event file, one serialised TensorBoard event each.

    A record that is not whole yet ends the iteration in front of it. A live file can then be asked again: the next
    call goes on where the last one stopped, with whatever has been written since. The file is open only during a call
    that reaches its end, so that the writer may replace or remove it.

    Args:
        log_file: The event file.
        is_live: A session is still writing to it.

    Raises:
        InputError: at the first record: the file cannot be read.
    """

    def __init__(self, log_file: str | Path, is_live: bool = False) -> None:
        self._path = Path(log_file)
        self._is_live = is_live
        self._position = 0
        self._stream: Any = None
        self._done = False

    def __iter__(self) -> RecordIterator:
        return self

    def __next__(self) -> bytes:
        """The next event.

        Raises:
            StopIteration: the file is consumed, as far as it is written.
            InputError: it cannot be read.
        """
        if self._done:
            raise StopIteration
        try:
            if self._stream is None:
                self._stream = self._path.open("rb")
                self._stream.seek(self._position)
            record = self._read()
        except OSError as error:
            self.close()
            raise InputError(f"cannot read {self._path}: {error.strerror or error}") from error
        if record is None:
            self.close()
            self._done = not self._is_live
            raise StopIteration
        return record

    def _read(self) -> bytes | None:
        """One whole record from the current position, or None; the position moves only past a whole one."""
        head = self._stream.read(_LENGTH.size + _CRC_BYTES)
        if len(head) < _LENGTH.size + _CRC_BYTES:
            return None
        (length,) = _LENGTH.unpack(head[: _LENGTH.size])
        end = self._position + len(head) + length + _CRC_BYTES
        # A torn length must not make us ask for gigabytes that are not there.
        if length > _LARGEST_RECORD or end > os.fstat(self._stream.fileno()).st_size:
            return None
        record: bytes = self._stream.read(length)
        if len(record) < length or len(self._stream.read(_CRC_BYTES)) < _CRC_BYTES:
            return None
        self._position = end
        return record

    def close(self) -> None:
        """Close the file; a live iterator opens it again when asked for more."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
