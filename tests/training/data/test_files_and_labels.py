"""The small functions of data.md 3."""

from __future__ import annotations

import numpy as np
import pytest

from fsdeploy.errors import InputError
from fsdeploy.training.data.data_set import get_label, get_sorted_images, to_float32


def test_labels_roll_over_the_identities():
    assert [get_label(i, 3) for i in range(7)] == list("ABCABCA")
    assert [get_label(i, 3, next_identity=True) for i in range(4)] == list("BCAB")


def test_labels_go_on_with_digits_and_small_letters():
    assert get_label(36, 62) == "a"
    assert get_label(35, 36) == "9"
    assert get_label(61, 62) == "z"


@pytest.mark.parametrize("identities", [0, 63])
def test_there_is_no_label_for_more_than_62_identities(identities):
    with pytest.raises(ValueError, match="62"):
        get_label(0, identities)


def test_png_files_are_listed_sorted_and_in_any_case(tmp_path):
    for name in ("b.PNG", "a.png", "c.Png", "d.jpg", "png"):
        (tmp_path / name).touch()
    (tmp_path / "e.png").mkdir()
    assert get_sorted_images(tmp_path) == [str(tmp_path / name) for name in ("a.png", "b.PNG", "c.Png")]


def test_a_missing_folder_is_named():
    with pytest.raises(InputError, match="nowhere"):
        get_sorted_images("nowhere")


def test_bytes_become_floats_by_single_precision_division():
    levels = np.arange(256, dtype=np.uint8)
    expected = np.array([np.float32(v) / np.float32(255) for v in range(256)])
    result = to_float32(levels)
    assert result.dtype == np.float32
    assert (result == expected).all()
