"""Packages of strangers that are broken: they cost their own plugins only, and are named where those are asked for."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdeploy.config.training import TrainingOptions
from fsdeploy.convert import plugin
from fsdeploy.convert.listing import plugin_lines
from fsdeploy.convert.settings import option_tables
from fsdeploy.errors import InputError, PluginError, UnknownModelError
from fsdeploy.model.migration import find_converter
from fsdeploy.model.registry import model_class
from fsdeploy.training.registry import trainer_class
from fsdeploy.training.setup import known_plugins

MODEL = """
import torch
from torch import nn
from fsdeploy.model.base import ModelBase
from fsdeploy.model.network import SharedEncoderNetwork

class Decoder(nn.Module):
    def forward(self, code):
        return {returned}

class Model(ModelBase):
    name = {name!r}
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.input_shape = (3, 8, 8)
    def build_model(self, inputs=None):
        return SharedEncoderNetwork(nn.Conv2d(3, 3, 1), Decoder(), Decoder())
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a package known to this process: its name, its entry points, its modules."""

    def make(package: str, entry_points: str, **modules: str) -> None:
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))

    return make


@pytest.mark.parametrize(
    ("target", "text"),
    [("nowhere_a:Model", ""), ("raises_a:Model", "raise RuntimeError('no licence')"),
     ("plain_a:Model", "class Model: pass"), ("syntax_a:Model", "class Model(:")],
    ids=["missing", "raises", "no model", "no Python"],
)  # fmt: skip
def test_a_broken_model_plugin_is_passed_over_and_named_when_asked_for(install, caplog, target: str, text: str) -> None:
    name = target.partition("_")[0]
    package = f"strange-models-{name}"
    install(package, f"[fsdeploy.models]\n{name} = {target}\n", **({target.partition(":")[0]: text} if text else {}))
    with caplog.at_level(logging.WARNING):
        assert {"original", "compact"} <= known_plugins().keys() and name not in known_plugins()
    warnings = [record.getMessage() for record in caplog.records if package in record.getMessage()]
    assert len(warnings) == 1 and f"'{name}'" in warnings[0]
    with pytest.raises(UnknownModelError, match=package):
        model_class(name)
    assert model_class("compact").name == "compact"


@pytest.mark.parametrize("kind", ["color", "mask", "scaling", "writer"])
def test_a_broken_convert_plugin_is_passed_over_and_named_when_asked_for(install, caplog, kind: str) -> None:
    package = f"strange-{kind}"
    install(package, f"[fsdeploy.convert.{kind}]\ngone = nowhere_{kind}:Gone\n")
    with caplog.at_level(logging.WARNING):
        lines = list(plugin_lines())
        tables = option_tables()
        assert "gone" not in plugin.names(kind, plugin.ConvertPlugin)
    assert any(line.startswith("color.mkl:") for line in lines) and "convert.writer.video" in tables
    assert len([record for record in caplog.records if package in record.getMessage()]) == 1
    with pytest.raises(PluginError, match=package):
        plugin.find(kind, "gone")


def test_a_convert_plugin_of_no_such_class_is_refused_by_the_name_of_its_package(install) -> None:
    install("odd-color", "[fsdeploy.convert.color]\nodd = odd_color:colour\n", odd_color="def colour(): pass\n")
    with pytest.raises(PluginError, match=r"'odd'.*'odd-color' is no ConvertPlugin"):
        plugin.find("color", "odd")


def test_broken_trainers_and_converters_stand_in_nobodys_way(install, tmp_path: Path, caplog) -> None:
    install("strange-rest", "[fsdeploy.trainers]\nodd = odd_rest:Odd\n[fsdeploy.converters]\naaa = nowhere_rest:Gone\n",
            odd_rest="class Odd: pass\n")  # fmt: skip
    with pytest.raises(PluginError, match="'strange-rest' is no TrainerBase"):
        trainer_class("odd")
    assert trainer_class("original")
    (tmp_path / "x.txt").write_text("no model")
    with pytest.raises(InputError, match="is of no known format"), caplog.at_level(logging.WARNING):
        find_converter(tmp_path / "x.txt")
    assert "'strange-rest'" in caplog.text


@pytest.mark.parametrize(
    ("name", "returned", "problem"),
    [
        ("wrong_tensor", "code", "must return a list of tensors, got Tensor"),
        ("wrong_empty", "[]", "at least one face"),
        ("wrong_mask", "[code[:, :1]]", "at least one face"),
        ("wrong_shape", "[code[:, 0]]", r"tensors of shape \(N, C, H, W\)"),
    ],
)
def test_a_model_whose_decoder_returns_something_else_is_told_what_it_must_return(
    install, name: str, returned: str, problem: str
) -> None:
    install(name, f"[fsdeploy.models]\n{name} = {name}:Model\n", **{name: MODEL.format(returned=returned, name=name)})
    model = model_class(name)(None, training=TrainingOptions())
    model.build()
    with pytest.raises(PluginError, match=f"{name}: the decoder of side A {problem}" if "must" in problem else problem):
        model.info()
