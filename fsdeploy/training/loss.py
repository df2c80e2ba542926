"""How the chosen loss functions, their weights and the masks become one number to minimise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn

from fsdeploy.errors import ConfigError
from fsdeploy.training.losses import MASK_IMAGES, build_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdeploy.config.training import LossOptions
    from fsdeploy.training.data.collate import BatchMeta


@dataclass
class BatchLoss:
    """The loss of one batch of one side."""

    unweighted: list[dict[str, Tensor]]
    """Per face output: function name -> loss of each item (N,)."""
    weighted: list[dict[str, Tensor]]
    """The same times the function's weight."""
    mask: Tensor | None = None
    """Loss of the learned mask for each item (N,), if the model has one."""

    @cached_property
    def total(self) -> Tensor:
        """Scalar to minimise: mean over items of each weighted function, summed over functions and outputs, plus the
        mask's mean."""
        terms = [values.mean() for output in self.weighted for values in output.values()]
        if self.mask is not None:
            terms.append(self.mask.mean())
        return torch.stack(terms).sum()

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        self.unweighted = [{name: change(value) for name, value in output.items()} for output in self.unweighted]
        self.weighted = [{name: change(value) for name, value in output.items()} for output in self.weighted]
        if self.mask is not None:
            self.mask = change(self.mask)
        if "total" in self.__dict__:
            self.__dict__["total"] = change(self.total)
        return self

    def detach(self) -> Self:
        """Cut every value, in place, from the graph it was computed with."""
        return self._map(Tensor.detach)

    def to_cpu(self) -> Self:
        """Detach every value and move it to the CPU, in place. Waits for the device."""
        return self._map(lambda value: value.detach().cpu())

    def split(self, sides: int) -> list[BatchLoss]:
        """Part the loss of a batch that holds all sides, item by item (A, B, A, B, ...), into one loss per side."""

        def part(value: Tensor, side: int) -> Tensor:
            return value.view(-1, sides)[:, side]

        return [
            BatchLoss(
                [{name: part(value, side) for name, value in output.items()} for output in self.unweighted],
                [{name: part(value, side) for name, value in output.items()} for output in self.weighted],
                None if self.mask is None else part(self.mask, side),
            )
            for side in range(sides)
        ]


