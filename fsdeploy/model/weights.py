"""Weights of single parts: loading them into a new model, freezing them; a strict report when tensors do not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from fsdeploy.errors import CorruptModelError, InputError, ReplacedError
from fsdeploy.model.network import SwapNetwork
from fsdeploy.model.saved_set import ATTEMPTS, SavedSet, find_saved_set, model_names_in
from fsdeploy.model.tensor_file import read_metadata, read_tensors

if TYPE_CHECKING:
    from fsdeploy.model.base import ModelBase

logger = logging.getLogger(__name__)
_LISTED = 4

T = TypeVar("T")


def get_all_sub_models(model: nn.Module, models: list[nn.Module] | None = None) -> list[nn.Module]:
    """The model itself, then its sub-models, each once: the parts of a `SwapNetwork` on the paths of both sides.

    Args:
        model: A network.
        models: Do not give it; it is used for recursion.
    """
    found = [] if models is None else models
    found.append(model)
    if isinstance(model, SwapNetwork):
        for part in sub_models(model).values():
            if all(part is not known for known in found):
                get_all_sub_models(part, found)
    return found


def sub_models(network: SwapNetwork) -> dict[str, nn.Module]:
    """Part name -> module over all sides, in running order."""
    return {name: part for side in range(network.sides) for name, part in network.parts(side).items()}


def build_loaded(build: Callable[[], SwapNetwork], tensors: Mapping[str, Tensor], source: str) -> SwapNetwork:
    """Build a network around tensors that it takes over: no weights are drawn, none are copied.

    Raises:
        CorruptModelError: as `load_strictly`.
    """
    with torch.device("meta"):
        network = build()
    own = network.state_dict()
    if any(name not in own for name, _ in network.named_buffers()):
        network = build()  # it has constants that are not saved
        load_strictly(network, tensors, source)
        return network
    check_fit(network, tensors, source)
    network.load_state_dict({name: tensors[name].to(tensor.dtype) for name, tensor in own.items()}, assign=True)
    return network


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a network; every tensor must be there, with its shape.

    Raises:
        CorruptModelError: names what is missing, unexpected or of another shape.
    """
    check_fit(network, tensors, source)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.copy_(tensors[name])


def check_fit(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Compare tensors with those of a network, by name and shape.

    Raises:
        CorruptModelError: names what is missing, unexpected or of another shape.
    """
    own = network.state_dict()
    problems = [
        *(f"{name} is missing" for name in own if name not in tensors),
        *(f"{name} is unknown" for name in tensors if name not in own),
        *(
            f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise CorruptModelError(
            f"{source} does not fit the model that its state describes: {'; '.join(problems[:_LISTED])}{more}: "
            "the file belongs to other options or another plugin"
        )


class Weights:
    """Loading and freezing of a model's parts.

    Args:
        plugin: The model; `load_layers` and `freeze_layers` name its parts.
    """

    def __init__(self, plugin: ModelBase) -> None:
        self._plugin = plugin

    def load(self, model_exists: bool) -> None:
        """Copy the parts named in `load_layers` from the model folder or file that the run was given.

        Args:
            model_exists: True when an existing model is resumed: nothing is loaded then, with a warning.

        Raises:
            InputError: the source is no fsdeploy model, belongs to another plugin, or no tensor of it fits.
        """
        source = self._plugin.load_weights
        if source is None:
            return
        if model_exists:
            logger.warning("weights are loaded into new models only: %s is ignored", source)
            return
        path, origin, tensors = _read_source(source, self._plugin.name)
        if origin != self._plugin.model_name:
            raise InputError(
                f"{path} holds weights of '{origin}', not of '{self._plugin.model_name}': "
                "choose a model of the same plugin"
            )
        parts = sub_models(self._plugin.model)
        copied = sum(self._load_part(name, parts.get(name), tensors, path) for name in self._plugin.load_layers)
        if not copied:
            raise InputError(f"no tensor of {path} fits the parts {', '.join(self._plugin.load_layers)} of this model")
        logger.info("%d tensors loaded from %s", copied, path)

    def _load_part(self, name: str, part: nn.Module | None, tensors: Mapping[str, Tensor], path: Path) -> int:
        if part is None:
            logger.warning("this model has no part called '%s' to load", name)
            return 0
        copied = 0
        with torch.no_grad():
            for key, tensor in part.state_dict().items():
                stored = tensors.get(f"{name}.{key}")
                if stored is None or stored.shape != tensor.shape:
                    what = "is missing" if stored is None else f"is {tuple(stored.shape)}, not {tuple(tensor.shape)}"
                    logger.warning("%s: tensor %s.%s %s and was skipped", path, name, key, what)
                    continue
                tensor.copy_(stored)
                copied += 1
        return copied

    def freeze(self) -> None:
        """Make all parts trainable, then, if the run asked for it, those named in `freeze_layers` untrainable.

        A frozen part is also kept in evaluation mode by the training loop: its batch norm uses stored statistics.
        """
        self._plugin.model.requires_grad_(True)
        if not self._plugin.freeze_weights:
            return
        parts = sub_models(self._plugin.model)
        for name in self._plugin.freeze_layers:
            if name not in parts:
                logger.warning("this model has no part called '%s' to freeze", name)
                continue
            parts[name].requires_grad_(False)
            logger.info("part '%s' is frozen", name)


def read_weights(saved: SavedSet) -> dict[str, Tensor]:
    """The tensors of a set that was found.

    Raises:
        CorruptModelError: the file cannot be read.
        ReplacedError: the model was saved anew since the set was found: find it again.
    """
    try:
        tensors = read_tensors(saved.weights)
    except (CorruptModelError, RuntimeError):  # torch's, of a file that vanished behind safetensors' back
        if saved.is_in_place:
            raise
    else:
        if saved.is_in_place:
            return tensors
    raise ReplacedError(f"{saved.weights.parent} was saved anew while it was read: try again")


def until_one_save(read: Callable[[], T]) -> T:
    """What `read` returns of a folder that a training may save into meanwhile, started over while it is told so.

    Raises:
        ReplacedError: the model was saved anew each time.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return read()
        except ReplacedError:
            continue
    return read()


def _read_source(source: Path, name: str) -> tuple[Path, str | None, dict[str, Tensor]]:
    """(file, name of its architecture, its tensors) of what `load_weights` names."""
    if source.is_dir():
        return _read_folder(source, name)
    if source.suffix in (".h5", ".keras"):
        raise InputError(f"{source} is a legacy model: turn it into a model folder with 'fsdeploy migrate' first")
    if not source.is_file():
        raise InputError(f"{source} does not exist: name a model folder or its .safetensors file")
    return source, read_metadata(source).get("model_name"), read_tensors(source)


def _read_folder(folder: Path, name: str) -> tuple[Path, str | None, dict[str, Tensor]]:
    names = model_names_in(folder)
    if name not in names:
        what = f"a model of '{names[0]}'" if names else "no model"
        raise InputError(f"{folder} holds {what}, not one of '{name}': choose a model of the same plugin")

    def read() -> tuple[Path, str | None, dict[str, Tensor]]:
        saved = find_saved_set(folder, name, with_optimizer=False)
        tensors = read_weights(saved)
        try:
            return saved.weights, read_metadata(saved.weights).get("model_name"), tensors
        except CorruptModelError as error:
            if saved.is_in_place:
                raise
            raise ReplacedError(f"{folder} was saved anew while it was read: try again") from error

    return until_one_save(read)
