"""Learned perceptual similarity (Zhang et al., CVPR 2018) over AlexNet, SqueezeNet 1.1 and VGG-16 features.

The trained weights are not part of this package: they are read from a folder that the user names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fsdeploy.errors import InputError

TrunkName = Literal["alex", "squeeze", "vgg16"]
_NORM_EPSILON = 1e-10
_SCALE = 0.1


@dataclass(frozen=True)
class TrunkSpec:
    """Where a trunk's features are taken and which files hold its weights."""

    taps: tuple[int, ...]
    """Indices of the modules of `features` whose outputs are compared."""
    channels: tuple[int, ...]
    crop: tuple[int, ...]
    """Border in pixels that is cut from each tap's map."""
    smallest: int
    """Least edge of an image in pixels."""
    trunk_files: tuple[str, ...]
    head_files: tuple[str, ...]


TRUNKS: dict[str, TrunkSpec] = {
    "alex": TrunkSpec(
        (1, 4, 7, 9, 10), (64, 192, 384, 256, 256), (2, 2, 1, 1, 1), 63,
        ("alexnet_imagenet_no_top_v2", "alexnet-owt-7be5be79"), ("alexnet_lpips_v2", "alex"),
    ),
    "squeeze": TrunkSpec(
        (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512), (1,) * 7, 49,
        ("squeezenet_imagenet_no_top_v2", "squeezenet1_1-b8a52dc0"), ("squeezenet_lpips_v2", "squeeze"),
    ),
    "vgg16": TrunkSpec(
        (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), (1,) * 5, 48,
        ("vgg16_imagenet_no_top_v2", "vgg16-397923af"), ("vgg16_lpips_v2", "vgg"),
    ),
}  # fmt: skip


class _Fire(nn.Module):
    """SqueezeNet's block: 1 x 1 squeeze, then 1 x 1 and 3 x 3 expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


def _alex_features() -> nn.Sequential:
    pool = nn.MaxPool2d(3, 2)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), pool,
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool,
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
    )  # fmt: skip


def _squeeze_features() -> nn.Sequential:
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool,
        _Fire(64, 16, 64), _Fire(128, 16, 64), pool,
        _Fire(128, 32, 128), _Fire(256, 32, 128), pool,
        _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
    )  # fmt: skip


def _vgg16_features() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2)] if block else []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


_BUILDERS = {"alex": _alex_features, "squeeze": _squeeze_features, "vgg16": _vgg16_features}


class LPIPS(nn.Module):
    """LPIPS map (N, 1, H, W), times 0.1. All its parameters are frozen and it stays in evaluation mode.

    Args:
        trunk: Which network's features are compared.
        weights: Folder with the trunk's and the heads' weights, or None to leave them random (tests only).

    Raises:
        InputError: a weight file is missing, unreadable or of another network.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, trunk: TrunkName, color_order: Literal["bgr", "rgb"], weights: Path | None) -> None:
        super().__init__()
        self.spec = TRUNKS[trunk]
        self.smallest = self.spec.smallest
        self.flip_channels = color_order == "bgr"
        self.features = _BUILDERS[trunk]()
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in self.spec.channels)
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        if weights is not None:
            _fill(self.features, _find(weights, self.spec.trunk_files, trunk))
            _fill(self.heads, _find(weights, self.spec.head_files, trunk))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Stay in evaluation mode: the comparison must not change with the model's mode."""
        return super().train(False)

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        size = true.shape[2:]
        x = torch.cat([true, pred])
        if self.flip_channels:
            x = x.flip(1)
        x = (x * 2.0 - 1.0 - self.mean) / self.deviation
        total: Tensor | None = None
        tap = 0
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index != self.spec.taps[tap]:
                continue
            score = F.interpolate(self._compare(x, tap), size=size, mode="bilinear", align_corners=False)
            total = score if total is None else total + score
            tap += 1
        assert total is not None
        return total * _SCALE

    def _compare(self, features: Tensor, tap: int) -> Tensor:
        unit = features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + _NORM_EPSILON)
        unit_t, unit_p = unit.chunk(2)
        edge = self.spec.crop[tap]
        difference = (unit_t - unit_p).square()[:, :, edge:-edge, edge:-edge]
        head: Tensor = self.heads[tap](difference)
        return head


def _find(folder: Path, stems: tuple[str, ...], trunk: str) -> Path:
    for stem in stems:
        if (folder / f"{stem}.safetensors").is_file():
            return folder / f"{stem}.safetensors"
    pickled = next((folder / f"{stem}.pth" for stem in stems if (folder / f"{stem}.pth").is_file()), None)
    if pickled is not None:
        # A .pth file is a pickle, and fsdeploy builds nothing from one; whoever trusts it can turn it into tensors.
        raise InputError(
            f"{pickled} is a pickle, which is not read: turn it into {pickled.stem}.safetensors by the line that "
            "docs/training.md gives"
        )
    raise InputError(
        f"{folder} holds no {stems[0]}.safetensors or {stems[1]}.safetensors, which loss 'lpips_{trunk}' needs: "
        "download the ImageNet trunk from https://download.pytorch.org/models and the LPIPS v0.1 heads from "
        "https://github.com/richzhang/PerceptualSimilarity (lpips/weights/v0.1), and turn them into .safetensors "
        "(docs/training.md)"
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as loss weights ({type(error).__name__}): download and convert it again"
        ) from error


def _fill(module: nn.Module, path: Path) -> None:
    """Copy tensors from a file into `module`, by name where names agree, else in the file's layer order."""
    found = {name.removeprefix("features."): value for name, value in _read(path).items() if "classifier" not in name}
    wanted = module.state_dict()
    if set(wanted) <= set(found):
        chosen = [found[name] for name in wanted]
    else:
        chosen = (
            [found[name] for name in sorted(found, key=_layer_number)] if _numbered(found) else list(found.values())
        )
    shapes = [tuple(value.shape) for value in wanted.values()]
    if [tuple(value.shape) for value in chosen] != shapes:
        raise InputError(f"{path} holds weights of another network: expected {len(shapes)} tensors of other shapes")
    module.load_state_dict({name: value.float() for name, value in zip(wanted, chosen, strict=True)})


def _layer_number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found.group()) if found else 0


def _numbered(names: dict[str, Tensor]) -> bool:
    numbers = [re.search(r"\d+", name) for name in names]
    return all(numbers) and len({_layer_number(name) for name in names}) == len(names)
