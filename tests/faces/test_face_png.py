"""Face PNGs: every version of the header, foreign chunks, pixel formats, and files that lie."""

from __future__ import annotations

import gc
import json
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from fsdeploy.errors import HostileFileError, InputError, NotAFaceError
from fsdeploy.faces import png
from fsdeploy.faces.literal import parse_literal


def test_rewriting_the_header_of_every_real_face_gives_the_same_bytes(real_data):
    files = sorted((real_data / "faces").rglob("*.png"))
    assert len(files) > 200
    for path in files:
        data = path.read_bytes()
        assert png.with_header(data, png.read_header(data, path.name)) == data, path.name


def test_a_real_face_reads_with_its_picture(real_data):
    path = sorted((real_data / "faces" / "A").glob("*.png"))[0]
    image, header = png.read_face(path)
    assert np.array_equal(image, cv2.imread(str(path)))
    assert header.source.source_frame_dims == (480, 640)
    assert header.source.alignments_version == 2.4
    assert header.source.stored_centering == "head"
    assert header.face.landmarks.shape == (68, 2)
    assert header.face.masks["custom_face"].decompress().shape == (128, 128)


def test_a_current_header_is_read_whole(make_png, face_chunk, header_dict):
    header = png.read_header(make_png(face_chunk(str(header_dict))))
    face, source = header.face, header.source
    assert (face.x, face.y, face.w, face.h) == (310, -3, 180, 200)
    assert face.landmarks.dtype == np.float32
    assert face.landmarks.astype(float).tolist() == header_dict["alignments"]["landmarks_xy"]
    mask = face.masks["bisenet-fp_face"]
    assert mask.decompress().tobytes() == bytes(range(256)) * 64
    assert mask.affine_matrix.tolist() == header_dict["alignments"]["mask"]["bisenet-fp_face"]["affine_matrix"]
    assert (mask.interpolator, mask.stored_size, mask.stored_centering) == (2, 128, "face")
    assert face.identity == {"vggface2": [0.125, -0.5, 1e-07]}
    assert (source.original_filename, source.face_index) == ("clip_000012_0.png", 0)
    assert (source.source_filename, source.source_is_video) == ("clip_000012.mp4", True)
    assert source.source_frame_dims == (1080, 1920)


def test_a_header_of_2021_without_the_later_keys_gets_their_defaults(make_png, face_chunk, header_dict):
    del header_dict["alignments"]["identity"]
    del header_dict["source"]["source_frame_dims"]
    del header_dict["alignments"]["mask"]["bisenet-fp_face"]["stored_centering"]
    header_dict["source"]["alignments_version"] = 2.1
    header_dict["source"]["source_filename"] = "C:\\frames\\clip_000012.png"
    header = png.read_header(make_png(face_chunk(str(header_dict))))
    assert header.face.identity == {}
    assert header.source.source_frame_dims is None
    assert header.face.masks["bisenet-fp_face"].stored_centering == "face"
    assert header.source.source_filename == "clip_000012.png"
    assert header.source.stored_centering == "head"


def test_a_header_without_masks_is_a_face(make_png, face_chunk, header_dict):
    del header_dict["alignments"]["mask"]
    assert png.read_header(make_png(face_chunk(str(header_dict)))).face.masks == {}


def test_an_upgraded_face_of_version_1_is_known_as_legacy_centred(make_png, face_chunk, header_dict):
    header_dict["source"].update(alignments_version=1.0, source_frame_dims=None, source_is_video=False)
    source = png.read_header(make_png(face_chunk(str(header_dict)))).source
    assert source.stored_centering == "legacy"
    assert source.source_frame_dims is None


def test_numpy_number_reprs_of_the_manual_tool_are_read(make_png, face_chunk, header_dict):
    box = {"x": np.int32(205), "y": np.int32(-7), "w": np.int64(90), "h": np.float32(91.0)}
    header_dict["alignments"].update(box)
    header_dict["source"]["source_is_video"] = np.True_
    text = str(header_dict)
    assert "np.int32(205)" in text
    header = png.read_header(make_png(face_chunk(text)))
    assert (header.face.x, header.face.y, header.face.w, header.face.h) == (205, -7, 90, 91)
    assert header.source.source_is_video is True


def test_a_json_header_is_read(make_png, face_chunk, header_dict):
    header_dict["alignments"]["mask"] = {}
    header_dict["source"]["original_filename"] = "Größe \"x\" 'y' True None (1).png"
    header = png.read_header(make_png(face_chunk(json.dumps(header_dict))))
    assert header.source.source_frame_dims == (1080, 1920)
    assert header.source.original_filename == "Größe \"x\" 'y' True None (1).png"


