"""Our logs in TensorBoard's own reader, TensorBoard's logs in ours, files that grow and files that are torn."""

from __future__ import annotations

import itertools
import struct

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event

from fsdeploy.errors import InputError
from fsdeploy.training.tensorboard import RecordIterator, TorchTensorBoard


def log_file(folder):
    (file,) = folder.rglob("events.out.tfevents.*")
    return file


def accumulated(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return accumulator.Reload()


def test_tensorboards_reader_reads_our_scalars(tmp_path):
    board = TorchTensorBoard(tmp_path / "session_1")
    board.on_train_begin()
    for step in (101, 102, 103):
        board.on_train_batch_end(step, {"total": step / 4, "weighted_A": {"ssim": 0.5, "logcosh": step}, "face_A": 1})
    board.add_scalars(103, {"learning_rate": 5e-5, "iterations_per_second": 12.5})
    board.on_save()
    events = accumulated(tmp_path / "session_1" / "train")
    assert set(events.Tags()["scalars"]) == {
        "batch_total", "batch_weighted_A/ssim", "batch_weighted_A/logcosh", "batch_face_A",
        "learning_rate", "iterations_per_second",
    }  # fmt: skip
    totals = events.Scalars("batch_total")
    assert [(item.step, item.value) for item in totals] == [(101, 25.25), (102, 25.5), (103, 25.75)]
    assert events.Scalars("learning_rate")[0].value == pytest.approx(5e-5)
    board.on_train_end()


def test_tensorboards_reader_reads_our_pictures_and_the_model(tmp_path):
    board = TorchTensorBoard(tmp_path)
    image = np.dstack([*np.meshgrid(np.arange(30) * 8, np.arange(20) * 9), np.full((20, 30), 40)]).astype(np.uint8)
    board.set_model(torch.nn.Sequential(torch.nn.Linear(3, 4)))
    board.add_image(7, "preview", image)
    board.on_train_end()
    events = accumulated(tmp_path / "train")
    (picture,) = events.Images("preview")
    assert (picture.step, picture.width, picture.height) == (7, 30, 20)
    decoded = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert picture.encoded_image_string.startswith(b"\xff\xd8"), "a JPEG"
    assert np.abs(decoded.astype(int) - image).mean() < 4
    (text,) = events.Tensors("model/text_summary")
    assert b"Linear(in_features=3, out_features=4" in text.tensor_proto.string_val[0]


def test_a_log_holds_few_of_the_pictures_of_a_long_session_and_late_ones_too(tmp_path):
    board = TorchTensorBoard(tmp_path)
    image = np.zeros((8, 8, 3), np.uint8)
    start, every, end = 200_000, 100, 1_200_000
    for step in (start + 1, *range(start + every, end + 1, every)):  # as saves come in a run that was resumed
        board.add_image(step, "preview", image)
        board.add_image(step, "preview", image)  # somebody asks for another sheet
    board.add_image(end, "other", image)
    board.on_train_end()
    events = accumulated(tmp_path / "train")
    steps = [item.step - start for item in events.Images("preview")]
    assert steps[:5] == [1, 100, 200, 300, 400]
    assert all(1.1 * a <= b <= 1.1 * a + every for a, b in itertools.pairwise(steps) if a > 1000)
    assert len(steps) == len(set(steps)) <= 130
    assert steps[-1] >= (end - start) / 1.1 - every
    assert [item.step for item in events.Images("other")] == [end]


def test_a_long_log_goes_on_in_new_files_and_finished_ones_do_not_change(tmp_path, monkeypatch):
    monkeypatch.setattr("fsdeploy.training.tensorboard._FILE_BYTES", 2000)
    board = TorchTensorBoard(tmp_path)
    seen = {}
    for step in range(200):
        board.on_train_batch_end(step, {"total": step / 2})
        if step % 20 == 19:
            board.on_save()
            logs = sorted((tmp_path / "train").iterdir(), key=lambda path: int(path.name.rpartition(".")[2]))
            for path, content in seen.items():
                assert path.read_bytes() == content
            seen = {path: path.read_bytes() for path in logs[:-1]}
    board.on_train_end()
    assert len(seen) >= 3
    values = [
        (event.step, value.simple_value)
        for path in logs
        for event in map(Event.FromString, RecordIterator(path))
        for value in event.summary.value
    ]
    assert values == [(step, step / 2) for step in range(200)]
    theirs = accumulated(tmp_path / "train").Scalars("batch_total")
    assert sorted((item.step, item.value) for item in theirs) == values


def test_update_freq_thins_the_log(tmp_path):
    board = TorchTensorBoard(tmp_path, update_freq=10)
    for step in range(1, 31):
        board.on_train_batch_end(step, {"total": 1.0})
    board.on_train_end()
    assert [item.step for item in accumulated(tmp_path / "train").Scalars("batch_total")] == [10, 20, 30]
    with pytest.raises(ValueError, match="update_freq"):
        TorchTensorBoard(tmp_path, update_freq=0)


def test_what_is_no_figure_is_refused(tmp_path):
    with pytest.raises(TypeError, match="'total'"):
        TorchTensorBoard(tmp_path).on_train_batch_end(1, {"total": "high"})


def test_a_session_that_logs_nothing_leaves_nothing_and_saves_without_complaint(tmp_path):
    board = TorchTensorBoard(tmp_path / "logs")
    board.on_train_begin()
    board.on_save()
    board.on_train_end()
    board.on_train_end()
    assert not (tmp_path / "logs").exists()


def test_a_log_that_cannot_be_written_ends_with_a_warning_and_not_with_the_training(tmp_path, caplog):
    (tmp_path / "logs").write_text("a file where the folder should be")
    board = TorchTensorBoard(tmp_path / "logs")
    for step in range(3):
        board.on_train_batch_end(step, {"total": 1.0})
    board.on_save()
    board.on_train_end()
    assert sum("training goes on" in record.message for record in caplog.records) == 1


def tensorboard_log(folder, steps):
    """A log by torch's own writer."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step in range(steps):
            writer.add_scalar("loss", step / 2, step)
    return log_file(folder)


def test_our_iterator_reads_the_logs_of_torchs_writer(tmp_path):
    events = [Event.FromString(record) for record in RecordIterator(tensorboard_log(tmp_path, 50))]
    assert events[0].file_version.startswith("brain.Event")
    values = [(event.step, value.simple_value) for event in events for value in event.summary.value]
    assert values == [(step, step / 2) for step in range(50)]


def test_our_iterator_and_tensorboards_reader_agree_on_our_log(tmp_path):
    board = TorchTensorBoard(tmp_path)
    for step in range(20):
        board.on_train_batch_end(step, {"total": step * 1.5})
    board.on_train_end()
    ours = [
        (event.step, value.simple_value)
        for event in map(Event.FromString, RecordIterator(log_file(tmp_path)))
        for value in event.summary.value
    ]
    theirs = [(item.step, item.value) for item in accumulated(tmp_path / "train").Scalars("batch_total")]
    assert ours == theirs == [(step, step * 1.5) for step in range(20)]


def test_a_live_file_is_followed_while_it_grows(tmp_path):
    board = TorchTensorBoard(tmp_path)
    board.on_train_batch_end(1, {"total": 1.0})
    board.on_save()
    live = RecordIterator(log_file(tmp_path), is_live=True)
    assert Event.FromString(list(live)[-1]).step == 1
    assert list(live) == []
    for step in (2, 3):
        board.on_train_batch_end(step, {"total": 1.0})
    board.on_save()
    assert [Event.FromString(record).step for record in live] == [2, 3]
    board.on_train_end()
    assert list(live) == []


def test_a_torn_record_ends_the_iteration_and_is_read_when_it_is_whole(tmp_path):
    data = tensorboard_log(tmp_path / "whole", 10).read_bytes()
    whole = list(RecordIterator(log_file(tmp_path / "whole")))
    torn = tmp_path / "torn"
    for cut in range(len(data) - 60, len(data)):
        torn.write_bytes(data[:cut])
        live = RecordIterator(torn, is_live=True)
        first = list(live)
        assert first == whole[: len(first)]
        assert len(first) < len(whole)
        torn.write_bytes(data)
        assert first + list(live) == whole


def test_a_closed_log_is_consumed_once(tmp_path):
    records = RecordIterator(tensorboard_log(tmp_path, 3))
    assert len(list(records)) == 4
    with pytest.raises(StopIteration):
        next(records)


@pytest.mark.parametrize("length", [1 << 31, 1 << 62, (1 << 64) - 1, 1000])
def test_a_length_that_is_not_there_takes_no_memory(tmp_path, length):
    path = tmp_path / "odd"
    path.write_bytes(struct.pack("<Q", length) + b"crc!" + b"x" * 100)
    assert list(RecordIterator(path)) == []


def test_a_missing_log_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="gone"):
        next(RecordIterator(tmp_path / "gone"))
