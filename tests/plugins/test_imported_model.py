"""A model whose architecture stands in its state file: what a damaged graph does to inspect, export and training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fsdeploy.errors import CorruptModelError
from fsdeploy.model.folder import load_model, model_info, write_model_folder
from fsdeploy.model.graph.description import GraphDescription
from fsdeploy.model.graph.network import GraphNetwork
from fsdeploy_plugins.models.imported import Model

GRAPH: dict[str, Any] = {
    "format": 1,
    "name": "small",
    "net": {
        "inputs": [[3, 8, 8], [3, 8, 8]],
        "parts": {
            "encoder": {"op": "conv", "inputs": 3, "outputs": 4, "kernel": [3, 3], "pad": [1, 1, 1, 1]},
            "shuffle": {"op": "reshape", "shape": [8, 8, 4]},
            "slope": {"op": "leaky_relu", "slope": 0.1},
            "drop": {"op": "dropout", "rate": 0.5},
            "face": {"op": "conv", "inputs": 4, "outputs": 3, "kernel": [1, 1]},
        },
        "calls": [
            ["encoder", [0], [2]], ["shuffle", [2], [3]], ["slope", [3], [4]], ["drop", [4], [5]], ["face", [5], [6]],
            ["encoder", [1], [7]], ["shuffle", [7], [8]], ["slope", [8], [9]], ["drop", [9], [10]],
            ["face", [10], [11]],
        ],
        "outputs": [6, 11],
    },
    "sides": [[6], [11]],
}  # fmt: skip


def write(folder: Path, graph: dict[str, Any]) -> Path:
    """A model folder with weights that fit `GRAPH`, and a graph that may not."""
    weights = GraphNetwork(GraphDescription.from_json(GRAPH, "test")).state_dict()
    state = {"name": "imported", "iterations": 5}
    write_model_folder(folder, state, weights, model_name="small", extra={"graph": graph})
    return folder


def test_a_sound_graph_is_loaded(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", GRAPH)
    assert model_info(folder).output_size == 8
    (face,) = load_model(folder).model.swap(torch.zeros(2, 3, 8, 8), 1)
    assert face.shape == (2, 3, 8, 8)


def part(name: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda graph: graph["net"]["parts"][name].update(changes)


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a reshape to another number of values": part("shuffle", shape=[7, 8, 4]),
    "a reshape that eats the batch": part("shuffle", shape=[16, 8, 4]),
    "a reshape to two axes": part("shuffle", shape=[64, 4]),
    "a text for a number": part("slope", slope="0.1"),
    "a number for a list": part("shuffle", shape=3),
    "a rate that only training notices": part("drop", rate=7.0),
    "another number of channels": part("face", inputs=5),
    "no face": part("face", outputs=2),
    "faces that are not square": part("face", stride=[1, 2]),
    "one value where a part gives none": lambda graph: graph["net"]["calls"][-1].__setitem__(2, [11, 12]),
    "an activation as a face": lambda graph: graph.update(sides=[[2], [7]]),
    "sides that differ": lambda graph: graph.update(sides=[[6], [11, 11]]),
    "inputs that differ": lambda graph: graph["net"]["inputs"].__setitem__(1, [3, 8, 6]),
    "no inputs": lambda graph: graph["net"].update(inputs=[], calls=[["encoder", [0], [0]]]),
    "a part with the name of a method": lambda graph: (
        graph["net"]["parts"].update(forward=graph["net"]["parts"].pop("drop")),
        [call.__setitem__(0, "forward") for call in graph["net"]["calls"] if call[0] == "drop"],
    ),
    "a part of absurd size": part("encoder", outputs=1 << 27, kernel=[1 << 20, 1 << 20]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_graph_is_refused_in_one_line_that_names_the_file(kind: str, tmp_path: Path) -> None:
    graph = copy.deepcopy(GRAPH)
    DAMAGE[kind](graph)
    folder = write(tmp_path / "m", graph)
    for use in (model_info, load_model, Model):
        with pytest.raises(CorruptModelError, match="imported") as caught:
            use(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (folder / "imported.safetensors").is_file()