@pytest.mark.parametrize("count", [4, 51, 98])
def test_other_landmark_types_are_read(make_png, face_chunk, header_dict, count):
    points = np.random.default_rng(3).uniform(100, 300, (count, 2)).astype(np.float32)
    if count == 4:
        points = np.array([(100, 50), (300, 50), (300, 250), (100, 250)], np.float32)
    elif count == 51:
        points = np.array(header_dict["alignments"]["landmarks_xy"][17:], np.float32)
    else:
        from fsdeploy.faces.landmarks import INDICES_98_TO_68

        points[INDICES_98_TO_68] = header_dict["alignments"]["landmarks_xy"]
    header_dict["alignments"]["landmarks_xy"] = points.astype(float).tolist()
    assert np.array_equal(png.read_header(make_png(face_chunk(str(header_dict)))).face.landmarks, points)


def test_unknown_keys_are_kept_through_a_rewrite(make_png, face_chunk, header_dict):
    header_dict["new"] = {"a": [1, None]}
    header_dict["alignments"]["quality"] = 0.5
    header_dict["alignments"]["mask"]["bisenet-fp_face"]["model"] = b"\x00'\xff"
    header_dict["source"]["camera"] = 'the "left" one'
    header_dict["source"]["source_frame_dims"] = [1080, 1920]
    data = make_png(face_chunk(str(header_dict)))
    assert png.with_header(data, png.read_header(data)) == data


def test_foreign_chunks_are_ignored_and_kept(make_png, face_chunk, header_dict):
    text = str(header_dict)
    foreign = face_chunk("hello 'faceswap'", keyword=b"Comment")
    time = struct.pack(">I", 7) + b"tIME" + bytes(7) + struct.pack(">I", zlib.crc32(b"tIME" + bytes(7)))
    data = make_png(foreign, time, face_chunk(text), foreign)
    header = png.read_header(data)
    assert header.face.x == 310
    rewritten = png.with_header(data, header)
    assert rewritten.count(foreign) == 2
    assert time in rewritten
    assert cv2.imdecode(np.frombuffer(rewritten, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    assert png.with_header(rewritten, header) == rewritten


def test_metadata_inside_or_after_the_pixels_is_not_looked_at(make_png, face_chunk, header_dict):
    with pytest.raises(NotAFaceError, match="no face metadata"):
        png.read_header(make_png(tail=face_chunk(str(header_dict))), "late.png")


def test_the_header_goes_right_before_the_first_pixel_chunk_with_no_other_chunk_touched(
    make_png, face_chunk, header_dict
):
    header = png.read_header(make_png(face_chunk(str(header_dict))))
    bare = make_png()
    result = png.with_header(bare, header)
    at = bare.index(b"IDAT") - 4
    assert result[:at] == bare[:at]
    assert result[at + 4 : at + 8] == b"iTXt"
    assert result[-(len(bare) - at) :] == bare[at:]
    length = struct.unpack(">I", result[at : at + 4])[0]
    body = result[at + 8 : at + 8 + length]
    assert body.startswith(
        b"faceswap\0\0\0\0\0{'alignments': {'x': 310, 'y': -3, 'w': 180, 'h': 200, 'landmarks_xy': [["
    )
    assert struct.unpack(">I", result[at + 8 + length :][:4])[0] == zlib.crc32(b"iTXt" + body)


def test_a_face_survives_writing_and_updating(tmp_path, make_png, face_chunk, header_dict):
    header = png.read_header(make_png(face_chunk(str(header_dict))))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "face.png"
    png.write_face(path, image, header)
    first, back = png.read_face(path)
    assert np.array_equal(first, image)
    assert np.array_equal(back.face.landmarks, header.face.landmarks)
    assert back.source == header.source
    png.update_header(path, header)
    assert png.read_face(path)[1].source == header.source
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("depth", "color", "pixel", "bgr"),
    [
        (8, 2, bytes([10, 20, 30]), (30, 20, 10)),
        (8, 6, bytes([10, 20, 30, 128]), (30, 20, 10)),
        (8, 0, bytes([77]), (77, 77, 77)),
        (16, 2, struct.pack(">HHH", 65535, 32768, 257), (1, 127, 255)),  # 32768/65535*255 = 127.5, truncated
        (16, 0, struct.pack(">H", 512), (1, 1, 1)),  # 1.99, truncated
        (16, 6, struct.pack(">HHHH", 65535, 0, 257, 9), (1, 0, 255)),
    ],
)
def test_every_pixel_format_becomes_8_bit_bgr(tmp_path, make_png, face_chunk, header_dict, depth, color, pixel, bgr):
    path = tmp_path / "face.png"
    data = make_png(face_chunk(str(header_dict)), depth=depth, color=color, pixels=[pixel * 8] * 8)
    path.write_bytes(data)
    image, _ = png.read_face(path)
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    assert image[3, 4].tolist() == list(bgr)


def test_a_converters_patch_is_not_a_face(make_png, face_chunk):
    patch = json.dumps({"transform_matrix": np.eye(3).tolist(), "roi": [[0, 0]] * 4})
    with pytest.raises(NotAFaceError, match=r"patch\.png.*describes no face"):
        png.read_header(make_png(face_chunk(patch)), "patch.png")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(100)])
