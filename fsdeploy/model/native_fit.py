"""Finding the native plugin that a migrated network is, if it is exactly one.

Names prove nothing, so nothing is matched by name but the parts (`encoder`, `decoder_a`, ...). A plugin fits when its
parts have the same tensors in running order and, fed with the same faces, both networks give the same images.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fsdeploy.config.option import from_mapping, specs
from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import FsdeployError, UnknownModelError
from fsdeploy.model.base import ModelBase
from fsdeploy.model.graph.description import GraphDescription, Net, Operation
from fsdeploy.model.graph.network import GraphNetwork
from fsdeploy.model.migration import MigratedModel
from fsdeploy.model.network import SwapNetwork
from fsdeploy.model.registry import model_class

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
_MAX_TRIES = 64


@dataclass(frozen=True)
class NativeFit:
    """A plugin that computes what the graph computes."""

    plugin: str
    options: Mapping[str, Any]
    """The plugin's own options, and those of the network, with which it fits."""
    names: Mapping[str, str]
    """Parameter name of the graph -> parameter name of the plugin's network."""
    difference: float
    """Largest difference of any output value on random faces."""


def fit_native(model: MigratedModel, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> NativeFit | None:
    """Try the plugin of the model's name with the options of `config`, then with other settings of its switches.

    Args:
        model: What was read.
        tensors: Its parameters, float32.
        config: Options as stored, flat.
    """
    try:
        chosen = model_class(model.plugin)
    except UnknownModelError:
        return None
    description, mask = model.description, model.outputs[-1][0] == 1
    graph = load_on(GraphNetwork, tensors, description)
    reflect = any(operation_count(description.net, "pad", mode="reflect"))
    for options in itertools.islice(_candidates(chosen, config), _MAX_TRIES):
        training = _training(learn_mask=mask, reflect=reflect)
        native = _network(chosen, options, training)
        names = None if native is None else _pair(graph, native)
        if native is None or names is None:
            continue
        native.load_state_dict({names[name]: tensor for name, tensor in tensors.items()}, assign=True)
        difference = compare(graph, native, description.net.inputs[0])
        if difference <= TOLERANCE:
            found = {**dataclasses.asdict(options), "learn_mask": mask, "reflect_padding": reflect}
            return NativeFit(chosen.name, found, names, difference)
        logger.info("plugin '%s' has the same tensors but differs by %.2g", model.plugin, difference)
    return None


def load_on(kind: type[GraphNetwork], tensors: Mapping[str, Tensor], description: GraphDescription) -> GraphNetwork:
    """The graph's network around `tensors`, which are shared, not copied."""
    with torch.device("meta"):
        network = kind(description)
    network.load_state_dict(dict(tensors), assign=True)
    return network.eval().requires_grad_(False)


def operation_count(net: Net, op: str, **attributes: Any) -> Iterator[Operation]:
    """All operations of a name with these attributes, nested nets included."""
    for part in net.parts.values():
        if isinstance(part, Net):
            yield from operation_count(part, op, **attributes)
        elif part.op == op and all(part.attributes.get(key) == value for key, value in attributes.items()):
            yield part


def _candidates(chosen: type[ModelBase], config: Mapping[str, Any]) -> Iterator[Any]:
    """Options as stored; then every combination of the plugin's switches and choices."""
    known = specs(chosen.Options)
    stored = {name: value for name, value in config.items() if name in known}
    try:
        yield from_mapping(chosen.Options, stored)
    except FsdeployError:
        stored = {}
    varied = {
        name: [False, True] if kind is bool else list(spec.choices or ())
        for name, (kind, _, spec) in known.items()
        if spec.fixed and (kind is bool or spec.choices)
    }
    for values in itertools.product(*varied.values()):
        try:
            yield from_mapping(chosen.Options, {**stored, **dict(zip(varied, values, strict=True))})
        except FsdeployError:
            continue


def _training(learn_mask: bool, reflect: bool) -> TrainingOptions:
    default = TrainingOptions()
    return dataclasses.replace(
        default,
        mask=dataclasses.replace(default.mask, learn_mask=learn_mask),
        network=dataclasses.replace(default.network, reflect_padding=reflect),
    )


def _network(chosen: type[ModelBase], options: Any, training: TrainingOptions) -> SwapNetwork | None:
    try:
        with torch.device("meta"):
            return chosen(None, options, training).build_network().eval().requires_grad_(False)
    except FsdeployError:
        return None


def _pair(graph: SwapNetwork, native: SwapNetwork) -> dict[str, str] | None:
    """Graph parameter -> native parameter, part by part in running order; None when a shape or a part differs."""
    names: dict[str, str] = {}
    for side in range(SwapNetwork.sides):
        parts, wanted = _with_tensors(graph.parts(side)), _with_tensors(native.parts(side))
        if list(parts) != list(wanted):
            return None
        for name in parts:
            own, other = parts[name].state_dict(), wanted[name].state_dict()
            if [t.shape for t in own.values()] != [t.shape for t in other.values()]:
                return None
            names.update({f"{name}.{a}": f"{name}.{b}" for a, b in zip(own, other, strict=True)})
    return names if set(names) == set(graph.state_dict()) else None


def _with_tensors(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: part for name, part in parts.items() if part.state_dict()}


def compare(first: SwapNetwork, second: SwapNetwork, shape: tuple[int, ...]) -> float:
    """Largest difference of any output of two networks, both directions, on a random face (C, H, W); infinite when
    their outputs have different shapes or are not finite."""
    face = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    worst = 0.0
    with torch.inference_mode():
        for side in range(SwapNetwork.sides):
            ours, theirs = first.swap(face, side), second.swap(face, side)
            if [t.shape for t in ours] != [t.shape for t in theirs]:
                return float("inf")
            for one, other in zip(ours, theirs, strict=True):
                difference = float((one - other).abs().max())
                worst = max(worst, difference) if difference == difference else float("inf")
    return worst
