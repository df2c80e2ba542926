"""The base of every model plugin. See the plugin `original` for an annotated example."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fsdeploy import __version__
from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import ConfigError, PluginError
from fsdeploy.model.info import ModelInfo
from fsdeploy.model.io import IO
from fsdeploy.model.network import SwapNetwork
from fsdeploy.model.settings import Settings
from fsdeploy.model.state import State
from fsdeploy.model.stored_options import resolve
from fsdeploy.model.weights import Weights, sub_models
from fsdeploy.nn.options import reflect_padding, restart_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NoOptions:
    """Options of a plugin that has none of its own."""


class ModelBase(ABC):
    """A swap model: its network, options, state and files.

    A plugin sets `input_shape` after calling this constructor and overrides `build_model`.

    Args:
        model_dir: The model's folder, new or existing; None for a model in memory.
        options: The plugin's own options; None takes those of the existing model, or the defaults.
        training: The options of this run; None takes those of the existing model, or the defaults. Options that are
            fixed at creation always follow an existing model.
        predict: True for inference: the model must exist, nothing is written.
        freeze_weights: Freeze the parts named in `freeze_layers` for this run.
        load_weights: Model folder or weights file that a new model takes the parts named in `load_layers` from.
        no_logs: This run writes no TensorBoard logs; noted in the session.

    Raises:
        InputError: the folder cannot be used: other plugin, in use by another training, no model to predict with.
        CorruptModelError: no saved set of the folder is complete.
        ConfigError: options that contradict each other.
    """

    name: ClassVar[str]
    """Plugin name: the plugin's file name unless the class says otherwise."""
    Options: ClassVar[type] = NoOptions
    """Frozen dataclass of the plugin's own options, fields made with `fsdeploy.config.option.option`."""

    input_shape: tuple[int, int, int]
    """(3, S, S) of the face that goes in; set by the plugin."""
    color_order: str = "bgr"
    """"bgr" or "rgb", of input and output."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__module__.rpartition(".")[2].lower()

    def __init__(
        self,
        model_dir: Path | None,
        options: Any | None = None,
        training: TrainingOptions | None = None,
        predict: bool = False,
        *,
        freeze_weights: bool = False,
        load_weights: Path | None = None,
        no_logs: bool = False,
    ) -> None:
        self.is_predict = predict
        self.freeze_weights = freeze_weights
        self.load_weights = load_weights
        self._model: SwapNetwork | None = None
        self._output_shapes: list[tuple[None, int, int, int]] = []
        self.io = IO(self, model_dir, predict)
        try:
            saved = self.io.open()
            stored = None if saved is None else saved.state
            source = str(model_dir if saved is None else saved.weights.parent)
            resolved = resolve(None if stored is None else stored["config"], training, self.Options, options, source)
            self.options = resolved.plugin
            self.training: TrainingOptions = resolved.training
            self._check_options()
            self.state = State(
                model_dir, self.name, no_logs, stored=stored, config=resolved.config, updatable=resolved.updatable
            )
        except BaseException:
            self.io.close()
            raise
        self.state.model_needs_rebuild = resolved.precision_changed
        self.io.save_optimizer = self.training.optimizer.save_optimizer  # type: ignore[assignment]
        self.settings = Settings(self.training, is_predict=predict)
        self.weights = Weights(self)

    def _check_options(self) -> None:
        if self.training.mask.mask_type == "none" and not self.is_predict:
            for section, name in ((self.training.mask, "learn_mask"), (self.training.loss, "penalized_mask_loss")):
                if getattr(section, name):
                    raise ConfigError(f"option '{name}' needs a mask: choose a mask_type or turn {name} off")

    @abstractmethod
    def build_model(self, inputs: list[tuple[int, ...]] | None = None) -> SwapNetwork:
        """Put the network together, weights freshly started.

        Args:
            inputs: Shape of each side's input, (3, S, S); for plugins whose parts depend on it.
        """

    def build_network(self) -> SwapNetwork:
        """`build_model`, then the options that concern every network (padding)."""
        network = self.build_model([self.input_shape] * SwapNetwork.sides)
        if self.training.network.reflect_padding:
            reflect_padding(network)
        return network

    def build(self) -> None:
        """Build the network and assign it to `model`: from the saved weights if there are any, else fresh ones.

        Raises:
            CorruptModelError: the saved weights do not fit the plugin and its options.
            InputError: `load_weights` cannot be used.
        """
        exists = self.io.saved is not None
        if exists:
            self._model = self.io.load()
        else:
            self._model, layers = self.settings.get_mixed_precision_layers(
                lambda _: self.build_network(), [self.input_shape] * SwapNetwork.sides
            )
            start = self.training.initialization
            restart_weights(self._model, icnr=start.icnr_init, conv_aware=start.conv_aware_init)
            self.state.add_mixed_precision_layers(layers)
        if self.is_predict:
            self._model.eval().requires_grad_(False)
        else:
            self._model = self.settings.check_model_precision(self._model, self.state)
            self.weights.load(exists)
            self.weights.freeze()
        for name, part in sub_models(self._model).items():
            logger.debug("%s: %d parameters", name, sum(tensor.numel() for tensor in part.parameters()))

    @property
    def model(self) -> SwapNetwork:
        """The network, after `build`."""
        if self._model is None:
            raise RuntimeError("call build() before using the model")
        return self._model

    @property
    def model_name(self) -> str:
        """Name of the architecture: the plugin's, unless the plugin has several."""
        return self.name

    @property
    def iterations(self) -> int:
        """Iterations over all sessions."""
        return self.state.iterations

    @property
    def coverage_ratio(self) -> float:
        """Share of the centred face that is trained on, 0.625 to 1.0. In pixels: `(size * ratio // 2) * 2`."""
        return self.training.face.coverage / 100.0

    @property
    def freeze_layers(self) -> list[str]:
        """Parts that `freeze_weights` freezes."""
        return ["encoder"]

    @property
    def load_layers(self) -> list[str]:
        """Parts that `load_weights` loads."""
        return ["encoder"]

    @property
    def input_shapes(self) -> list[tuple[None, int, int, int]]:
        """(None, 3, S, S) per side."""
        return [(None, *self.input_shape)] * SwapNetwork.sides

    @property
    def output_shapes(self) -> list[tuple[None, int, int, int]]:
        """(None, C, O, O) of every output: those of A (faces ascending, then the mask), then those of B."""
        if not self._output_shapes:
            # On the meta device only shapes are computed.
            weights = {name: tensor.to("meta") for name, tensor in self.model.state_dict().items()}
            face = torch.empty(2, *self.input_shape, device="meta")
            with torch.no_grad():
                sides = torch.func.functional_call(self.model, weights, ([face] * SwapNetwork.sides,))
            self._check_outputs(sides)
            self._output_shapes = [(None, *output.shape[1:]) for outputs in sides for output in outputs]
        return self._output_shapes

    def _check_outputs(self, sides: Any) -> None:
        """Refuse what a plugin's author may return by mistake where everything else expects lists of outputs."""
        for side, outputs in enumerate(sides):
            if not isinstance(outputs, list | tuple):
                problem = f"a list of tensors, got {type(outputs).__name__}"
            elif not all(isinstance(output, Tensor) and output.ndim == 4 for output in outputs):
                problem = "tensors of shape (N, C, H, W)"
            elif not any(output.shape[1] == 3 for output in outputs):
                problem = "at least one face, a tensor of 3 channels"
            else:
                continue
            raise PluginError(
                f"{self.name}: the decoder of side {'AB'[side]} must return {problem}: see docs/plugins.md"
            )

    def add_history(self, loss: Iterable[float] | Tensor) -> None:
        """Keep the losses of one iteration, one value per side, for the average at the next save.

        Raises:
            InputError: saves in the background failed in a way that no training should go on after.
        """
        self.io.history.append(float(sum(loss)))
        self.io.weigh_failure()

    def outline(self) -> ModelInfo:
        """The facts about this model from its options alone, for one that was not built: no weights are made."""
        with torch.device("meta"):
            self._model = self.build_network()
        try:
            return self.info()
        finally:
            self._model = None

    def info(self) -> ModelInfo:
        """The facts about this model."""
        side = self.output_shapes[: len(self.output_shapes) // SwapNetwork.sides]
        sizes = tuple(sorted(shape[2] for shape in side if shape[1] == 3))
        return ModelInfo(
            name=self.name,
            input_size=self.input_shape[1],
            output_size=sizes[-1],
            output_sizes=sizes,
            color_order=self.color_order,
            centering=self.training.face.centering,
            coverage=self.coverage_ratio,
            vertical_offset=self.training.face.vertical_offset / 100.0,
            has_mask=any(shape[1] == 1 for shape in side),
            iterations=self.iterations,
            weights_sha256=str(self.state.files.get(f"{self.name}.safetensors", {}).get("sha256", "")),
        )

    def weights_metadata(self) -> dict[str, Any]:
        """What a weights file says about itself."""
        return {
            "plugin": self.name,
            "model_name": self.model_name,
            "version": __version__,
            "iterations": self.iterations,
            "input_size": self.input_shape[1],
            "color_order": self.color_order,
            "config": self.state.config,
        }

    def close(self) -> None:
        """Finish writing and give the folder back to others."""
        self.io.close()