def test_what_is_no_png_is_refused_by_name(data):
    with pytest.raises(InputError, match=r"x\.png"):
        png.read_header(data, "x.png")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png"):
        png.read_header(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"gone\.png"):
        png.read_face(tmp_path / "gone.png")
    with pytest.raises(InputError, match="cannot read"):
        png.read_header(tmp_path)


def test_a_png_cut_off_anywhere_is_refused_by_name(tmp_path, make_png, face_chunk, header_dict):
    pixels = [np.random.default_rng(row).integers(0, 256, 24, np.uint8).tobytes() for row in range(8)]
    data = make_png(face_chunk(str(header_dict)), pixels=pixels)
    path = tmp_path / "short.png"
    for length in [*range(60), *range(60, len(data) - 1, 97), *range(len(data) - 60, len(data))]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"short\.png"):
            png.read_face(path)


def test_damaged_pixels_and_damaged_metadata_are_refused_by_their_checksums(
    tmp_path, make_png, face_chunk, header_dict
):
    data = bytearray(make_png(face_chunk(str(header_dict))))
    path = tmp_path / "bad.png"
    for at in (data.index(b"IDAT") + 6, data.index(b"'landmarks_xy'") + 25):
        broken = bytearray(data)
        broken[at] ^= 1
        path.write_bytes(broken)
        with pytest.raises(InputError, match="checksum"):
            png.read_face(path)


@pytest.mark.parametrize("size", [(100_000, 100_000), (0, 8), (2**31 - 1, 1), (4097, 4097)])
def test_a_png_that_claims_absurd_dimensions_is_refused_before_it_is_decoded(make_png, face_chunk, header_dict, size):
    data = make_png(face_chunk(str(header_dict)))
    bomb = data[:16] + struct.pack(">II", *size) + data[24:]
    with pytest.raises(HostileFileError, match="claims"):
        png.read_header(bomb, "bomb.png")


def test_an_image_that_is_not_square_is_no_face(make_png, face_chunk, header_dict):
    with pytest.raises(NotAFaceError, match="8x6"):
        png.read_header(make_png(face_chunk(str(header_dict)), size=(8, 6)), "wide.png")


def test_a_chunk_that_claims_more_than_the_file_holds_is_refused(make_png, face_chunk, header_dict):
    data = make_png(face_chunk(str(header_dict)))
    at = data.index(b"iTXt") - 4
    with pytest.raises(InputError, match="cut off"):
        png.read_header(data[:at] + b"\x7f\xff\xff\xff" + data[at + 4 :], "huge.png")


def test_a_compressed_metadata_chunk_is_read_within_bounds(make_png, header_dict):
    def compressed(data):
        body = b"iTXt" + b"faceswap\0\1\0\0\0" + zlib.compress(data)
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    assert png.read_header(make_png(compressed(str(header_dict).encode()))).face.x == 310
    with pytest.raises(HostileFileError, match="unpacks to more"):
        png.read_header(make_png(compressed(bytes(40 << 20))), "bomb.png")


