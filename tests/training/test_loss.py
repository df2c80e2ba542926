"""Combining loss functions, weights and masks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from fsdeploy.config.training import LossOptions
from fsdeploy.errors import ConfigError
from fsdeploy.training.loss import BatchLoss, LossCollator


def waves(size: int) -> tuple[Tensor, Tensor]:
    n, c, i, j = np.meshgrid(range(2), range(3), range(size), range(size), indexing="ij")
    true = 0.5 + 0.5 * np.sin(0.37 * (i + 1) + 0.23 * (j + 1) * (c + 1) + 1.1 * n)
    pred = np.clip(0.9 * true + 0.05 + 0.04 * np.cos(0.51 * (i + 1) * (c + 1) - 0.19 * (j + 1) + 0.7 * n), 0, 1)
    return torch.from_numpy(true).float(), torch.from_numpy(pred).float()


def circle(size: int, cy: float, cx: float, radius: float) -> Tensor:
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")
    inside = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    return torch.from_numpy(inside).float().expand(2, 1, size, size)


def masks(*sizes: int, eye: bool = True, mouth: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        mask_face=[circle(size, 0.5, 0.5, 0.4) for size in sizes],
        mask_eye=[circle(size, 0.4, 0.35, 0.1) for size in sizes] if eye else None,
        mask_mouth=[circle(size, 0.7, 0.5, 0.12) for size in sizes] if mouth else None,
    )


NO_MASKS = SimpleNamespace(mask_face=None, mask_eye=None, mask_mouth=None)


def collator(functions: list[str], weights: list[float] | None = None, **changes: object) -> LossCollator:
    settings = {"use_mask": True, "eye_multiplier": 3, "mouth_multiplier": 2, "smallest_output": 64} | changes
    return LossCollator(functions, weights or [1.0] * len(functions), "bgr", **settings)


def test_the_masks_have_the_pixel_counts_of_the_known_case() -> None:
    meta = masks(64)
    counts = [int(m[0][0].sum()) for m in (meta.mask_face, meta.mask_eye, meta.mask_mouth)]
    assert counts == [2056, 131, 184]


def test_ssim_and_mse_inside_the_face_with_heavier_eyes_and_mouth() -> None:
    true, pred = waves(64)
    loss = collator(["ssim", "mse"])([true], [pred], masks(64))
    assert loss.weighted[0]["ssim"].tolist() == pytest.approx([0.0113199, 0.0115308], rel=1e-4)
    assert loss.weighted[0]["mse"].tolist() == pytest.approx([0.00139465, 0.00140010], rel=1e-5)
    assert loss.total.item() == pytest.approx(0.012822714, rel=1e-4)


def test_without_mask_the_multipliers_have_no_effect() -> None:
    true, pred = waves(64)
    loss = collator(["ssim", "mse"], use_mask=False)([true], [pred], masks(64))
    assert loss.total.item() == pytest.approx(0.019291896, rel=1e-4)


def test_three_functions_and_a_learned_mask() -> None:
    true, pred = waves(64)
    meta = masks(64)
    face = meta.mask_face[0]
    loss = collator(["ssim", "mse", "laploss"], [1.0, 0.5, 0.25], mask_loss="mse")(
        [true, face], [pred, 0.9 * face + 0.05], meta
    )
    assert loss.unweighted[0]["laploss"].tolist() == pytest.approx([0.01044425, 0.01045475], rel=1e-5)
    assert loss.weighted[0]["laploss"].tolist() == pytest.approx([0.01044425 / 4, 0.01045475 / 4], rel=1e-5)
    assert loss.mask is not None
    assert loss.mask.tolist() == pytest.approx([0.0025, 0.0025], rel=1e-4)
    assert loss.total.item() == pytest.approx(0.017236404, rel=1e-4)


def test_a_function_given_twice_keeps_its_last_weight() -> None:
    true, pred = waves(64)
    loss = collator(["mse", "mse"], [1.0, 0.25])([true], [pred], masks(64))
    assert loss.total.item() == pytest.approx(0.00034934341, rel=1e-5)


def test_every_output_size_counts_equally() -> None:
    (true_s, pred_s), (true, pred) = waves(32), waves(64)
    loss = collator(["mae"], smallest_output=32)([true_s, true], [pred_s, pred], masks(32, 64))
    assert loss.weighted[0]["mae"].tolist() == pytest.approx([0.02619599, 0.02582035], rel=1e-5)
    assert loss.weighted[1]["mae"].tolist() == pytest.approx([0.02541297, 0.02540961], rel=1e-5)
    assert loss.total.item() == pytest.approx(0.051419463, rel=1e-5)


def test_the_mouth_counts_when_the_eyes_are_switched_off() -> None:
    true, pred = waves(64)
    loss = collator(["mae"], eye_multiplier=1)([true], [pred], masks(64, eye=False))
    assert loss.weighted[0]["mae"].tolist() == pytest.approx([0.02191973, 0.02191460], rel=1e-5)


def test_the_frequency_loss_is_masked_on_the_images() -> None:
    true, pred = waves(64)
    loss = collator(["ffl"], eye_multiplier=1, mouth_multiplier=1)([true], [pred], masks(64))
    assert loss.weighted[0]["ffl"].tolist() == pytest.approx([0.00064553571, 0.00063690101], rel=1e-5)


def test_the_largest_difference_is_taken_inside_each_area() -> None:
    true, pred = waves(64)
    meta = masks(64)
    expected = 0.0
    for factor, area in ((1, meta.mask_face[0]), (3, meta.mask_eye[0]), (2, meta.mask_mouth[0])):
        expected = expected + factor * ((true - pred) * area).abs().amax((2, 3)).mean(1)
    loss = collator(["l_inf_norm"])([true], [pred], meta)
    assert loss.weighted[0]["l_inf_norm"].tolist() == pytest.approx(expected.tolist())


def test_functions_without_name_or_weight_are_dropped() -> None:
    assert list(collator(["mae", "none", "", "mse"], [1.0, 1.0, 1.0, 0.0]).weights) == ["mae"]
    with pytest.raises(ConfigError, match="no loss function"):
        collator(["mae"], [0.0])


def test_as_many_weights_as_functions_are_needed() -> None:
    with pytest.raises(ConfigError, match="2 loss functions"):
        collator(["mae", "mse"], [1.0])


def test_images_too_small_for_a_function_are_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"ms_ssim.*48 px.*32"):
        collator(["ms_ssim"], smallest_output=32)


def test_options_give_weights_in_percent() -> None:
    options = LossOptions(loss_function="mae", loss_weight_2=50, loss_function_3="ssim", loss_weight_3=400)
    made = LossCollator.from_options(options, "bgr", 64, learn_mask=True)
    assert made.weights == {"mae": 1.0, "mse": 0.5, "ssim": 4.0}
    assert made.mask_function is not None


def test_both_sides_at_once_give_the_same_loss_as_one_after_the_other() -> None:
    (true_a, pred_a), (pred_b, true_b) = waves(64), waves(64)
    meta = masks(64)
    made = collator(["ssim", "ffl", "l_inf_norm"], mask_loss="mae")
    face = meta.mask_face[0]
    alone = [made([t, face], [p, face * 0.5], meta) for t, p in ((true_a, pred_a), (true_b, pred_b))]

    def pair(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([a, b], dim=1).flatten(0, 1)

    both = SimpleNamespace(**{name: [pair(v, v) for v in values] for name, values in vars(meta).items()})
    joint = made([pair(true_a, true_b), pair(face, face)], [pair(pred_a, pred_b), pair(face, face) * 0.5], both).split(
        2
    )
    for one, two in zip(alone, joint, strict=True):
        assert torch.allclose(one.total, two.total, rtol=1e-6)
        assert torch.allclose(one.weighted[0]["ffl"], two.weighted[0]["ffl"], rtol=1e-5)


def test_half_precision_predictions_are_compared_in_float32() -> None:
    true, pred = waves(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = collator(["ssim", "mse"])([true], [pred.bfloat16()], masks(64))
    assert loss.total.dtype == torch.float32


def test_a_batch_loss_sums_means_and_lets_go_of_its_graph() -> None:
    values = torch.tensor([1.0, 3.0], requires_grad=True)
    loss = BatchLoss([{"mae": values}], [{"mae": values * 0.5}], mask=torch.tensor([0.5, 1.5]))
    assert loss.total.item() == 2.0
    loss.total.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.25, 0.25]
    assert loss.to_cpu() is loss
    assert not loss.total.requires_grad
    assert not loss.weighted[0]["mae"].requires_grad


def test_loss_buffers_move_with_the_module_but_are_not_saved() -> None:
    made = collator(["ssim", "flip", "gmsd"])
    assert not made.state_dict()
    assert made.double().functions["ssim"].kernel.dtype == torch.float64
