"""The crop cache: what it keeps, and when it must not be believed."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys

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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.name == "nt" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


FILLING = """
import sys
from pathlib import Path
import numpy as np
from fsdeploy.errors import InputError
from fsdeploy.training.data.cache import CropCache, crop_digest

path, count, edge = Path(sys.argv[1]), int(sys.argv[2]), 64 * 64 * 6
try:
    cache = CropCache([crop_digest(i) for i in range(count)], edge, 1 << 30, path)
except InputError as error:
    sys.exit(str(error))
for i in range(count):
    cache.put(i, np.full(edge, i, np.uint8))
cache.close()
"""


def fill(path, count):
    """A process of its own, since a full disk may kill it."""
    return subprocess.run(
        [sys.executable, "-c", FILLING, path, str(count)], capture_output=True, text=True, check=False
    )


def test_a_disk_without_room_for_the_crops_is_said_at_the_start_and_kills_nothing(small_disk):
    done = fill(small_disk / "a.crops", 200)  # 4.9 MB
    assert done.returncode == 1, "neither done nor killed"
    assert "a.crops: No space left on device: free 5 MB" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["a.lock"], "what was taken is given back"
    assert fill(small_disk / "a.crops", 30).returncode == 0


def test_a_disk_that_fills_up_later_does_not_touch_the_crops(small_disk):
    assert fill(small_disk / "a.crops", 30).returncode == 0
    with pytest.raises(OSError), (small_disk / "other").open("wb") as stream:
        stream.write(bytes(2 << 20))
    assert fill(small_disk / "a.crops", 30).returncode == 0


def test_a_cache_file_with_holes_is_made_whole_or_refused(small_disk):
    """As a backup program or an older version leaves it: the right size, but not the blocks."""
    assert fill(small_disk / "a.crops", 30).returncode == 0
    content = (small_disk / "a.crops").read_bytes()
    with (small_disk / "a.crops").open("wb") as stream:
        stream.write(content[:32])
        stream.truncate(len(content))
    with pytest.raises(OSError), (small_disk / "other").open("wb") as stream:
        stream.write(bytes(2 << 20))
    done = fill(small_disk / "a.crops", 30)
    assert done.returncode == 1
    assert "No space left" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows counts no blocks")
@pytest.mark.parametrize("way", ["as here", "no call", "no support"])
def test_all_room_is_taken_when_the_file_is_made(tmp_path, monkeypatch, way):
    def unsupported(*arguments):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if way == "no call":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif way == "no support":
        monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    cache = CropCache(digests(300), 10_000, 1 << 30, tmp_path / "crops")
    found = (tmp_path / "crops").stat()
    assert found.st_size >= 300 * 10_000
    assert found.st_blocks * 512 >= found.st_size
    cache.put(299, rows(1, 10_000)[0])
    cache.close()
    again = CropCache(digests(300), 10_000, 1 << 30, tmp_path / "crops")
    np.testing.assert_array_equal(again.get(299), rows(1, 10_000)[0])
    again.close()


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
