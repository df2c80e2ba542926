"""Small models to export: real plugins of two layers, in real model folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsdeploy.config.training import FaceOptions, MaskOptions, TrainingOptions
from fsdeploy.model.base import ModelBase
from fsdeploy.model.network import SharedEncoderNetwork, SwapNetwork
from fsdeploy.model.registry import register


class TinyEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, 2)
        self.dense = nn.Linear(8 * 16 * 16, 48)

    def forward(self, face: Tensor) -> Tensor:
        return self.dense(F.leaky_relu(self.conv(F.pad(face, (1, 2, 1, 2))), 0.1).flatten(1))


class TinyDecoder(nn.Module):
    def __init__(self, learn_mask: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(48, 8 * 16 * 16)
        self.up = nn.Conv2d(8, 32, 3, padding=1)
        self.face_out = nn.Conv2d(8, 3, 5, padding=2)
        self.mask_out = nn.Conv2d(8, 1, 5, padding=2) if learn_mask else None

    def forward(self, code: Tensor) -> list[Tensor]:
        x = F.pixel_shuffle(F.leaky_relu(self.up(self.dense(code).reshape(-1, 8, 16, 16)), 0.1), 2)
        outputs = [torch.sigmoid(self.face_out(x))]
        if self.mask_out is not None:
            outputs.append(torch.sigmoid(self.mask_out(x)))
        return outputs


@register
class TinyModel(ModelBase):
    """32 px, about 0.3 M parameters: the plugin that export tests train nothing with."""

    name = "tiny32"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 32, 32)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        learn = self.training.mask.learn_mask
        return SharedEncoderNetwork(TinyEncoder(), TinyDecoder(learn), TinyDecoder(learn))


@register
class TinyRgbModel(TinyModel):
    """The same with red first, and two faces per side."""

    name = "tiny32_rgb"
    color_order = "rgb"


class LargeEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, 4, 2)

    def forward(self, face: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(face), 0.1)


class LargeDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(8, 128, 3, padding=1)
        self.face_out = nn.Conv2d(8, 3, 5, padding=2)

    def forward(self, code: Tensor) -> list[Tensor]:
        return [torch.sigmoid(self.face_out(F.pixel_shuffle(F.leaky_relu(self.up(code), 0.1), 4)))]


@register
class LargeModel(ModelBase):
    """128 px and few weights: its patch is shrunk on most faces, and full of fine detail as long as it is untrained."""

    name = "tiny128"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 128, 128)

    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SharedEncoderNetwork:
        return SharedEncoderNetwork(LargeEncoder(), LargeDecoder(), LargeDecoder())


def write_model(folder: Path, model: type[ModelBase] = TinyModel, learn_mask: bool = False, **face: object) -> Path:
    """A model folder with seeded weights, strong enough that pictures differ."""
    torch.manual_seed(7)
    training = TrainingOptions(mask=MaskOptions(learn_mask=learn_mask), face=FaceOptions(**face))
    plugin = model(folder, training=training)
    plugin.build()
    with torch.no_grad():
        for parameter in plugin.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.5)
    plugin.io.save(is_exit=True)
    plugin.io.close()
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "masked", learn_mask=True, centering="legacy")


@pytest.fixture(scope="session")
def tiny_rgb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "rgb", TinyRgbModel, learn_mask=True)


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "large", LargeModel, centering="head")


@pytest.fixture(scope="session")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose learned mask is all but zero, whatever it sees."""
    folder = tmp_path_factory.mktemp("models") / "hidden"
    plugin = TinyRgbModel(folder, training=TrainingOptions(mask=MaskOptions(learn_mask=True)))
    plugin.build()
    with torch.no_grad():
        for name, parameter in plugin.model.named_parameters():
            if "mask_out" in name:
                parameter.fill_(-20.0 if parameter.ndim == 1 else 0.0)
    plugin.io.save(is_exit=True)
    plugin.io.close()
    return folder
