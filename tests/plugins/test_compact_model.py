"""The compact model: small, of a width that the user chooses, with a mask when asked."""

from __future__ import annotations

import pytest
import torch

from fsdeploy.config.option import from_mapping
from fsdeploy.config.training import MaskOptions, TrainingOptions
from fsdeploy.errors import ConfigError
from fsdeploy.model.registry import model_class

Compact = model_class("compact")


def built(width: int = 24, learn_mask: bool = False):
    training = TrainingOptions(mask=MaskOptions(learn_mask=learn_mask))
    plugin = Compact(None, from_mapping(Compact.Options, {"width": width}), training)
    plugin.build()
    return plugin


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_default_has_about_a_million_parameters():
    network = built().model
    # By hand for width 24. Encoder: 3·24·25+24, 24·48·9+48, 48·96·9+96, 96·96·9+96; 1536·96+96, 96·1536+1536;
    # 96·288·9+288.
    encoder = 1824 + 10416 + 41568 + 83040 + 147552 + 148992 + 249120
    # Decoder: 72·192·9+192, 48·96·9+96, 24·48·9+48, 12·3·25+3.
    decoder = 124608 + 41568 + 10416 + 903
    assert count(network.encoder) == encoder
    assert count(network.decoder_a) == count(network.decoder_b) == decoder
    assert count(network) == encoder + 2 * decoder


@pytest.mark.parametrize("width", [8, 24, 64])
def test_every_width_gives_64_pixel_faces_between_0_and_1(width):
    network = built(width).model
    (face,) = network.swap(torch.rand(2, 3, 64, 64), 1)
    assert face.shape == (2, 3, 64, 64)
    assert ((face >= 0.0) & (face <= 1.0)).all()


def test_a_learned_mask_is_a_second_output():
    face, mask = built(learn_mask=True).model.swap(torch.rand(1, 3, 64, 64), 0)
    assert face.shape == (1, 3, 64, 64) and mask.shape == (1, 1, 64, 64)


def test_both_sides_share_the_encoder_and_nothing_else():
    network = built(8).model
    one, other = network.parts(0), network.parts(1)
    assert one["encoder"] is other["encoder"]
    assert one["decoder_a"] is not other["decoder_b"]


def test_a_few_steps_on_one_batch_lower_its_error():
    torch.manual_seed(0)
    network = built(16).model
    faces = [torch.rand(2, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3) for _ in range(2)]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    errors = []
    for _ in range(30):
        outputs = network(faces)
        error = sum((side[0] - face).abs().mean() for side, face in zip(outputs, faces, strict=True))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error))
    assert errors[-1] < 0.8 * errors[0]


def test_a_width_between_the_steps_is_refused():
    with pytest.raises(ConfigError, match="steps of 8"):
        from_mapping(Compact.Options, {"width": 20})
