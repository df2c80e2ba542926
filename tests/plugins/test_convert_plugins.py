"""Convert plugins: found by entry point, checked options, and the maths each promises."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fsdeploy.convert import plugin
from fsdeploy.convert.plugin import ColorPlugin, MaskEdge, MaskSource, ScalingPlugin, Writer
from fsdeploy.errors import ConfigError, InputError

RNG = np.random.default_rng(5)
COLORS = ["avg-color", "color-transfer", "manual-balance", "match-hist", "mkl", "reinhard", "seamless-clone"]
MATCHING = ["color-transfer", "match-hist", "mkl", "reinhard"]


def face(seed: int = 0, size: int = 64) -> np.ndarray:
    """A smooth picture with texture, (S, S, 3) float32 0.15..0.85."""
    noise = np.random.default_rng(seed).random((8, 8, 3)).astype(np.float32)
    picture = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(0.15 + 0.7 * picture, 0.15, 0.85).astype(np.float32)


def disc(size: int = 64, radius: float = 22) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.clip(radius - np.hypot(x, y) + 0.5, 0, 1).astype(np.float32)


def test_every_plugin_of_the_house_is_found_and_built_with_its_defaults() -> None:
    bases = {"color": (ColorPlugin,), "mask": (MaskSource, MaskEdge), "scaling": (ScalingPlugin,), "writer": (Writer,)}
    for kind, allowed in bases.items():
        for name in plugin.names(kind):
            loaded = plugin.find(kind, name)
            assert issubclass(loaded, allowed), name
            assert loaded.describe()
            loaded()
    assert plugin.names("color") == COLORS
    assert set(plugin.names("mask", MaskSource)) >= {"none", "predicted", "components", "extended", "stored"}
    assert set(plugin.names("writer")) >= {"video", "opencv", "pillow", "gif", "patch"}


def test_an_unknown_plugin_or_option_names_the_nearest() -> None:
    with pytest.raises(InputError, match="reinhard"):
        plugin.find("color", "reinhart")
    with pytest.raises(ConfigError, match="strength"):
        plugin.build("color", "mkl", ColorPlugin, {"strenght": 5})
    with pytest.raises(ConfigError, match=r"0\.0\.\.100\.0"):
        plugin.build("color", "mkl", ColorPlugin, {"strength": 101.0})
    with pytest.raises(InputError, match="cannot be used here"):
        plugin.build("mask", "feather", MaskSource)


@pytest.mark.parametrize("name", COLORS)
def test_a_face_that_fits_already_is_left_as_it_is(name: str) -> None:
    target, mask = face(), disc()
    out = plugin.build("color", name, ColorPlugin)(target, target.copy(), mask)
    assert np.abs(out - target)[mask > 0.5].mean() < 0.02
    assert out.shape == target.shape and out.dtype == np.float32


@pytest.mark.parametrize("name", [*MATCHING, "avg-color"])
def test_the_mean_under_the_mask_becomes_that_of_the_target(name: str) -> None:
    target, swapped, mask = face(1), face(2) * 0.7, disc()
    out = plugin.build("color", name, ColorPlugin)(target, swapped, mask)
    weight = mask[..., None] / mask.sum()
    tolerance = 1e-5 if name == "avg-color" else 0.03
    np.testing.assert_allclose((out * weight).sum((0, 1)), (target * weight).sum((0, 1)), atol=tolerance)


@pytest.mark.parametrize("name", MATCHING)
def test_a_colour_error_that_is_linear_is_taken_back(name: str) -> None:
    target, mask = face(3), disc()
    spoilt = np.clip(target * np.float32([0.8, 1.1, 0.9]) + np.float32([0.05, -0.03, 0.02]), 0, 1)
    before = np.abs(spoilt - target)[mask > 0.5].mean()
    after = np.abs(plugin.build("color", name, ColorPlugin)(target, spoilt, mask) - target)[mask > 0.5].mean()
    assert after < before * (0.2 if name in ("mkl", "match-hist") else 0.5)


@pytest.mark.parametrize("name", COLORS)
def test_what_lies_outside_the_mask_does_not_count(name: str) -> None:
    if name == "seamless-clone":
        pytest.skip("its colours come from the edge of the mask, by design")
    mask = disc()
    target, swapped = face(1), face(2)
    other = np.where(mask[..., None] > 0, target, 0.0).astype(np.float32)
    method = plugin.build("color", name, ColorPlugin)
    difference = np.abs(method(target, swapped, mask) - method(other, swapped, mask))
    assert difference[mask > 0].max() < 0.02


@pytest.mark.parametrize("name", COLORS)
def test_an_empty_mask_is_no_error(name: str) -> None:
    out = plugin.build("color", name, ColorPlugin)(face(1), face(2), np.zeros((64, 64), np.float32))
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", COLORS)
@pytest.mark.parametrize("edges", [(1, 1), (1, 20), (64, 1), (2, 2), (3, 3), (4, 4), (5, 5), (64, 3), (5, 64)])
def test_a_mask_of_a_few_pixels_is_no_error(name: str, edges: tuple[int, int]) -> None:
    mask, (height, width) = np.zeros((64, 64), np.float32), edges
    mask[:height, 64 - width :] = 1.0
    out = plugin.build("color", name, ColorPlugin)(face(1), face(2), mask)
    assert out.shape == (64, 64, 3) and np.isfinite(out).all()


def test_mkl_moves_the_covariance_where_the_gain_allows_it() -> None:
    target, swapped, mask = face(4, 96), face(5, 96), np.ones((96, 96), np.float32)
    out = plugin.build("color", "mkl", ColorPlugin, {"gain_limit": 4.0})(target, swapped, mask)
    wanted, found = np.cov(target.reshape(-1, 3).T), np.cov(out.reshape(-1, 3).T)
    np.testing.assert_allclose(found, wanted, atol=0.15 * np.trace(wanted) / 3)
    half = plugin.build("color", "mkl", ColorPlugin, {"gain_limit": 4.0, "strength": 50.0})(target, swapped, mask)
    np.testing.assert_allclose(half, (out + swapped) / 2, atol=1e-4)


def test_manual_balance_without_balance_changes_nothing_and_brightness_brightens() -> None:
    picture = face(6)
    for space in ("RGB", "HSV", "LAB", "YCrCb"):
        plain = plugin.build("color", "manual-balance", ColorPlugin, {"colorspace": space})(picture, picture, disc())
        np.testing.assert_allclose(plain, picture, atol=2e-3)
    bright = plugin.build("color", "manual-balance", ColorPlugin, {"brightness": 10.0})(picture, picture, disc())
    np.testing.assert_allclose(bright - picture, 13 / 255, atol=1e-3)
    blue = plugin.build("color", "manual-balance", ColorPlugin, {"colorspace": "RGB", "balance_3": -100.0})
    assert blue(picture, picture, disc())[..., 0].max() < 1e-6


@pytest.mark.parametrize("size", [64, 256])
def test_the_feather_is_a_share_of_the_face_and_never_grows_outwards(size: int) -> None:
    mask = disc(size, size * 0.35)
    raw, final = plugin.build("mask", "feather", MaskEdge, {"width": 5.0})(mask, True)
    assert (final <= raw + 1e-6).all() and final[size // 2, size // 2] == 1
    row = final[size // 2]
    soft = ((row > 0.02) & (row < 0.98)).sum() / 2
    assert soft == pytest.approx(0.05 * size, abs=2.0)


@pytest.mark.parametrize("edge", ["feather", "blend"])
def test_the_border_of_the_patch_is_exactly_nothing_for_every_mask(edge: str) -> None:
    for mask, drawn in ((np.ones((64, 64), np.float32), False), (np.ones((64, 64), np.float32), True)):
        _, final = plugin.build("mask", edge, MaskEdge)(mask, drawn)
        assert max(final[0].max(), final[-1].max(), final[:, 0].max(), final[:, -1].max()) == 0
        assert final[32, 32] == 1


@pytest.mark.parametrize(
    ("option", "moved"), [("left", "left"), ("top", "top"), ("right", "right"), ("bottom", "bottom")]
)
def test_erosion_of_one_side_moves_that_side_only(option: str, moved: str) -> None:
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1

    def bounds(percent: float) -> dict[str, int]:
        edge = plugin.build("mask", "feather", MaskEdge, {f"erosion_{option}": percent, "width": 0.0})
        final = edge(mask, True)[1] > 0.5
        rows, columns = np.flatnonzero(final.any(1)), np.flatnonzero(final.any(0))
        return {"top": rows[0], "bottom": rows[-1], "left": columns[0], "right": columns[-1]}

    plain, eroded, grown = bounds(0.0), bounds(50.0), bounds(-50.0)
    inwards = 1 if moved in ("left", "top") else -1
    for side in plain:
        assert (eroded[side] - plain[side]) * inwards == (7 if side == moved else 0)
        assert (grown[side] - plain[side]) * inwards == (-7 if side == moved else 0)


def test_the_threshold_clears_what_is_almost_nothing() -> None:
    mask = np.full((64, 64), 0.03, np.float32)
    mask[20:40, 20:40] = 0.97
    raw, _ = plugin.build("mask", "feather", MaskEdge)(mask, True)
    assert set(np.unique(raw)) == {0.0, 1.0}


@pytest.mark.parametrize("method", ["box", "gaussian", "unsharp_mask"])
def test_sharpening_raises_contrast_at_edges_and_leaves_flat_areas(method: str) -> None:
    step = np.full((64, 64, 3), 0.3, np.float32)
    step[:, 32:] = 0.7
    out = plugin.build("scaling", "sharpen", ScalingPlugin, {"method": method})(step, 6.0)
    assert out[32, 32, 0] > 0.75 and out[32, 31, 0] < 0.25
    np.testing.assert_allclose(out[:, :20], 0.3, atol=1e-5)


def test_the_threshold_of_the_unsharp_mask_spares_small_differences_not_edges() -> None:
    noisy = np.full((64, 64, 3), 0.5, np.float32) + RNG.normal(0, 0.004, (64, 64, 3)).astype(np.float32)
    noisy[:, 32:] += 0.3
    sharpen = plugin.build("scaling", "sharpen", ScalingPlugin, {"threshold": 5.0})
    out = sharpen(noisy, 6.0)
    np.testing.assert_allclose(out[:, :20], noisy[:, :20], atol=1e-6)
    assert out[32, 32, 0] > 0.82


def test_a_third_party_plugin_is_found_like_ours(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "theirs.py").write_text(
        "from fsdeploy.convert.plugin import ColorPlugin\n"
        "class Grey(ColorPlugin):\n"
        "    '''Grey.'''\n"
        "    def __call__(self, target, swapped, mask):\n"
        "        return swapped * 0 + 0.5\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fsdeploy.convert.color]\ngrey = theirs:Grey\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "grey" in plugin.names("color")
    assert (plugin.build("color", "grey", ColorPlugin)(face(), face(), disc()) == 0.5).all()
