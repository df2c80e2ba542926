"""Batches: shapes, colour order, masks by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsdeploy.config.training import AugmentationOptions, LossOptions, MaskOptions, TrainingOptions
from fsdeploy.errors import ConfigError
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.data.collate import BatchMeta, Collate
from fsdeploy.training.data.masks import mask_names

STILL = AugmentationOptions(zoom_amount=0, rotation_range=0, shift_range=0)
PLAIN = TrainConfig((), 3, augment_color=False, flip=False, warp=False)


def samples(count=3, identities=2, size=32, masks=3):
    """Every image has a level of its own in every channel."""
    data = []
    for item in range(count):
        crops = np.zeros((identities, size, size, 3 + masks), np.uint8)
        for identity in range(identities):
            crops[identity] = 100 * identity + 10 * item + np.arange(3 + masks)
        data.append((crops, np.full(identities, item, np.int64)))
    return data


def test_a_batch_is_channels_first_float32_per_identity_and_output():
    collate = Collate(16, (8, 32), "bgr", PLAIN, options=TrainingOptions(augmentation=STILL))
    feeds, targets, meta = collate(samples())
    assert [tuple(feed.shape) for feed in feeds] == [(3, 3, 16, 16)] * 2
    assert [tuple(target.shape) for target in targets] == [(3, 2, 3, 8, 8), (3, 2, 3, 32, 32)]
    for masks in (meta.mask_face, meta.mask_eye, meta.mask_mouth):
        assert [tuple(mask.shape) for mask in masks] == [(3, 2, 1, 8, 8), (3, 2, 1, 32, 32)]
    assert all(tensor.dtype == torch.float32 for tensor in [*feeds, *targets])


def test_every_image_ends_up_at_its_place_in_the_models_colour_order():
    for order, channels in (("bgr", [0, 1, 2]), ("rgb", [2, 1, 0])):
        feeds, targets, meta = Collate(16, (32,), order, PLAIN, options=TrainingOptions(augmentation=STILL))(samples())
        for identity in range(2):
            for item in range(3):
                level = 100 * identity + 10 * item
                expected = (np.float32(level) + np.float32(channels)) / np.float32(255)
                np.testing.assert_array_equal(targets[0][item, identity, :, 5, 6], expected)
                np.testing.assert_array_equal(feeds[identity][item, :, 5, 6], expected)
                assert meta.mask_face[0][item, identity, 0, 3, 3] == np.float32(level + 3) / np.float32(255)
                assert meta.mask_mouth[0][item, identity, 0, 3, 3] == np.float32(level + 5) / np.float32(255)


@pytest.mark.parametrize("identities", [1, 2, 3])
def test_any_number_of_identities_can_be_collated(identities):
    feeds, targets, meta = Collate(32, (32,), "bgr", PLAIN)(samples(identities=identities))
    assert len(feeds) == identities
    assert targets[0].shape[1] == meta.mask_eye[0].shape[1] == identities


def test_a_mouth_mask_without_an_eye_mask_is_filed_under_mouth():
    options = TrainingOptions(loss=LossOptions(eye_multiplier=1, mouth_multiplier=2), augmentation=STILL)
    assert mask_names(options) == ("face", "mouth")
    _, _, meta = Collate(32, (32,), "bgr", PLAIN, options=options)(samples(masks=2))
    assert meta.mask_eye is None
    assert meta.mask_mouth[0][0, 0, 0, 0, 0] == np.float32(4) / np.float32(255)


def test_a_learned_mask_is_the_last_target_at_the_last_outputs_size():
    options = TrainingOptions(
        mask=MaskOptions(learn_mask=True), loss=LossOptions(penalized_mask_loss=False), augmentation=STILL
    )
    assert mask_names(options) == ("face",)
    _, targets, meta = Collate(32, (16, 32), "bgr", PLAIN, options=options)(samples(masks=1))
    assert len(targets) == 3
    assert tuple(targets[-1].shape) == (3, 2, 1, 32, 32)
    torch.testing.assert_close(targets[-1], meta.mask_face[-1])


def test_a_run_without_masks_has_none():
    options = TrainingOptions(mask=MaskOptions(mask_type="none"), loss=LossOptions(penalized_mask_loss=False))
    _, targets, meta = Collate(32, (32,), "bgr", PLAIN, options=options)(samples(masks=0))
    assert (meta.mask_face, meta.mask_eye, meta.mask_mouth) == (None, None, None)
    assert meta[1].mask_face is None
    assert len(targets) == 1


@pytest.mark.parametrize(
    "options",
    [
        TrainingOptions(mask=MaskOptions(mask_type="none")),
        TrainingOptions(
            mask=MaskOptions(mask_type="none", learn_mask=True), loss=LossOptions(penalized_mask_loss=False)
        ),
    ],
)
def test_mask_type_none_is_refused_where_a_mask_is_needed(options):
    with pytest.raises(ConfigError, match="mask_type"):
        Collate(32, (32,), "bgr", PLAIN, options=options)


def test_masks_of_one_identity_can_be_taken_out_and_moved():
    mask = torch.rand(4, 2, 1, 8, 8)
    meta = BatchMeta(mask_face=[mask, mask[..., :4, :4]])
    one = meta[1]
    assert [tuple(entry.shape) for entry in one.mask_face] == [(4, 1, 8, 8), (4, 1, 4, 4)]
    torch.testing.assert_close(one.mask_face[0], mask[:, 1])
    assert meta.to("cpu") is meta
    assert meta.to("meta").mask_face[0].device.type == "meta"


def test_the_feed_is_warped_but_target_and_masks_are_not():
    config = TrainConfig((), 3, augment_color=False, flip=False, warp=True)
    data = samples(size=64)
    for crops, _ in data:
        crops[..., :3] = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3))
    feeds, targets, meta = Collate(64, (64,), "bgr", config, options=TrainingOptions(augmentation=STILL))(data)
    expected = np.stack([crops for crops, _ in data])[..., :3].transpose(0, 1, 4, 2, 3) / np.float32(255)
    np.testing.assert_array_equal(targets[0], expected.astype(np.float32))
    assert (feeds[0] - targets[0][:, 0]).abs().mean() > 0.05
    assert (meta.mask_face[0][1, 1] == np.float32(113) / np.float32(255)).all()
