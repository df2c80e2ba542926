"""Writers: every format opens again, alpha and matrices say what they mean."""

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fsdeploy.convert import plugin
from fsdeploy.convert.frame import OutputInfo, Patch, Picture, SourceInfo, Status
from fsdeploy.convert.plugin import Writer
from fsdeploy.convert.tiff import write_tiff
from fsdeploy.errors import InputError


def info(path: Path, **more) -> OutputInfo:
    source = SourceInfo(path.with_name("source"), False, 40, 30, 1)
    return OutputInfo(path, source, 40, 30, Fraction(25), False, None, **more)


def picture(alpha: bool = False, **more) -> Picture:
    y, x = np.mgrid[:30, :40]
    image = np.stack([x * 6, y * 8, np.full_like(x, 90)], -1).astype(np.uint8)
    opacity = (x * 6).astype(np.uint8) if alpha else None
    return Picture(0, "frame_0007.png", image, Status.SWAPPED, opacity, **more)


def write(path: Path, name: str, entry: Picture, options: dict | None = None, **more) -> None:
    writer = plugin.build("writer", name, Writer, options)
    writer.open(info(path, **more))
    writer.write(entry, writer.encode(entry))
    writer.close(True)


@pytest.mark.parametrize(("name", "form"), [
    *(("opencv", form) for form in ("bmp", "jpg", "png", "ppm", "tif")),
    *(("pillow", form) for form in ("bmp", "gif", "jp2", "jpg", "png", "ppm", "tif", "webp")),
])  # fmt: skip
def test_every_image_format_opens_again_and_shows_the_picture(tmp_path, name: str, form: str) -> None:
    entry = picture()
    write(tmp_path / "o", name, entry, {"format": form})
    with Image.open(tmp_path / "o" / f"frame_0007.{form}") as image:
        shown = np.asarray(image.convert("RGB"))[..., ::-1]
    lossy = {"gif": 25, "jpg": 8, "jp2": 8, "webp": 12}
    assert np.abs(shown.astype(int) - entry.image).mean() <= lossy.get(form, 0)


@pytest.mark.parametrize(
    ("name", "form"), [("opencv", "png"), ("opencv", "tif"), ("pillow", "webp"), ("pillow", "tif")]
)
def test_transparent_output_carries_the_mask_as_alpha(tmp_path, name: str, form: str) -> None:
    entry = picture(alpha=True)
    write(tmp_path / "o", name, entry, {"format": form, "draw_transparent": True}, transparent=True)
    with Image.open(tmp_path / "o" / f"frame_0007.{form}") as image:
        assert image.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(image)[..., 3], entry.alpha)


def test_the_mask_may_be_written_as_an_image_of_its_own(tmp_path) -> None:
    entry = picture(alpha=True)
    options = {"format": "jpg", "draw_transparent": True, "separate_mask": True}
    write(tmp_path / "o", "opencv", entry, options, transparent=True)
    mask = cv2.imread(str(tmp_path / "o" / "masks" / "frame_0007.jpg"), cv2.IMREAD_UNCHANGED)
    assert mask.ndim == 2 and np.abs(mask.astype(int) - entry.alpha).max() < 12


def test_a_format_without_alpha_is_refused_before_the_first_picture(tmp_path) -> None:
    writer = plugin.build("writer", "opencv", Writer, {"format": "jpg", "draw_transparent": True})
    with pytest.raises(InputError, match="alpha"):
        writer.open(info(tmp_path / "o", transparent=True))


MATRIX = np.array([[0.8, 0.1, -4.0], [-0.1, 0.8, -2.0]])


