"""The torch path against OpenCV, and both paths against each other on the same random numbers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fsdeploy.config.training import AugmentationOptions, LoaderOptions, TrainingOptions
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.data import device, device_colour
from fsdeploy.training.data.loader import TrainLoader


def smooth_image(size, seed=0):
    random = np.random.default_rng(seed)
    image = cv2.resize(random.integers(0, 256, (9, 9, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(image.astype(int) + random.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)


def to_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def test_float_lab_agrees_with_opencvs_8_bit_routine():
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    lab = device_colour.bgr_to_lab(to_tensor(image))[0].permute(1, 2, 0).numpy()
    difference = np.abs(lab - cv2.cvtColor(image, cv2.COLOR_BGR2LAB))
    assert difference.mean() < 0.3
    assert difference.max() < 2.2


def test_float_lab_agrees_with_opencvs_float_routine():
    image = np.random.default_rng(1).random((100, 100, 3), np.float32)
    lab = device_colour.bgr_to_lab(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)  # L 0..100, a and b centred on 0
    np.testing.assert_allclose(lab / [2.55, 1, 1] - [0, 128, 128], expected, atol=0.6)  # OpenCV interpolates tables


def test_lab_and_back_is_lossless_within_srgb():
    faces = torch.from_numpy(np.random.default_rng(2).random((2, 3, 40, 40), np.float32))
    back = device_colour.lab_to_bgr(device_colour.bgr_to_lab(faces))
    assert (back - faces).abs().max() < 1e-3  # the standard's two branches do not meet exactly


@pytest.mark.parametrize(("size", "tiles"), [(64, 2), (64, 3), (64, 5), (128, 6), (97, 4), (256, 4)])
def test_contrast_equalisation_agrees_with_opencv(size, tiles):
    levels = smooth_image(size, tiles)[..., 1]
    expected = cv2.createCLAHE(2.0, (tiles, tiles)).apply(levels).astype(int)
    result = device_colour.clahe(torch.from_numpy(levels)[None].float(), tiles)[0].numpy()
    difference = np.abs(result - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize(("size", "edge"), [(128, 64), (128, 32), (96, 64), (130, 97)])
def test_shrinking_is_an_area_average(size, edge):
    image = smooth_image(size)
    expected = cv2.resize(image.astype(np.float32), (edge, edge), interpolation=cv2.INTER_AREA)
    result = device.shrink(to_tensor(image) * 255, edge)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(result, expected, atol=0.02)


def test_sampling_agrees_with_opencvs_remap():
    size = 80
    image = smooth_image(size)
    y, x = np.mgrid[0:size, 0:size]
    places = np.stack([x + 7 * np.sin(y / 9), y + 5 * np.cos(x / 11)]).astype(np.float32)
    expected = cv2.remap(image, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result = device.sample(to_tensor(image), torch.from_numpy(places)[None])[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(result - expected).max() < 4.5  # OpenCV 4 places samples on a grid of 1/32 pixel


CASES = {
    "geometry alone": ({"augment_color": False}, {}, 0.3, 2),
    "no variation but transform": ({"augment_color": False, "warp": False, "flip": False}, {}, 0.3, 2),
    "warp to landmarks": ({"augment_color": False, "cache_landmarks": True}, {}, 0.3, 2),
    "colour shifts": ({}, {"color_clahe_chance": 0}, 1.5, 16),
    # a level that falls into the next bin moves a whole table: single pixels differ more
    "contrast": ({}, {"color_clahe_chance": 75}, 3.0, 40),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("input_size", "outputs"), [(64, (64,)), (48, (32, 96))])
def test_both_paths_make_the_same_batch(folder_a, folder_b, case, input_size, outputs):
    """Tolerance in levels of 255: mean, and 99.9 % of the pixels."""
    flags, ranges, mean, nearly_all = CASES[case]
    config = TrainConfig((folder_a, folder_b), 6, **flags)
    options = TrainingOptions(loader=LoaderOptions(num_processes=0), augmentation=AugmentationOptions(**ranges))
    batches = [
        next(TrainLoader(input_size, outputs, "rgb", config, options=options, augment_on=path, seed=4))
        for path in ("cpu", "device")
    ]
    (feeds, targets, meta), (feeds_2, targets_2, meta_2) = batches
    for a, b in [*zip(feeds, feeds_2, strict=True), *zip(targets, targets_2, strict=True)]:
        assert a.shape == b.shape
        difference = (a - b).abs().flatten().numpy() * 255
        assert difference.mean() < mean
        assert np.quantile(difference, 0.999) < nearly_all
    for name in ("mask_face", "mask_eye", "mask_mouth"):
        for a, b in zip(getattr(meta, name), getattr(meta_2, name), strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().mean() * 255 < 0.3
            assert (a - b).abs().max() * 255 < 4
