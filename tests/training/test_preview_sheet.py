"""Preview sheets, against numbers worked out by hand from the sheet's definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fsdeploy.errors import ConfigError
from fsdeploy.training.preview import Samples


def make(sides=2, samples=3, output=32, full=32, mask=1.0, channels=3):
    """Targets of identity i are grey (i + 1) / 10; prediction [i, j] is grey 0.5 + (i * N + j) / 50."""
    targets = np.zeros((sides, samples, full, full, 4), np.float32)
    predictions = np.zeros((sides, sides, samples, output, output, channels), np.float32)
    for i in range(sides):
        targets[i, ..., :3] = (i + 1) / 10
        for j in range(sides):
            predictions[i, j, ..., :3] = 0.5 + (i * sides + j) / 50
    targets[..., 3] = mask
    return predictions, targets


def level(value):
    return round(value * 255)


def test_a_sheet_has_a_row_per_sample_and_its_columns_in_order():
    predictions, targets = make()
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)
    header = int(32 / 4.5)
    assert sheet.shape == (header + 3 * 32, 6 * 32, 3)
    assert sheet.dtype == np.uint8
    values = [sheet[header + 5, column * 32 + 5, 0] for column in range(6)]
    # A, A > A, A > B, B, B > B, B > A
    assert values == [level(v) for v in (0.1, 0.5, 0.52, 0.2, 0.54, 0.56)]


def test_rows_show_the_samples_from_top_to_bottom():
    predictions, targets = make(samples=3)
    for sample in range(3):
        targets[0, sample, ..., :3] = sample / 3
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)
    assert [sheet[7 + 32 * row + 3, 3, 1] for row in range(3)] == [0, 85, 170]


def test_a_sheet_that_would_be_taller_than_wide_goes_on_to_the_right():
    # The specification's example: 14 samples of 64 px are 7 rows of 12 columns, 462 x 768 with the header.
    predictions, targets = make(samples=14, output=64, full=64)
    targets[0, 7, ..., :3] = 1.0
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)
    assert sheet.shape == (462, 768, 3)
    assert sheet[14 + 5, 384 + 5].tolist() == [255, 255, 255]
    assert np.array_equal(sheet[:14, :384], sheet[:14, 384:])


def test_an_odd_number_of_rows_splits_without_cutting_a_face():
    predictions, targets = make(samples=9, output=32, full=32)
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)
    assert sheet.shape == (7 + 5 * 32, 12 * 32, 3)
    assert sheet[7 + 4 * 32 :, 6 * 32 :].max() == 0
    assert sheet[7 + 4 * 32 + 1, 1, 0] == level(0.1)


@pytest.mark.parametrize(
    ("sides", "labels"),
    [
        (2, ["A", "A > A", "A > B", "B", "B > B", "B > A"]),
        (3, ["A", "A > A", "A > B", "A > C", "B", "B > B", "B > C", "B > A", "C", "C > C", "C > A", "C > B"]),
    ],
)
def test_columns_are_labelled_for_any_number_of_identities(sides, labels):
    assert Samples.labels(sides) == labels
    predictions, targets = make(sides=sides)
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)
    assert sheet.shape[1] == sides * (sides + 1) * 32


def test_the_header_is_black_text_centred_on_white():
    predictions, targets = make(output=128, full=128)
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)
    height = int(128 / 4.5)
    strip = np.full((height, 128, 3), 255, np.uint8)
    (width, tall), _ = cv2.getTextSize("A > B", cv2.FONT_HERSHEY_SIMPLEX, 128 / 140, 1)
    _, tall = cv2.getTextSize("A", cv2.FONT_HERSHEY_SIMPLEX, 128 / 140, 1)[0]
    at = ((128 - width) // 2, int((height + tall) / 2))
    cv2.putText(strip, "A > B", at, cv2.FONT_HERSHEY_SIMPLEX, 128 / 140, (0, 0, 0), 2, lineType=cv2.LINE_AA)
    assert np.array_equal(sheet[:height, 2 * 128 : 3 * 128], strip)


def test_a_covered_part_is_framed_by_one_pixel_corners_inside_the_full_face():
    # Coverage 0.8: 64 px of an 80 px face, 8 px around it, corner squares of 20 px from one pixel outside.
    predictions, targets = make(output=64, full=80)
    sheet = Samples(0.8, False, 30, "#00ff80").get_preview(predictions, targets)
    patch = sheet[int(80 / 4.5) :][:80, 80:160]  # A > A
    mark, inside, around = [0x80, 0xFF, 0x00], [level(0.5)] * 3, [level(0.1)] * 3
    for row, column, expected in [
        (7, 7, mark), (7, 26, mark), (26, 7, mark), (7, 27, around), (27, 7, around), (6, 6, around),
        (8, 8, inside), (71, 71, inside), (72, 72, mark), (72, 53, mark), (72, 52, around), (53, 72, mark),
        (7, 72, mark), (72, 7, mark), (73, 73, around), (40, 7, around), (40, 40, inside), (79, 79, around),
    ]:  # fmt: skip
        assert patch[row, column].tolist() == expected, (row, column)
    target = sheet[int(80 / 4.5) :][:80, :80]
    assert target[40, 40].tolist() == around
    assert target[7, 7].tolist() == mark


def test_the_overlay_tints_what_lies_outside_the_mask():
    predictions, targets = make(samples=1)
    targets[..., :16, 3] = 0.0
    targets[..., 0, 0, 3] = 0.5
    sheet = Samples(1.0, True, 40, "#ff0000").get_preview(predictions, targets)[7:]
    # outside: 0.1 * 0.6 + colour * 0.4, blue green red
    assert sheet[5, 5].tolist() == [level(0.06), level(0.06), level(0.46)]
    assert sheet[5, 20].tolist() == [level(0.1)] * 3
    # half masked: 0.1 * 0.8 + colour * 0.2
    assert sheet[0, 0].tolist() == [level(0.08), level(0.08), level(0.28)]
    # no learned mask: the predictions carry their target's
    assert sheet[5, 32 + 5].tolist() == pytest.approx([0.3 * 255, 0.3 * 255, 0.7 * 255], abs=0.6)


def test_a_learned_mask_counts_for_the_predictions_and_ends_at_their_edge():
    predictions, targets = make(samples=1, output=64, full=80, channels=4)
    predictions[..., 3] = 1.0
    targets[..., 3] = 0.0
    sheet = Samples(0.8, True, 50, "#ff0000").get_preview(predictions, targets)[int(80 / 4.5) :]
    assert sheet[40, 40].tolist() == [level(0.05), level(0.05), level(0.55)]  # the target: outside its own mask
    assert sheet[40, 80 + 40].tolist() == [level(0.5)] * 3  # the prediction: inside the learned one
    assert sheet[40, 80 + 3].tolist() == [level(0.05), level(0.05), level(0.55)]  # around it


def test_the_overlay_is_toggled_only_in_a_run_with_a_mask():
    predictions, targets = make(samples=1, mask=0.0)
    samples = Samples(1.0, True, 100, "#0000ff")
    assert samples.get_preview(predictions, targets)[10, 5].tolist() == [255, 0, 0]
    samples.toggle_mask_display()
    assert not samples.shows_mask
    assert samples.get_preview(predictions, targets)[10, 5].tolist() == [level(0.1)] * 3
    samples.toggle_mask_display()
    assert samples.shows_mask
    without = Samples(1.0, False, 100, "#0000ff")
    without.toggle_mask_display()
    assert not without.shows_mask
    assert without.get_preview(predictions, targets)[10, 5].tolist() == [level(0.1)] * 3


def test_values_outside_their_range_are_clipped_and_never_wrap():
    predictions, targets = make(samples=1)
    predictions[0, 0, ..., :3] = 1.02
    predictions[0, 1, ..., :3] = -0.02
    predictions[1, 0, ..., :3] = np.nan
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)[7:]
    assert sheet[5, 32 + 5].tolist() == [255] * 3
    assert sheet[5, 64 + 5].tolist() == [0] * 3
    assert sheet[5, 128 + 5].tolist() == [0] * 3


def test_8_bit_faces_come_back_as_they_were():
    predictions, targets = make(samples=1, output=16, full=16)
    face = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    targets[0, 0, ..., :3] = face / np.float32(255)
    sheet = Samples(1.0, False, 30, "#ff0000").get_preview(predictions, targets)
    assert np.array_equal(sheet[3:, :16], face)


def test_the_inputs_are_left_alone():
    predictions, targets = make(output=64, full=80)
    copies = predictions.copy(), targets.copy()
    Samples(0.8, True, 30, "#ff0000").get_preview(predictions, targets)
    assert np.array_equal(predictions, copies[0])
    assert np.array_equal(targets, copies[1])


@pytest.mark.parametrize("color", ["red", "#ff00", "#gg0000", "ff0000", ""])
def test_a_colour_that_is_none_is_refused_by_the_options_name(color):
    with pytest.raises(ConfigError, match="mask_color"):
        Samples(1.0, True, 30, color)
