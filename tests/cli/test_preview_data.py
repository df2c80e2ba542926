"""`fsdeploy preview-data` on real faces."""

from __future__ import annotations

import json

import cv2
import numpy as np
from click.testing import CliRunner

from fsdeploy.cli import cli
from fsdeploy.errors import ConfigError, InputError


def run(real_data, tmp_path, *more):
    faces = real_data / "faces"
    arguments = ["preview-data", "-A", str(faces / "A"), "-B", str(faces / "B"), "-o", str(tmp_path / "sheet.png")]
    return CliRunner().invoke(cli, [*arguments, *more])


def test_the_sheet_shows_feeds_targets_and_masks_of_both_sides(real_data, tmp_path):
    result = run(real_data, tmp_path, "-s", "64", "-n", "5", "--no-augment-color", "--no-warp")
    assert result.exit_code == 0, result.output
    assert "111" in result.output
    assert "128" in result.output
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    height, width = sheet.shape[:2]
    assert height == 2 * (26 + 5 * 64)
    faces = sheet[:, width - 5 * 64 :]
    feed, target, mask = (faces[26 + 64 * i : 26 + 64 * (i + 1)] for i in range(3))
    np.testing.assert_array_equal(feed, target)  # nothing is warped
    assert mask[:4].mean() < 0.5 * target[:4].mean()  # dark outside the mask


def test_the_folders_contents_are_printed_as_json(real_data, tmp_path):
    result = run(real_data, tmp_path, "-s", "32", "-n", "1", "--json")
    values = json.loads(result.stdout)
    assert [entry["usable"] for entry in values] == [111, 128]


def test_wrong_options_are_named(real_data, tmp_path):
    for arguments, error in (
        (["--set", "coverage=50"], ConfigError),
        (["--set", "mask_type=none"], ConfigError),
        (["--set", "mask_type=vgg-clear"], InputError),
    ):
        result = run(real_data, tmp_path, *arguments)
        assert isinstance(result.exception, error)
        assert "mask_type" in str(result.exception) or "coverage" in str(result.exception)
