"""Which colours a model of `phaze_a` expects: the state names its encoder, else the graph tells."""

from __future__ import annotations

import json

import pytest
from small_models import layer2, model_config, net2, small_keras, write_keras2

from fsdeploy.model.migrate import open_migration


def phaze_a(path, pretrained: str | None, state: dict | None = None):
    """The small model under that name, with a network inside its encoder."""
    config = model_config()
    config["config"]["name"] = "phaze_a"
    encoder = config["config"]["layers"][2]["config"]["layers"]
    if pretrained is not None:
        inside = [
            layer2("InputLayer", "input_9", [], batch_input_shape=[None, 16, 16, 3]),
            layer2("Activation", "act", ["input_9"], activation="relu"),
        ]
        encoder.insert(1, net2(pretrained, inside, ["input_9"], ["act"], [[["input_1", 0, 0, {}]]]))
        encoder[2]["inbound_nodes"] = [[[pretrained, 1, 0, {}]]]
    if state is not None:
        path.with_name(f"{path.stem}_state.json").write_text(json.dumps(state))
    return write_keras2(path, config)


# Encoders of the Keras applications, and the orders that they were trained on.
ORDERS = [
    (None, "bgr"), ("vgg16", "bgr"), ("vgg19", "bgr"), ("efficientnetb4", "rgb"), ("mobilenetv2_1.00_80", "rgb"),
    ("visual", "rgb"), ("resnet50", "rgb"),
]  # fmt: skip


@pytest.mark.parametrize(("pretrained", "order"), ORDERS)
@pytest.mark.parametrize("state", [None, {"config": {"coverage": 87.5}}, {"config": {"enc_architecture": 7}}])
def test_the_graph_tells_the_order_where_the_state_does_not(pretrained, order, state, tmp_path):
    with open_migration(phaze_a(tmp_path / "small.h5", pretrained, state)) as migration:
        assert migration.model.color_order == order
        (told,) = [warning for warning in migration.model.warnings if "colours are taken as" in warning]
        assert order.upper() in told and (pretrained or "no pretrained network") in told


@pytest.mark.parametrize(
    ("encoder", "order"), [("fs_original", "bgr"), ("vgg19", "bgr"), ("efficientnet_b4", "rgb"), ("xception", "rgb")]
)
def test_the_state_tells_the_order_first(encoder, order, tmp_path):
    state = {"config": {"enc_architecture": encoder}}
    with open_migration(phaze_a(tmp_path / "small.h5", None, state)) as migration:
        assert migration.model.color_order == order
        assert not any("colours are taken as" in warning for warning in migration.model.warnings)


def test_the_graph_of_keras_3_tells_it_as_well(tmp_path, monkeypatch):
    source = phaze_a(tmp_path / "source.h5", "efficientnetb4")
    monkeypatch.setattr("small_models.write_keras2", lambda path: source)
    with open_migration(small_keras(tmp_path)) as migration:
        assert migration.model.color_order == "rgb"


def test_other_models_are_bgr_without_a_word(tmp_path):
    with open_migration(write_keras2(tmp_path / "small.h5")) as migration:
        assert migration.model.color_order == "bgr"
        assert not any("colours" in warning for warning in migration.model.warnings)
