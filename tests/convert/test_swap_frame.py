"""The swap of one frame: the face lands where it was, whatever the model's sizes, offset and centering."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from drawn import colour_model, spec_frame, spec_landmarks

from fsdeploy.convert.landmarks import read_landmarks
from fsdeploy.convert.settings import Choice, build_look
from fsdeploy.convert.swap import blend_faces, crop_faces, swap_frame
from fsdeploy.errors import InputError
from fsdeploy.faces.records import FaceRecord
from fsdeploy.runtime import Swapper

FRAME = cv2.GaussianBlur(spec_frame(), (0, 0), 2)


def record(points: np.ndarray) -> FaceRecord:
    return FaceRecord(0, 0, 10, 10, points.astype(np.float32), {}, {}, None, {})


FACE = record(spec_landmarks())


def look(**chosen):
    return build_look(Choice(**{"color": "none", **chosen}))


@pytest.mark.parametrize("offset", [0.0, 0.1, -0.2])
@pytest.mark.parametrize(("size", "output"), [(64, 64), (64, 128), (64, 256), (128, 64)])
@pytest.mark.parametrize("centering", ["face", "head", "legacy"])
def test_a_model_that_changes_nothing_leaves_the_frame_as_it_is(tmp_path, centering, size, output, offset) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=size, output=output, centering=centering,
                                 vertical_offset=offset))  # fmt: skip
    out = swap_frame(FRAME, [FACE], model, look(mask="none"))
    changed = (out != FRAME).any(-1)
    error = np.abs(out.astype(float) - FRAME)[changed].mean() if changed.any() else 0.0
    assert error < (0.9 if min(size, output) == 64 else 0.5)
    assert np.abs(out.astype(int) - FRAME).mean() < 0.3


def test_white_faces_on_a_black_frame_show_the_mask_once(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=128, output=128, invert=True))
    black = np.zeros_like(FRAME)
    faces = crop_faces(black, [FACE], model)
    swapped, _ = model.swap(np.stack([face.feed for face in faces]))
    opaque = blend_faces(black, faces, swapped, None, model, look()).image
    alpha = blend_faces(black, faces, swapped, None, model, look(), want_alpha=True).alpha
    assert alpha is not None
    np.testing.assert_allclose(opaque[..., 0].astype(int), alpha.astype(int), atol=1)
    assert alpha.max() == 255 and alpha[0, 0] == 0


def test_transparent_faces_laid_over_the_frame_give_what_pasting_gives(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64, invert=True))
    both = [FACE, record(spec_landmarks((560, 300), 120, -15))]
    faces = crop_faces(FRAME, both, model)
    swapped, _ = model.swap(np.stack([face.feed for face in faces]))
    pasted = blend_faces(FRAME, faces, swapped, None, model, look()).image
    cut = blend_faces(FRAME, faces, swapped, None, model, look(), want_alpha=True)
    assert cut.alpha is not None
    weight = cut.alpha[..., None] / 255.0
    over = cut.image * weight + FRAME * (1.0 - weight)
    np.testing.assert_allclose(over, pasted, atol=1.6)


def test_white_faces_on_a_white_frame_leave_no_fringe(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64))
    white = np.full_like(FRAME, 255)
    for mask in ("none", "extended", "components"):
        assert swap_frame(white, [FACE], model, look(mask=mask)).min() >= 254


def test_a_mask_of_none_fades_to_nothing_at_the_border_of_the_patch(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64, invert=True))
    flat = np.full_like(FRAME, 100)
    out = swap_frame(flat, [FACE], model, look(mask="none")).astype(int)
    assert np.abs(np.diff(out[..., 0], axis=1)).max() < 40  # a hard edge would jump by 55
    assert out[270, 480, 0] == 155


def test_the_nearest_face_lies_on_top(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64))
    frame = np.zeros_like(FRAME)
    frame[:, :480], frame[:, 480:] = 60, 200
    small, large = record(spec_landmarks((450, 270), 100, 0)), record(spec_landmarks((520, 270), 200, 0))
    look_none = look()
    first = swap_frame(frame, [small, large], model, look_none)
    second = swap_frame(frame, [large, small], model, look_none)
    np.testing.assert_array_equal(first, second)


def test_a_face_half_outside_the_frame_is_pasted_where_it_is_visible(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64, gain=(0.5, 0.5, 0.5)))
    frame = np.full((200, 200, 3), 200, np.uint8)
    out = swap_frame(frame, [record(spec_landmarks((5, 100), 80, 0))], model, look())
    assert out[100, 5, 0] < 120 and (out[:, 120:] == 200).all()
    gone = swap_frame(frame, [record(spec_landmarks((-900, 100), 80, 0))], model, look())
    assert (gone == 200).all()


def test_faces_of_98_points_are_swapped_like_those_of_68(tmp_path) -> None:
    from fsdeploy.faces.landmarks import INDICES_98_TO_68

    model = Swapper(colour_model(tmp_path / "m.onnx", size=64, gain=(0.5, 0.5, 0.5)))
    many = np.full((98, 2), 300.0, np.float32)
    many[np.asarray(INDICES_98_TO_68)] = FACE.landmarks
    np.testing.assert_array_equal(
        swap_frame(FRAME, [record(many)], model, look()), swap_frame(FRAME, [FACE], model, look())
    )


def test_four_corners_are_enough_without_a_drawn_mask(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64, gain=(0.5, 0.5, 0.5)))
    corners = record(np.array([(400, 200), (560, 200), (560, 360), (400, 360)], np.float32))
    out = swap_frame(FRAME, [corners], model, look(mask="none"))
    assert out[280, 480, 0] < FRAME[280, 480, 0] * 0.6
    with pytest.raises(InputError, match="none of the masks"):
        swap_frame(FRAME, [corners], model, look(mask="extended"))


def test_the_mask_of_the_model_is_used_and_another_where_it_has_none(tmp_path) -> None:
    masked = Swapper(colour_model(tmp_path / "a.onnx", size=64, invert=True, mask=True))
    plain = Swapper(colour_model(tmp_path / "b.onnx", size=64, invert=True))
    dark = np.full_like(FRAME, 51)  # inverted: 0.8, which is the model's mask, too
    out = swap_frame(dark, [FACE], masked, look(mask="predicted"))
    assert out[270, 480, 0] == pytest.approx(0.8 * 204 + 0.2 * 51, abs=2)
    faces = crop_faces(dark, [FACE], plain)
    swapped, predicted = plain.swap(np.stack([face.feed for face in faces]))
    blended = blend_faces(dark, faces, swapped, predicted, plain, look(mask="predicted"))
    assert blended.notes == ("no mask 'predicted' for a face: 'extended' was used",)


def test_a_larger_face_covers_more_and_a_sharper_one_keeps_its_place(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64, gain=(0.3, 0.3, 0.3)))
    area = [(swap_frame(FRAME, [FACE], model, look(face_scale=scale)) != FRAME).any(-1).sum() for scale in (-10, 0, 10)]
    assert area[0] < area[1] < area[2]
    assert area[2] / area[1] == pytest.approx(1 / 0.9**2, rel=0.05)
    sharp = swap_frame(FRAME, [FACE], model, look(sharpen="unsharp-mask"))
    near = cv2.dilate((swap_frame(FRAME, [FACE], model, look()) != FRAME).any(-1).astype(np.uint8), np.ones((5, 5)))
    assert not (sharp != FRAME).any(-1)[near == 0].any()


def test_the_frame_given_is_never_changed(tmp_path) -> None:
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64, gain=(0.3, 0.3, 0.3)))
    before = FRAME.copy()
    swap_frame(FRAME, [FACE], model, look())
    np.testing.assert_array_equal(FRAME, before)


def test_large_faces_are_averaged_down_not_sampled(tmp_path) -> None:
    """A one-pixel checkerboard is grey from afar; single samples of it would be black and white."""
    model = Swapper(colour_model(tmp_path / "m.onnx", size=64))
    y, x = np.mgrid[:1000, :1000]
    board = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, -1)
    feed = crop_faces(board, [record(spec_landmarks((500, 500), 400, 7))], model)[0].feed
    assert np.abs(feed[8:-8, 8:-8].astype(int) - 127).max() < 30


def test_converting_never_loads_torch(tmp_path, dimmer) -> None:
    faces = tmp_path / "l.json"
    faces.write_text('{"0": []}')
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "1.png"), np.zeros((40, 40, 3), np.uint8))
    code = (
        "import sys; from fsdeploy.cli import cli; "
        f"cli(['convert', '-m', {str(dimmer)!r}, '-i', {str(tmp_path / 'in')!r}, '-o', {str(tmp_path / 'o')!r}, "
        f"'-l', {str(faces)!r}], standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_landmarks(faces).by_index