def test_a_million_tiny_chunks_are_refused(make_png):
    empty = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    with pytest.raises(HostileFileError, match="chunks"):
        png.read_header(make_png(*([empty] * 10_000)), "many.png")


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ABSURD = {
    "no landmarks": ("alignments", "landmarks_xy", None),
    "landmarks of 67 points": ("alignments", "landmarks_xy", [[1.0, 2.0]] * 67),
    "ragged landmarks": ("alignments", "landmarks_xy", [[1.0, 2.0]] * 67 + [[1.0]]),
    "landmarks of text": ("alignments", "landmarks_xy", [["a", "b"]] * 68),
    "endless landmarks": ("alignments", "landmarks_xy", [[1.0, 2.0]] * 100_000),
    "landmarks in one point": ("alignments", "landmarks_xy", [[1.0, 2.0]] * 68),
    "a huge box": ("alignments", "x", 10**30),
    "a box of text": ("alignments", "w", "12"),
    "a negative width": ("alignments", "w", -1),
    "masks as a list": ("alignments", "mask", [1, 2]),
    "a mask that is no dict": ("alignments", "mask", {"m": 5}),
    "a mask without data": ("alignments", "mask", {"m": {"stored_size": 128, "affine_matrix": [[1, 0, 0], [0, 1, 0]]}}),
    "a huge mask": ("mask", "stored_size", 10**9),
    "a mask of text": ("mask", "mask", "abc"),
    "a mask of no centering": ("mask", "stored_centering", "nose"),
    "an unhashable centering": ("mask", "stored_centering", ["face"]),
    "a matrix of 2x2": ("mask", "affine_matrix", [[1, 0], [0, 1]]),
    "an endless identity": ("alignments", "identity", {"x": [0.0] * 100_000}),
    "a negative index": ("source", "face_index", -1),
    "a version of text": ("source", "alignments_version", "2.4"),
    "a version of the far future": ("source", "alignments_version", 1e9),
    "frame dims of one number": ("source", "source_frame_dims", [5]),
    "frame dims of nothing": ("source", "source_frame_dims", [0, 0]),
    "an endless name": ("source", "source_filename", "x" * 100_000),
    "a name that is a number": ("source", "original_filename", 5),
    "a truth that is a number": ("source", "source_is_video", 7),
    "deep unknown data": ("source", "new", nested(20)),
    "a lone surrogate": ("source", "original_filename", "\ud800.png"),
    "an endless number": ("alignments", "new", 10**400),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_header_values_are_refused_with_file_and_reason(make_png, face_chunk, header_dict, case):
    where, key, value = ABSURD[case]
    target = header_dict["alignments"]["mask"]["bisenet-fp_face"] if where == "mask" else header_dict[where]
    target[key] = value
    with pytest.raises(InputError, match=r"^odd\.png: .") as caught:
        png.read_header(make_png(face_chunk(str(header_dict))), "odd.png")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    "text",
    [
        "{'alignments': __import__('os').system('true'), 'source': {}}",
        "{'alignments': 1e999, 'source': nan}",
        "{'alignments': Infinity, 'source': NaN}",
        "{'alignments': 1 + 1, 'source': {}}",
        "{'alignments': 'unfinished",
        "{'alignments': b'\\xzz', 'source': {}}",
        "[" * 100_000,
        "(" * 100_000 + ")" * 100_000,
        "{'a':" * 5_000 + "1" + "}" * 5_000,
        "-" * 100_000 + "1",
        "9" * 100_000,
        "lambda: 1",
        "np.array([1])",
        "{" + "'a': 1, " * 10 + "**{}}",
        "",
        "\0",
        "'\ud800'".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ],
)
def test_text_that_is_no_header_is_refused_whatever_it_says(make_png, face_chunk, text):
    with pytest.raises(InputError, match=r"odd\.png"):
        png.read_header(make_png(face_chunk(text)), "odd.png")


@pytest.mark.parametrize(
    "text",
    ["'" * 2_000_000, '"' * 1_999_999, "'" + "\\n" * 900_000, ("'" + '"' * 50 + "\\q") * 30_000, "b'" * 900_000,
     "()" * 900_000, "np." * 600_000, ", " + " " * 1_900_000, "{'a':" + "b''," * 400_000, "np.int32(" * 200_000],
    ids=range(10),
)  # fmt: skip
def test_text_made_to_be_slow_is_refused_in_no_time(text):
    import time

    start = time.process_time()
    with pytest.raises(InputError):
        parse_literal(text)
    assert time.process_time() - start < 5.0


def test_a_name_that_looks_like_our_own_mark_is_refused():
    with pytest.raises(InputError):
        parse_literal("{'a': '\ue000fsdeploy-bytes:0'}")


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2.5, 1e-07, 1e22, True, False, None], "b": b"\x00\xff'\"\\\n", "c": 'it\'s "x" \\ \n\t\x00é漢😀'},
        {"t": (1, (2, 3)), "e": [], "f": {}, "g": ((),), "h": (5,), "i": [b"x", "y"]},
        {"brackets": "([{", "names": "True None np.int32(5)"},
    ],
)
def test_a_literal_comes_back_as_it_was_with_tuples_as_lists(value):
    def listed(item):
        if isinstance(item, dict):
            return {key: listed(entry) for key, entry in item.items()}
        return [listed(entry) for entry in item] if isinstance(item, list | tuple) else item

    assert parse_literal(str(value)) == listed(value)


def test_headers_are_read_in_many_threads_while_garbage_with_finalisers_is_collected():
    """Python 3.11's own literal parser fails here: a finaliser lets another thread in, halfway through its tree."""

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            sum(range(200))

    value = {"mask": bytes(range(256)) * 8, "name": 'it\'s "q"', "more": ["\\ \n €"] * 20}
    text = str(value)

    def read(_: int) -> bool:
        for _ in range(5):
            Cycle()
        return bool(parse_literal(text) == value)

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(1)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(2000)))
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
