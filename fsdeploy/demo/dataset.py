"""Writes what the renderer drew as a user's own data would lie on disk: face folders, clips, alignments.

faces_a/, faces_b/                  extracted faces: PNGs with the face header and a stored mask
clip_a.mp4, clip_b.mp4              a talking head each
clip_a_alignments.fsa, ...          where the face is in every frame of the clip
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from fsdeploy.demo.identities import IDENTITIES, Identity
from fsdeploy.demo.render import Drawing, draw
from fsdeploy.demo.scene import Scene, clip_scenes, random_scene
from fsdeploy.faces.aligned import AlignedFace, align_many, warp_crop
from fsdeploy.faces.alignments import Alignments, write_alignments
from fsdeploy.faces.png import write_face
from fsdeploy.faces.records import FaceHeader, FaceRecord, FaceSource, StoredMask
from fsdeploy.files import atomic_path
from fsdeploy.images import encode_image

FACE_SIZE = 192
FRAME_RATE = 25
_FRAME = (256, 256)
_CLIP_FRAME = (256, 320)
_MASK_SIZE = 128
_MASK_NAME = "custom_face"
_THUMB_SIZE = 96

Advance = Callable[[], None]


@dataclass(frozen=True)
class SideData:
    """What one identity has on disk."""

    faces: Path
    clip: Path
    alignments: Path


@dataclass(frozen=True)
class DataSize:
    """How much is drawn."""

    faces: int = 250
    """Per identity."""
    clip_frames: int = 60
    held_out: int = 60
    """Scenes that no training face shows."""


def sides(folder: Path) -> tuple[SideData, SideData]:
    """Where A's and B's data lie in the demo's folder."""
    a, b = (
        SideData(folder / f"faces_{letter}", folder / f"clip_{letter}.mp4", folder / f"clip_{letter}_alignments.fsa")
        for letter in ("a", "b")
    )
    return a, b


def write_dataset(
    folder: Path, seed: int, size: DataSize, advance: Advance = lambda: None
) -> tuple[SideData, SideData]:
    """Draw and write both identities' faces and clips; `advance` is called after every picture.

    The same seed draws the same pictures. A and B never share a scene, as two people's recordings do not.

    Raises:
        InputError: the folder cannot be written.
    """
    streams = _streams(seed)
    written = sides(folder)
    for side, identity, (stills, moving) in zip(written, IDENTITIES, (streams[0:2], streams[2:4]), strict=True):
        scenes = [random_scene(stills) for _ in range(size.faces)]
        _write_faces(side.faces, identity, scenes, advance)
        _write_clip(side, identity, clip_scenes(moving, size.clip_frames, FRAME_RATE), advance)
    return written


def held_out_pairs(seed: int, size: DataSize) -> list[tuple[Drawing, Drawing]]:
    """Scenes that `write_dataset` does not use, each drawn as A and as B: questions with their right answers."""
    rng = _streams(seed)[4]
    a, b = IDENTITIES
    scenes = [random_scene(rng) for _ in range(size.held_out)]
    return [(draw(a, scene, *_FRAME), draw(b, scene, *_FRAME)) for scene in scenes]


def _streams(seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)]


def _write_faces(folder: Path, identity: Identity, scenes: list[Scene], advance: Advance) -> None:
    drawings = []
    for scene in scenes:
        drawings.append(draw(identity, scene, *_FRAME))
        advance()
    for number, (drawing, face) in enumerate(zip(drawings, _aligned(drawings), strict=True), start=1):
        stem = f"{identity.name.lower()}_{number:06d}"
        record = _record(drawing, face, thumb=None)
        source = FaceSource(
            original_filename=f"{stem}_0.png",
            source_filename=f"{stem}.png",
            source_frame_dims=_FRAME,
        )
        image = warp_crop(drawing.frame, face.adjusted_matrix(FACE_SIZE, "head", 1.0), FACE_SIZE)
        write_face(folder / f"{stem}_0.png", image, FaceHeader(record, source))


def _write_clip(side: SideData, identity: Identity, scenes: list[Scene], advance: Advance) -> None:
    drawings = []
    for scene in scenes:
        drawings.append(draw(identity, scene, *_CLIP_FRAME))
        advance()
    _encode(side.clip, [drawing.frame for drawing in drawings])
    frames = {}
    for number, (drawing, face) in enumerate(zip(drawings, _aligned(drawings), strict=True), start=1):
        head = warp_crop(drawing.frame, face.adjusted_matrix(_THUMB_SIZE, "head", 1.0), _THUMB_SIZE)
        thumb = encode_image(head, ".jpg", [])
        frames[f"{side.clip.stem}_{number:06d}{side.clip.suffix}"] = [_record(drawing, face, thumb)]
    write_alignments(side.alignments, Alignments(frames))


def _aligned(drawings: list[Drawing]) -> list[AlignedFace]:
    return align_many([drawing.landmarks for drawing in drawings])


def _record(drawing: Drawing, face: AlignedFace, thumb: bytes | None) -> FaceRecord:
    low = np.floor(drawing.landmarks.min(axis=0)).astype(int)
    high = np.ceil(drawing.landmarks.max(axis=0)).astype(int)
    matrix = face.adjusted_matrix(_MASK_SIZE, "face", 1.0)
    mask = StoredMask.from_pixels(warp_crop(drawing.mask, matrix, _MASK_SIZE), matrix, "face")
    return FaceRecord(
        x=int(low[0]),
        y=int(low[1]),
        w=int(high[0] - low[0]),
        h=int(high[1] - low[1]),
        landmarks=drawing.landmarks,
        masks={_MASK_NAME: mask},
        thumb=thumb,
    )


def _encode(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """Write an H.264 video that looks like its frames (constant quality 16)."""
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "16", "preset": "fast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAME_RATE)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode(None))