@pytest.mark.parametrize("origin", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_the_matrix_of_a_patch_puts_it_where_it_belongs(tmp_path, origin: str) -> None:
    pixels = np.random.default_rng(0).random((16, 16, 4)).astype(np.float32)
    entry = picture(patches=(Patch(pixels, MATRIX), Patch(pixels, MATRIX)))
    write(tmp_path / "o", "patch", entry, {"origin": origin})
    facts = json.loads((tmp_path / "o" / "matrices.json").read_text())
    assert sorted(facts) == ["frame_00.000006", "frame_01.000006"]
    # Points of the patch, clockwise, and where they lie in the frame: both from the top left.
    points = np.array([(0, 0), (16, 0), (16, 16), (0, 16), (3, 7)], np.float64)
    frame = (points - MATRIX[:, 2]) @ np.linalg.inv(MATRIX[:, :2]).T

    def counted(from_top_left: np.ndarray, width: int, height: int) -> np.ndarray:
        """The same points, counted from the chosen corner of a picture."""
        x, y = from_top_left.T
        return np.stack([width - x if "right" in origin else x, height - y if "bottom" in origin else y], -1)

    inside, wanted = counted(points, 16, 16), counted(frame, 40, 30)
    matrix = np.array(facts["frame_00.000006"]["transform_matrix"])
    np.testing.assert_allclose(inside @ matrix[:2, :2].T + matrix[:2, 2], wanted, atol=1e-9)
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])
    # On the screen the corners go clockwise, beginning at the one that is counted from.
    begin = int(np.flatnonzero((inside == 0).all(axis=1))[0])
    order = [(begin + n) % 4 for n in range(4)]
    np.testing.assert_allclose(facts["frame_00.000006"]["roi"], wanted[order], atol=1e-9)


@pytest.mark.parametrize(("bits", "form", "kind"), [
    (8, "png", np.uint8), (16, "png", np.uint16), (8, "tif", np.uint8), (16, "tif", np.uint16), (32, "tif", np.float32),
])  # fmt: skip
def test_patches_keep_the_depth_that_was_asked_for(tmp_path, bits: int, form: str, kind) -> None:
    pixels = np.random.default_rng(0).random((16, 16, 4)).astype(np.float32)
    write(tmp_path / "o", "patch", picture(patches=(Patch(pixels, MATRIX),)), {"bit_depth": bits, "format": form})
    path = tmp_path / "o" / f"frame_00.000006.{form}"
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if (bits, form) == (8, "tif"):  # OpenCV premultiplies these when it reads them
        with Image.open(path) as image:
            read = np.asarray(image)[..., [2, 1, 0, 3]]
    assert read.dtype == kind and read.shape == (16, 16, 4)
    top = 1.0 if bits == 32 else float((1 << bits) - 1)
    np.testing.assert_allclose(read / top, pixels, atol=0.51 / top + 1e-6)


def test_a_frame_without_a_face_gives_one_blank_patch_or_none(tmp_path) -> None:
    write(tmp_path / "a", "patch", picture())
    blank = cv2.imread(str(tmp_path / "a" / "frame_00.000006.png"), cv2.IMREAD_UNCHANGED)
    assert blank.max() == 0
    write(tmp_path / "b", "patch", picture(), {"empty_frames": "skip"})
    assert not list((tmp_path / "b").glob("*.png"))


@pytest.mark.parametrize(("options", "name"), [
    ({}, "frame_00.000006"), ({"start_index": 1}, "frame_00.000007"), ({"index_offset": 10}, "frame_00.000016"),
    ({"number_padding": 2}, "frame_00.06"), ({"include_filename": False}, "00.000006"),
    ({"face_index_location": "after"}, "frame.000006.00"),
])  # fmt: skip
def test_patches_are_named_as_compositing_programs_expect(tmp_path, options: dict, name: str) -> None:
    pixels = np.zeros((16, 16, 4), np.float32)
    write(tmp_path / "o", "patch", picture(patches=(Patch(pixels, MATRIX),)), options)
    assert (tmp_path / "o" / f"{name}.png").exists()


def test_a_tiff_with_alpha_and_xmp_is_read_by_others() -> None:
    import io

    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 4), np.uint8)
    with Image.open(io.BytesIO(write_tiff(pixels, b"<x/>"))) as image:
        assert image.mode == "RGBA" and bytes(image.tag_v2[700]) == b"<x/>"
        np.testing.assert_array_equal(np.asarray(image), pixels[..., [2, 1, 0, 3]])
