"""Loss functions against values computed elsewhere, and against formulas written out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fsdeploy.errors import ConfigError, InputError
from fsdeploy.training.losses import LPIPS, build_loss
from fsdeploy.training.losses.lpips import TRUNKS


def waves(size: int) -> tuple[Tensor, Tensor]:
    """Two images of smooth waves and their distorted copies, (2, 3, size, size)."""
    n, c, i, j = np.meshgrid(range(2), range(3), range(size), range(size), indexing="ij")
    true = 0.5 + 0.5 * np.sin(0.37 * (i + 1) + 0.23 * (j + 1) * (c + 1) + 1.1 * n)
    pred = np.clip(0.9 * true + 0.05 + 0.04 * np.cos(0.51 * (i + 1) * (c + 1) - 0.19 * (j + 1) + 0.7 * n), 0, 1)
    return torch.from_numpy(true).float(), torch.from_numpy(pred).float()


# Mean of the map per image, from an independent implementation: name, edge, values, relative tolerance.
GOLDEN = [
    ("mae", 64, (0.037247654, 0.037140753), 1e-5),
    ("mae", 128, (0.037187405, 0.037170492), 1e-5),
    ("mse", 64, (0.0020560243, 0.0020476358), 1e-5),
    ("mse", 128, (0.0020514736, 0.0020501574), 1e-5),
    ("logcosh", 64, (0.0010272331, 0.0010230433), 1e-4),
    ("logcosh", 128, (0.00102496, 0.0010243024), 1e-4),
    ("smooth_loss", 64, (0.033808246, 0.033708174), 1e-5),
    ("smooth_loss", 128, (0.033753112, 0.033737123), 1e-5),
    ("ssim", 64, (0.017354462, 0.017125495), 6e-5),
    ("ssim", 128, (0.016892742, 0.016872046), 6e-5),
    ("ms_ssim", 64, (0.0081022177, 0.0084953370), 2e-4),
    ("ms_ssim", 128, (0.0072403527, 0.0073490827), 2e-4),
    ("laploss", 64, (0.015122514, 0.015113741), 1e-5),
    ("laploss", 128, (0.015191409, 0.015192249), 1e-5),
    ("ffl", 64, (0.0014611981, 0.0014607785), 1e-5),
    ("ffl", 128, (0.0014114581, 0.0014146698), 1e-5),
    ("gmsd", 64, (0.026235282, 0.026193440), 1e-5),
    ("l_inf_norm", 64, (0.089965433, 0.089958243), 1e-5),
    ("pixel_gradient_diff", 64, (0.15551864, 0.15555800), 1e-4),
]


@pytest.mark.parametrize(("name", "size", "expected", "tolerance"), GOLDEN)
def test_a_loss_has_its_known_value(name: str, size: int, expected: tuple[float, float], tolerance: float) -> None:
    values = build_loss(name)(*waves(size))
    assert values.reshape(2, -1).mean(1).tolist() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("order", "size", "expected"),
    [
        ("rgb", 64, (0.20829776, 0.20874658)),
        ("rgb", 128, (0.20882329, 0.20883277)),
        ("bgr", 64, (0.21570021, 0.21499860)),
        ("bgr", 128, (0.21583781, 0.21570806)),
    ],
)
def test_flip_has_its_known_value_in_either_colour_order(order: str, size: int, expected: tuple[float, float]) -> None:
    values = build_loss("flip", order)(*waves(size))
    assert values.mean((1, 2, 3)).tolist() == pytest.approx(expected, rel=2e-5)


def invented_weights(loss: LPIPS) -> None:
    """Fill a network with made-up weights that anyone can draw again."""
    for k, tensor in enumerate([*loss.features.state_dict().values(), *loss.heads.state_dict().values()]):
        i = torch.arange(tensor.numel(), dtype=torch.float64)
        if k >= len(loss.features.state_dict()):
            values = 0.1 * torch.sin(i + 1).abs()
        elif tensor.ndim == 1:
            values = 0.01 * torch.sin(i + k)
        else:
            values = torch.sin(0.7 * i + k) * math.sqrt(2.0 / tensor[0].numel())
        tensor.copy_(values.view_as(tensor))


LPIPS_GOLDEN = [
    ("alex", 64, (0.0040491503, 0.0030271437)),
    ("alex", 128, (0.0048112683, 0.0054566469)),
    ("squeeze", 64, (0.0028373932, 0.0033318195)),
    ("squeeze", 128, (0.0034164079, 0.0031891171)),
    ("vgg16", 64, (0.014022891, 0.014341118)),
    ("vgg16", 128, (0.017032824, 0.022415765)),
]


@pytest.mark.parametrize(("trunk", "size", "expected"), LPIPS_GOLDEN)
def test_lpips_with_invented_weights_has_its_known_value(trunk: str, size: int, expected: tuple[float, float]) -> None:
    loss = LPIPS(trunk, "bgr", None)
    invented_weights(loss)
    with torch.no_grad():
        assert loss(*waves(size)).mean((1, 2, 3)).tolist() == pytest.approx(expected, rel=2e-4)


def test_lpips_reads_its_weights_from_the_folder_that_the_user_names(tmp_path: Path) -> None:
    source = LPIPS("alex", "bgr", None)
    invented_weights(source)
    trunk = {f"features.{name}": value.clone() for name, value in source.features.state_dict().items()}
    trunk["classifier.1.weight"] = torch.zeros(2, 2)
    heads = {f"lin{i}.model.1.weight": head.weight.detach().clone() for i, head in enumerate(source.heads)}
    for stem, tensors in zip(("alexnet-owt-7be5be79", "alex"), (trunk, heads), strict=True):
        save_file(tensors, tmp_path / f"{stem}.safetensors")
    loss = build_loss("lpips_alex", "bgr", tmp_path)
    true, pred = waves(64)
    assert torch.equal(loss(true, pred), source(true, pred))


def test_lpips_without_weights_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--loss-weights"):
        build_loss("lpips_vgg16")
    with pytest.raises(InputError, match=r"vgg16-397923af\.safetensors.*https://download\.pytorch\.org"):
        build_loss("lpips_vgg16", "bgr", tmp_path)


def test_lpips_refuses_the_weights_of_another_network_and_damaged_files(tmp_path: Path) -> None:
    name = TRUNKS["alex"].trunk_files[0]
    save_file({"a": torch.zeros(3)}, tmp_path / f"{name}.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "alex.safetensors")
    with pytest.raises(InputError, match="another network"):
        build_loss("lpips_alex", "bgr", tmp_path)
    (tmp_path / f"{name}.safetensors").write_bytes(b"not a file of weights")
    with pytest.raises(InputError, match=f"{name}.*download and convert it again"):
        build_loss("lpips_alex", "bgr", tmp_path)


def test_lpips_never_unpickles_weights_but_says_how_to_convert_them(tmp_path: Path) -> None:
    (tmp_path / f"{TRUNKS['alex'].trunk_files[0]}.pth").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match=r"is a pickle, which is not read.*docs/training\.md"):
        build_loss("lpips_alex", "bgr", tmp_path)


def test_lpips_stays_frozen_and_in_evaluation_mode() -> None:
    loss = nn.ModuleList([LPIPS("squeeze", "rgb", None)]).train()
    assert not any(module.training for module in loss[0].modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())


ALL = ["ffl", "flip", "gmsd", "l_inf_norm", "laploss", "logcosh", "mae", "ms_ssim", "mse", "pixel_gradient_diff",
       "smooth_loss", "ssim"]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_for_equal_black_and_white_images(name: str) -> None:
    loss = build_loss(name)
    for true, pred in ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
        guess = torch.full((1, 3, 64, 64), pred, requires_grad=True)
        loss(torch.full((1, 3, 64, 64), true), guess).sum().backward()
        assert torch.isfinite(guess.grad).all(), (name, true, pred)


@pytest.mark.parametrize("name", ALL)
def test_equal_images_have_no_loss(name: str) -> None:
    true, _ = waves(64)
    # FLIP never takes the root of less than 1e-15, so that its slope stays finite.
    assert build_loss(name)(true, true.clone()).abs().max() < (3e-3 if name == "flip" else 1e-5)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("l_inf_norm", "ffl", "ms_ssim", "laploss", "flip")])
def test_gradients_agree_with_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    true, pred = (torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    loss = build_loss(name).double()
    assert torch.autograd.gradcheck(lambda guess: loss(true, guess).mean(), pred.requires_grad_())


def test_pixel_gradient_diff_looks_along_rows_and_columns_but_not_across_channels() -> None:
    loss = build_loss("pixel_gradient_diff")
    flat = torch.zeros(1, 3, 8, 8)
    tinted = flat + torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)
    assert loss(flat, tinted).abs().max() < 1e-6


def test_ssim_of_two_flat_images_is_the_luminance_term() -> None:
    a, b = 0.2, 0.8
    expected = 1 - (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    values = build_loss("ssim")(torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b))
    assert values.min().item() == pytest.approx(expected, abs=1e-4)
    assert values.max().item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("height", "taps"), [(48, 3), (64, 3), (128, 7), (160, 9), (176, 11), (512, 11)])
def test_ms_ssim_takes_the_largest_odd_window_that_fits_the_coarsest_scale(height: int, taps: int) -> None:
    assert build_loss("ms_ssim").window_size(height) == taps


def test_ffl_of_a_constant_difference_lies_at_frequency_zero() -> None:
    values = build_loss("ffl")(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5))
    # Orthonormal transform of a constant c on n x n: c * n at [0, 0]; weight 1 there.
    assert values[0, 0, 0, 0].item() == pytest.approx((0.5 * 8) ** 2)
    assert values.sum().item() == pytest.approx((0.5 * 8) ** 2)


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'ssim'"):
        build_loss("sssim")
