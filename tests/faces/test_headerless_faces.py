"""Faces of alignments 2.0 and older, matched by the hash of their pixels."""

from __future__ import annotations

import hashlib
import json
import pickle
import zlib

import cv2
import numpy as np
import pytest

from fsdeploy.errors import InputError
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


def test_a_file_that_is_no_image_costs_only_itself(old_set):
    (old_set / "broken.png").write_bytes(b"no image")
    known = read_alignments(old_set / "alignments.fsa")
    strangers = add_headers(sorted(old_set.glob("*.png")), known, old_set / "new")
    assert [path.name for path in strangers] == ["broken.png", "stranger.png"]
    assert len(list((old_set / "new").iterdir())) == 3


def run(*words):
    from click.testing import CliRunner

    from fsdeploy.cli.add_headers import add_headers as command

    return CliRunner().invoke(command, [str(word) for word in words])


def test_the_command_says_what_it_found_and_what_not(old_set):
    words = (old_set, "-a", old_set / "alignments.fsa", "-o", old_set / "new")
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "3 of 4 faces" in done.output
    assert "stranger.png" in done.output
    assert json.loads(run(*words, "--json").output)["not_found"] == ["stranger.png"]


def test_the_command_never_writes_over_the_originals_and_names_a_wrong_file(old_set, tmp_path_factory):
    assert "originals" in str(run(old_set, "-a", old_set / "alignments.fsa", "-o", old_set).exception)
    other = tmp_path_factory.mktemp("other")
    (other / "a.fsa").write_bytes(zlib.compress(pickle.dumps({})))
    assert "knows none" in str(run(old_set, "-a", other / "a.fsa", "-o", other / "new").exception)
    assert isinstance(run(other / "gone", "-a", other / "a.fsa", "-o", other).exception, InputError)
