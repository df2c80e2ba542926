"""Faces of alignments 2.0 and older, matched by the hash of their pixels."""

from __future__ import annotations

import hashlib
import pickle
import zlib

import cv2
import numpy as np
import pytest

from fsdeploy.faces.alignments import read_alignments
from fsdeploy.faces.legacy import add_headers, match_by_hash
from fsdeploy.faces.png import read_face


@pytest.fixture
def old_set(tmp_path, header_dict):
    """A folder of three header-less faces, two of them equal, and the alignments that know them."""
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2)]
    pictures = {"one.png": images[0], "two.png": images[1], "two_again.png": images[1], "stranger.png": images[0] // 2}
    for name, image in pictures.items():
        cv2.imwrite(str(tmp_path / name), image)
    hashes = [hashlib.sha1(image.tobytes()).hexdigest() for image in images]

    def face(digest, x):
        return {**header_dict["alignments"], "x": x, "hash": digest}

    frames = {
        "f_1.png": {"faces": [face("00" * 20, 1), face(hashes[0], 2)]},
        "f_2.png": {"faces": [face(hashes[1], 3)]},
        "f_3.png": {"faces": [face(hashes[1], 4)]},
    }
    document = {"__meta__": {"version": 2.0}, "__data__": frames}
    (tmp_path / "alignments.fsa").write_bytes(zlib.compress(pickle.dumps(document)))
    return tmp_path


def test_each_face_gets_the_header_that_its_pixels_hash_to(old_set):
    alignments = read_alignments(old_set / "alignments.fsa")
    matched = match_by_hash(sorted(old_set.glob("*.png")), alignments)
    found = {path.name: (header.face.x, header.source.source_filename) for path, header in matched.items()}
    assert found == {"one.png": (2, "f_1.png"), "two.png": (3, "f_2.png"), "two_again.png": (4, "f_3.png")}
    source = matched[old_set / "one.png"].source
    assert (source.face_index, source.original_filename) == (1, "f_1_1.png")
    assert (source.alignments_version, source.source_frame_dims, source.source_is_video) == (2.0, None, False)


def test_the_headers_are_written_to_copies_and_strangers_are_named(old_set):
    output = old_set / "upgraded"
    strangers = add_headers(sorted(old_set.glob("*.png")), read_alignments(old_set / "alignments.fsa"), output)
    assert [path.name for path in strangers] == ["stranger.png"]
    image, header = read_face(output / "two.png")
    assert np.array_equal(image, cv2.imread(str(old_set / "two.png")))
    assert header.face.x == 3
