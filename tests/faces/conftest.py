"""The two reference faces of the specification's vectors, computed from its formulas and not by the code under test."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import pytest

from fsdeploy.faces.landmarks import MEAN_FACE


def reference_landmarks(w, degrees, scale, shift):
    """Jaw on an ellipse, core points on the mean face, sheared by w, rotated, scaled, moved; float32."""
    angles = np.pi * (1 - np.arange(17) / 16)
    jaw = np.stack([0.5 + 0.58 * np.cos(angles), 0.20 + 0.95 * np.sin(angles)], axis=1)
    points = np.concatenate([jaw, MEAN_FACE])
    points[:, 0] += w * (points[:, 0] - 0.5) ** 2
    th = math.radians(degrees)
    x, y = points.T
    turned = np.stack([x * math.cos(th) - y * math.sin(th), x * math.sin(th) + y * math.cos(th)], axis=1)
    return (turned * scale + shift).astype(np.float32)


@pytest.fixture(scope="session")
def v1():
    return reference_landmarks(0.0, 0.0, 200.0, (300.0, 250.0))


@pytest.fixture(scope="session")
def v2():
    return reference_landmarks(0.2, 15.0, 180.0, (400.0, 300.0))


@pytest.fixture(scope="session")
def convert_face():
    """Landmarks of the convert vectors: raised right brow, mouth moved sideways, 10 degrees."""
    k = np.arange(17)
    jaw = np.stack([0.5 - 0.62 * np.cos(np.pi * k / 16), 0.2 + np.sin(np.pi * k / 16)], axis=1)
    points = np.concatenate([jaw, MEAN_FACE]) - 0.5
    th = math.radians(10)
    rotation = np.array([[math.cos(th), -math.sin(th)], [math.sin(th), math.cos(th)]])
    points = points @ rotation.T * 180 + (480, 270)
    points[17:22, 1] -= 4
    points[48:60, 0] += 3  # sideways: the vectors' own L54 and matrix say so
    return points.astype(np.float32)


@pytest.fixture(scope="session")
def convert_frame():
    """The 960x540 frame of the convert vectors, BGR uint8."""
    x, y = np.arange(960)[None], np.arange(540)[:, None]
    frame = np.zeros((540, 960, 3), np.uint8)
    frame[..., 0] = np.round(255 * x / 959)
    frame[..., 1] = np.round(255 * y / 539)
    frame[..., 2] = np.round(127.5 + 127.5 * np.sin(x / 40) * np.cos(y / 30))
    return frame


def chunk(kind, data):
    """One PNG chunk, spelled out from the PNG specification."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="session")
def make_png():
    """A PNG of given raw scanline bytes and extra chunks before its pixels, built without an image library."""

    def build(*extra, size=(8, 8), depth=8, color=2, pixels=None, tail=b""):
        channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
        row = size[0] * channels * depth // 8
        rows = pixels if pixels is not None else [bytes(row)] * size[1]
        header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0)
        data = zlib.compress(b"".join(b"\0" + line for line in rows))
        body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), tail, chunk(b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(body)

    return build


@pytest.fixture(scope="session")
def face_chunk():
    """The metadata chunk of a face from header text."""

    def build(text, keyword=b"faceswap"):
        return chunk(b"iTXt", keyword + b"\0\0\0\0\0" + text.encode("utf-8"))

    return build


@pytest.fixture
def header_dict(v1):
    """A complete current header as its producer's dict."""
    return {
        "alignments": {
            "x": 310,
            "y": -3,
            "w": 180,
            "h": 200,
            "landmarks_xy": v1.astype(np.float64).tolist(),
            "mask": {
                "bisenet-fp_face": {
                    "mask": zlib.compress(bytes(range(256)) * 64),
                    "affine_matrix": [[0.3, 0.01, -90.5], [-0.01, 0.3, -75.25]],
                    "interpolator": 2,
                    "stored_size": 128,
                    "stored_centering": "face",
                }
            },
            "identity": {"vggface2": [0.125, -0.5, 1e-07]},
        },
        "source": {
            "alignments_version": 2.4,
            "original_filename": "clip_000012_0.png",
            "face_index": 0,
            "source_filename": "clip_000012.mp4",
            "source_is_video": True,
            "source_frame_dims": (1080, 1920),
        },
    }
