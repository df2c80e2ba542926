"""The data set on disk is what a user's own would be: faces with headers, clips, alignments."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from fsdeploy.demo.dataset import FACE_SIZE, DataSize, SideData, held_out_pairs, write_dataset
from fsdeploy.demo.identities import IDENTITY_A
from fsdeploy.demo.render import draw
from fsdeploy.demo.scene import random_scene
from fsdeploy.faces.aligned import AlignedFace
from fsdeploy.faces.alignments import read_alignments
from fsdeploy.faces.masks import landmark_mask
from fsdeploy.faces.png import read_face
from fsdeploy.files import sha256

SMALL = DataSize(faces=4, clip_frames=6, held_out=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[SideData, SideData]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_dataset(folder, 7, SMALL)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_the_same_seed_writes_the_same_faces_and_another_seed_others(written, tmp_path):
    _, (a, _) = written
    again, _ = write_dataset(tmp_path / "again", 7, SMALL)
    other, _ = write_dataset(tmp_path / "other", 8, SMALL)
    digests = [[sha256(path) for path in sorted(side.faces.iterdir())] for side in (a, again, other)]
    assert len(digests[0]) == SMALL.faces
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])


def test_every_face_file_carries_its_header_landmarks_and_mask(written):
    for side in written[1]:
        for path in sorted(side.faces.iterdir()):
            image, header = read_face(path)
            assert image.shape == (FACE_SIZE, FACE_SIZE, 3)
            assert header.source.alignments_version == 2.4
            assert header.source.source_frame_dims == (256, 256)
            assert header.source.original_filename == path.name
            assert header.face.landmarks.shape == (68, 2)
            mask = header.face.masks["custom_face"]
            assert (mask.stored_size, mask.stored_centering) == (128, "face")


def test_the_header_s_landmarks_are_bit_for_bit_those_of_the_drawing(written):
    scenes = np.random.SeedSequence(7).spawn(5)
    drawing = draw(IDENTITY_A, random_scene(np.random.default_rng(scenes[0])), 256, 256)
    _, header = read_face(sorted(written[1][0].faces.iterdir())[0])
    assert np.array_equal(header.face.landmarks, drawing.landmarks)


def test_the_face_image_shows_the_head_where_its_landmarks_say(written):
    image, header = read_face(sorted(written[1][0].faces.iterdir())[0])
    face = AlignedFace.from_landmarks(header.face.landmarks)
    points = face.aligned_landmarks(FACE_SIZE, "head", 1.0)
    for eye in (points[36:42], points[42:48]):
        x, y = np.round(eye.mean(axis=0)).astype(int)
        assert image[y - 2 : y + 3, x - 2 : x + 3].min() < 60  # the pupil is the darkest spot of an eye


def test_the_stored_mask_agrees_with_the_mask_drawn_from_landmarks(written):
    for side in written[1]:
        _, header = read_face(sorted(side.faces.iterdir())[1])
        face = AlignedFace.from_landmarks(header.face.landmarks)
        drawn = landmark_mask("components", face.aligned_landmarks(128, "face", 1.0), 128)
        stored = header.face.masks["custom_face"].decompress()
        # "components" ends at the brows, the stored mask at the hair: nearly all of the first lies in the second.
        assert ((drawn > 127) & (stored > 127)).sum() > 0.93 * (drawn > 127).sum()
        assert overlap(drawn > 127, stored > 127) > 0.6


def test_the_clip_has_its_frames_and_an_alignment_for_each(written):
    for side in written[1]:
        with av.open(str(side.clip)) as container:
            frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        alignments = read_alignments(side.alignments, side.clip)
        assert len(frames) == SMALL.clip_frames
        assert list(alignments.frames) == [f"{side.clip.stem}_{n:06d}.mp4" for n in range(1, SMALL.clip_frames + 1)]
        assert all(len(faces) == 1 and len(faces[0].landmarks) == 68 for faces in alignments.frames.values())
        (face,) = alignments.frames[f"{side.clip.stem}_000001.mp4"]
        x, y = np.round(face.landmarks[48:60].mean(axis=0)).astype(int)
        _, green, red = frames[0][y, x].astype(int)
        assert red > green  # lips, in a video that was decoded with the right colours


def test_progress_counts_every_picture(tmp_path):
    calls = []
    write_dataset(tmp_path, 1, DataSize(faces=2, clip_frames=3), lambda: calls.append(1))
    assert len(calls) == 2 * (2 + 3)


def test_held_out_pairs_show_one_scene_as_both_and_none_that_was_written(written):
    pairs = held_out_pairs(7, SMALL)
    assert len(pairs) == SMALL.held_out
    trained = {
        read_face(path)[1].face.landmarks.tobytes() for side in written[1] for path in sorted(side.faces.iterdir())
    }
    for a, b in pairs:
        # One room behind both: the corner is the same picture.
        assert np.array_equal(a.frame[:20, :20], b.frame[:20, :20])
        assert a.landmarks.tobytes() not in trained and b.landmarks.tobytes() not in trained
