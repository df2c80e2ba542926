"""The crop cache: what it keeps, and when it must not be believed."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from fsdeploy.config.training import FaceOptions, LossOptions, MaskOptions, TrainingOptions
from fsdeploy.errors import InputError
from fsdeploy.training.data.cache import CropCache, crop_digest
from fsdeploy.training.data.crop import CropSpec
from fsdeploy.training.data.scan import scan_folder


def digests(count):
    return [crop_digest("face", i) for i in range(count)]


def rows(count, width=64):
    return np.random.default_rng(0).integers(0, 256, (count, width), dtype=np.uint8)


def filled(path=None, count=4, budget=1 << 20):
    cache = CropCache(digests(count), 64, budget, path)
    for i, row in enumerate(rows(count)):
        cache.put(i, row)
    return cache


def test_a_row_comes_back_as_it_was_put():
    cache = filled()
    for i, row in enumerate(rows(4)):
        np.testing.assert_array_equal(cache.get(i), row)
    assert (cache.kept, cache.filled) == (4, 4)


def test_a_row_that_was_not_put_is_not_there():
    assert CropCache(digests(3), 64, 1 << 20).get(1) is None


def test_a_budget_keeps_as_many_rows_as_fit():
    cache = filled(count=10, budget=64 * 6 + 63)
    assert cache.kept == 6
    assert [cache.get(i) is not None for i in range(10)] == [True] * 6 + [False] * 4


def test_a_file_outlives_the_run(tmp_path):
    filled(tmp_path / "crops").close()
    again = CropCache(digests(4), 64, 1 << 20, tmp_path / "crops")
    for i, row in enumerate(rows(4)):
        np.testing.assert_array_equal(again.get(i), row)


def test_a_row_is_found_by_what_it_depends_on_not_by_its_place(tmp_path):
    filled(tmp_path / "crops").close()
    changed = [digests(4)[3], crop_digest("new"), digests(4)[0], digests(4)[1]]
    again = CropCache(changed, 64, 1 << 20, tmp_path / "crops")
    expected = rows(4)
    np.testing.assert_array_equal(again.get(0), expected[3])
    assert again.get(1) is None
    np.testing.assert_array_equal(again.get(2), expected[0])
    again.put(1, expected[2])
    np.testing.assert_array_equal(again.get(1), expected[2])
    np.testing.assert_array_equal(again.get(3), expected[1])


def test_a_row_that_a_crash_left_half_written_is_not_believed(tmp_path):
    filled(tmp_path / "crops").close()
    data = bytearray((tmp_path / "crops").read_bytes())
    data[-1] ^= 255  # the last byte of the last row
    (tmp_path / "crops").write_bytes(data)
    again = CropCache(digests(4), 64, 1 << 20, tmp_path / "crops")
    assert again.get(3) is None
    assert again.get(2) is not None


@pytest.mark.parametrize("content", [b"", b"something else entirely", b"fsdeploy crops 1" + bytes(64)])
def test_a_file_of_another_kind_or_size_is_made_anew(tmp_path, content):
    (tmp_path / "crops").write_bytes(content)
    cache = filled(tmp_path / "crops")
    np.testing.assert_array_equal(cache.get(2), rows(4)[2])


def test_a_file_in_use_by_another_run_is_left_alone(tmp_path, caplog):
    first = filled(tmp_path / "crops")
    second = CropCache(digests(4), 64, 1 << 20, tmp_path / "crops")
    assert "in use" in caplog.text
    second.put(0, rows(4)[1])
    np.testing.assert_array_equal(first.get(0), rows(4)[0])
    first.close()


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cache_folder"):
        CropCache(digests(1), 64, 1 << 20, tmp_path / "file" / "crops")


OTHER_OPTIONS = [
    TrainingOptions(face=FaceOptions(centering="head")),
    TrainingOptions(face=FaceOptions(coverage=90.0)),
    TrainingOptions(face=FaceOptions(vertical_offset=5)),
    TrainingOptions(mask=MaskOptions(mask_type="components")),
    TrainingOptions(mask=MaskOptions(mask_dilation=1.0)),
    TrainingOptions(mask=MaskOptions(mask_blur_kernel=5)),
    TrainingOptions(mask=MaskOptions(mask_threshold=10)),
    TrainingOptions(loss=LossOptions(eye_multiplier=1)),
]


def test_the_key_of_a_crop_changes_with_everything_it_depends_on(folder_a):
    face = scan_folder(folder_a, TrainingOptions()).faces[0]
    spec = CropSpec.from_options(TrainingOptions(), 64)
    keys = [spec.digest(face), CropSpec.from_options(TrainingOptions(), 65).digest(face)]
    keys += [CropSpec.from_options(options, 64).digest(face) for options in OTHER_OPTIONS]
    keys.append(spec.digest(dataclasses.replace(face, file_size=face.file_size + 1)))
    keys.append(spec.digest(dataclasses.replace(face, changed=face.changed + 1)))
    keys.append(spec.digest(dataclasses.replace(face, path=face.path.with_name("other.png"))))
    assert len(set(keys)) == len(keys)
    assert spec.digest(face) == CropSpec.from_options(TrainingOptions(), 64).digest(face)


def test_a_changed_file_has_another_key(new_folder):
    folder = new_folder("faces", 1)
    spec = CropSpec.from_options(TrainingOptions(), 64)
    before = spec.digest(scan_folder(folder, TrainingOptions()).faces[0])
    os.utime(folder / "face_000.png", ns=(1, 1))
    assert spec.digest(scan_folder(folder, TrainingOptions()).faces[0]) != before
