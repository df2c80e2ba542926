"""Every file of a folder gets a class; a bad one costs only itself."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from fsdeploy.config.training import FaceOptions, LossOptions, MaskOptions, TrainingOptions
from fsdeploy.errors import InputError
from fsdeploy.training.data.data_set import TrainSet
from fsdeploy.training.data.scan import scan_folder, scan_table

STORED = TrainingOptions(mask=MaskOptions(mask_type="custom_face"))


@pytest.fixture
def mixed(new_folder, new_face):
    """Two good faces and one of every bad kind."""
    folder = new_folder("mixed", 2, masks=("custom_face",))
    cv2.imwrite(str(folder / "plain.png"), np.zeros((64, 64, 3), np.uint8))
    (folder / "text.png").write_bytes(b"this is text")
    (folder / "empty.png").touch()
    good = (folder / "face_000.png").read_bytes()
    (folder / "truncated.png").write_bytes(good[: len(good) * 2 // 3])
    flipped = bytearray(good)
    flipped[-60] ^= 255
    (folder / "damaged.png").write_bytes(flipped)
    bomb = bytearray(good)
    bomb[16:24] = struct.pack(">II", 100_000, 100_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (folder / "bomb.png").write_bytes(bomb)
    new_face(folder / "box.png", 7, masks=("custom_face",), points=4)
    new_face(folder / "maskless.png", 8)
    new_face(folder / "legacy.png", 9, masks=("custom_face",), version=1.0)
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / "inner").mkdir()
    return folder


def statuses(scan):
    return {entry.path.name: entry.status for entry in scan.skipped}


def test_every_kind_of_bad_file_is_told_apart(mixed):
    scan = scan_folder(mixed, STORED)
    assert [face.path.name for face in scan.faces] == ["face_000.png", "face_001.png"]
    assert scan.other == 1
    assert statuses(scan) == {
        "plain.png": "no header",
        "text.png": "no header",
        "empty.png": "no header",
        "truncated.png": "unreadable",
        "damaged.png": "unreadable",
        "bomb.png": "refused",
        "box.png": "landmarks",
        "maskless.png": "mask missing",
        "legacy.png": "centering",
    }


def test_a_reason_names_the_file_and_what_it_lacks(mixed):
    reasons = {entry.path.name: entry.reason for entry in scan_folder(mixed, STORED).skipped}
    assert all(name in reason for name, reason in reasons.items())
    assert "custom_face" in reasons["maskless.png"]
    assert "4 landmarks" in reasons["box.png"]
    assert "legacy" in reasons["legacy.png"]


def test_what_is_usable_depends_on_what_the_run_needs(mixed):
    assert statuses(scan_folder(mixed, TrainingOptions())).get("maskless.png") is None
    legacy = TrainingOptions(face=FaceOptions(centering="legacy"), mask=MaskOptions(mask_type="extended"))
    assert "legacy.png" in {face.path.name for face in scan_folder(mixed, legacy).faces}
    boxes = TrainingOptions(
        loss=LossOptions(eye_multiplier=1, mouth_multiplier=1), mask=MaskOptions(mask_type="custom_face")
    )
    assert "box.png" in {face.path.name for face in scan_folder(mixed, boxes).faces}


def test_one_table_counts_all_folders_and_lists_what_was_skipped(mixed, folder_a):
    scans = [scan_folder(mixed, STORED), scan_folder(folder_a, STORED)]
    lines = scan_table(scans).splitlines()
    titles = "folder usable no header unreadable refused landmarks centering mask missing no png"
    assert " ".join(lines[0].split()) == titles
    assert lines[1].split()[0] == "A"
    assert lines[1].split()[-8:] == ["2", "3", "2", "1", "1", "1", "1", "1"]
    assert lines[2].split()[-8:] == ["30", *["0"] * 7]
    assert sum("A skipped" in line for line in lines) == 6  # five files, and how many more
    assert lines[-1].endswith("4 more")


def test_too_few_faces_are_refused_with_the_reason_and_the_remedy(new_folder):
    folder = new_folder("plain", 3)
    scan_folder(folder, STORED.__class__()).require(3)
    with pytest.raises(InputError, match=r"holds 0 usable faces, 25 are needed \(3 mask missing; first: face_000"):
        scan_folder(folder, STORED).require(25)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 usable faces"):
        scan_folder(tmp_path, TrainingOptions()).require()


def test_a_folder_without_enough_files_says_what_it_holds(new_folder, tmp_path):
    with pytest.raises(InputError, match=r"few holds 3 usable faces, 25 are needed: add faces"):
        scan_folder(new_folder("few", 3), TrainingOptions()).require(25)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(4):
        (pictures / f"{index}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"0 usable faces, 1 are needed \(4 files that are no PNG\): add faces, PNG"):
        scan_folder(pictures, TrainingOptions()).require(1)


def test_what_is_no_folder_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file is not a folder: name the folder"):
        scan_folder(tmp_path / "file", TrainingOptions())
    with pytest.raises(InputError, match=r"gone is not a folder: name the folder"):
        scan_folder(tmp_path / "gone", TrainingOptions())

    def refused(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fsdeploy.training.data.files.os.scandir", refused)
    with pytest.raises(InputError, match=rf"cannot read {tmp_path}: Permission denied: check"):
        scan_folder(tmp_path, TrainingOptions())


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_a_face_is_a_face_and_one_that_leads_nowhere_is_listed(new_folder, tmp_path):
    folder = new_folder("faces", 2)
    (folder / "elsewhere.png").symlink_to(new_folder("others", 1) / "face_000.png")
    (folder / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (folder / "folder.png").mkdir()
    scan = scan_folder(folder, TrainingOptions())
    assert [face.path.name for face in scan.faces] == ["elsewhere.png", "face_000.png", "face_001.png"]
    assert [(entry.path.name, entry.status) for entry in scan.skipped] == [("nowhere.png", "unreadable")]
    assert "nowhere.png: cannot be read: No such file or directory" in scan.skipped[0].reason


def test_files_that_cannot_be_read_are_no_reason_to_extract_anew_at_once(new_folder, monkeypatch):
    folder = new_folder("faces", 3)

    def refused(path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("pathlib.Path.read_bytes", refused)
    message = r"0 usable faces, .*3 unreadable; first: face_000.png: cannot be read: Stale file handle\): see that"
    with pytest.raises(InputError, match=message):
        scan_folder(folder, TrainingOptions()).require(1)


def test_a_damaged_stored_mask_is_found(new_folder, monkeypatch):
    from fsdeploy.faces import records

    folder = new_folder("faces", 1, masks=("custom_face",))

    def broken(self):
        raise InputError("a stored mask is a damaged zlib stream")

    monkeypatch.setattr(records.StoredMask, "decompress", broken)
    assert statuses(scan_folder(folder, STORED)) == {"face_000.png": "unreadable"}


def test_an_image_that_is_not_square_or_tiny_is_no_face(new_folder):
    from fsdeploy.faces.png import read_face, write_face

    folder = new_folder("faces", 3)
    image, header = read_face(folder / "face_000.png")
    write_face(folder / "face_000.png", image[:100], header)
    write_face(folder / "face_001.png", image[:1, :1], header)
    scan = scan_folder(folder, TrainingOptions())
    assert [entry.status for entry in scan.skipped] == ["no header", "no header"]
    assert "128x100" in scan.skipped[0].reason
    assert "1x1" in scan.skipped[1].reason


def test_mutated_faces_cost_only_themselves(new_folder):
    """Whatever bytes a file holds, the scan classifies it, and a usable face can be cropped or is skipped."""
    folder = new_folder("faces", 1, masks=("custom_face",))
    good = (folder / "face_000.png").read_bytes()
    random = np.random.default_rng(0)
    for i in range(150):
        data = bytearray(good)
        start = int(random.integers(0, len(data)))
        kind = i % 3
        if kind == 0:  # single bytes
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(256)
        elif kind == 1:  # a hole
            del data[start : start + int(random.integers(1, 500))]
        else:  # header text with sound checksums
            text = data.index(b"iTXt")
            length = struct.unpack(">I", data[text - 4 : text])[0]
            for place in random.integers(text + 60, text + length, 3):
                data[place] = random.integers(32, 127)
            data[text + 4 + length : text + 8 + length] = struct.pack(">I", zlib.crc32(data[text : text + 4 + length]))
        (folder / f"mutated_{i:03d}.png").write_bytes(data)
    scan = scan_folder(folder, STORED)
    assert len(scan.faces) + len(scan.skipped) == 151
    dataset = TrainSet("A", folder, 32, options=STORED, scan=scan)
    for index in range(len(dataset)):
        assert dataset[index][0].shape == (32, 32, 6)


def test_real_faces_of_the_original_program_are_all_usable(real_data):
    scan = scan_folder(real_data / "faces" / "A", STORED)
    assert (len(scan.faces), scan.skipped) == (111, [])