class LossCollator(nn.Module):
    """Computes the chosen loss functions, masks and weighs them.

    Args:
        functions: Up to four function names. An empty name, `none` or a weight of 0 or less drops a function; a name
            given twice keeps its last weight.
        weights: One weight per function.
        color_order: Of the images, for functions that see colour.
        use_mask: Count the loss inside the face mask only, and more inside eyes and mouth.
        eye_multiplier: Extra weight of the eye area (its loss counts 1 + multiplier); 1 or less is off.
        mouth_multiplier: The same for the mouth area. Where both overlap the factors multiply.
        smallest_output: Edge in pixels of the smallest image that will be compared.
        mask_loss: Function of a learned mask, `mae` or `mse`; None if no mask is learned.
        loss_weights: Folder with the pretrained weights that `lpips_*` need.

    Raises:
        ConfigError: lengths differ, an unknown name, or images too small for a function.
        InputError: missing pretrained weights.
    """

    def __init__(
        self,
        functions: list[str],
        weights: list[float],
        color_order: Literal["bgr", "rgb"],
        use_mask: bool,
        eye_multiplier: float,
        mouth_multiplier: float,
        smallest_output: int,
        mask_loss: str | None = None,
        loss_weights: Path | None = None,
    ) -> None:
        super().__init__()
        if len(functions) != len(weights):
            raise ConfigError(f"{len(functions)} loss functions need as many weights, got {len(weights)}")
        self.use_mask = use_mask
        self.eye_multiplier = eye_multiplier
        self.mouth_multiplier = mouth_multiplier
        self.weights = {
            name: float(weight)
            for name, weight in zip(functions, weights, strict=True)
            if name not in ("", "none") and weight > 0
        }
        if not self.weights:
            raise ConfigError("no loss function is left: give at least one a weight above 0")
        self.functions = nn.ModuleDict({name: build_loss(name, color_order, loss_weights) for name in self.weights})
        self.mask_function = None if mask_loss is None else build_loss(mask_loss)
        for name, function in self.functions.items():
            smallest = getattr(function, "smallest", 1)
            if smallest_output < smallest:
                raise ConfigError(
                    f"loss '{name}' needs images of at least {smallest} px, the model's smallest output has "
                    f"{smallest_output}: choose another loss function"
                )

    @classmethod
    def from_options(
        cls,
        options: LossOptions,
        color_order: Literal["bgr", "rgb"],
        smallest_output: int,
        learn_mask: bool,
        loss_weights: Path | None = None,
    ) -> LossCollator:
        """Build from the user's options, whose weights are percent of the first function's."""
        later = [
            (getattr(options, f"loss_function_{i}"), getattr(options, f"loss_weight_{i}") / 100) for i in (2, 3, 4)
        ]
        return cls(
            [options.loss_function, *(name for name, _ in later)],
            [1.0, *(weight for _, weight in later)],
            color_order,
            options.penalized_mask_loss,
            options.eye_multiplier,
            options.mouth_multiplier,
            smallest_output,
            options.mask_loss_function if learn_mask else None,
            loss_weights,
        )

    def forward(self, y_true_all: list[Tensor], y_pred_all: list[Tensor], meta: BatchMeta) -> BatchLoss:
        """Loss of one side's outputs, always in float32.

        Args:
            y_true_all: Per output (N, 3, H, W), and last the learned mask (N, 1, H, W) if there is one.
            y_pred_all: Predictions of the same shapes.
            meta: Masks of this side, one (N, 1, H, W) per face output.
        """
        loss = BatchLoss([], [])
        with torch.autocast(y_true_all[0].device.type, enabled=False):
            for index, (true, pred) in enumerate(zip(y_true_all, y_pred_all, strict=True)):
                true, pred = true.float(), pred.float()
                if true.shape[1] == 1:
                    if self.mask_function is not None:
                        loss.mask = _mean(self.mask_function(true, pred))
                    continue
                unweighted = self._output(true, pred, *self._masks(meta, index))
                loss.unweighted.append(unweighted)
                loss.weighted.append({name: value * self.weights[name] for name, value in unweighted.items()})
        return loss

    def _masks(self, meta: BatchMeta, index: int) -> tuple[Tensor | None, list[tuple[float, Tensor]]]:
        """The face mask of one output, and each area with its multiplier."""
        if not self.use_mask:
            return None, []
        areas = ((self.eye_multiplier, meta.mask_eye), (self.mouth_multiplier, meta.mask_mouth))
        return (
            None if meta.mask_face is None else meta.mask_face[index],
            [(factor, masks[index]) for factor, masks in areas if masks is not None and factor > 1],
        )

    def _output(
        self, true: Tensor, pred: Tensor, face: Tensor | None, areas: list[tuple[float, Tensor]]
    ) -> dict[str, Tensor]:
        # L -> L * face, then L -> L + L * area * factor for each area: one factor per pixel.
        weight = face
        for factor, area in areas:
            more = 1.0 + factor * area
            weight = more if weight is None else weight * more
        result = {}
        for name, function in self.functions.items():
            if name in MASK_IMAGES:
                result[name] = _mask_images(function, true, pred, face, areas)
            else:
                values = function(true, pred)
                result[name] = _mean(values if weight is None else values * weight)
        return result


def _mean(values: Tensor) -> Tensor:
    """Mean over everything but the first axis."""
    return values.flatten(1).mean(dim=1) if values.ndim > 1 else values


def _mask_images(
    function: nn.Module, true: Tensor, pred: Tensor, face: Tensor | None, areas: list[tuple[float, Tensor]]
) -> Tensor:
    total = _mean(function(true, pred) if face is None else function(true * face, pred * face))
    for factor, area in areas:
        total = total + factor * _mean(function(true * area, pred * area))
    return total
