"""Two optimizers that torch lacks. Both update all tensors of a group with a few fused operations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class _ForeachOptimizer(torch.optim.Optimizer, ABC):
    """Gathers the tensors of each group and hands them to `update` in lists."""

    moments: tuple[str, ...]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Parameters of one step count are updated together; counts differ only after a partial load.
            waiting: dict[int, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    waiting[self._count(parameter, group)].append(parameter)
            for step, parameters in waiting.items():
                gradients = [parameter.grad for parameter in parameters]
                states = [[self.state[p][key] for p in parameters] for key in self._keys(group)]
                if group["weight_decay"]:
                    torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
                self.update(group, step, parameters, gradients, *states)
        return loss

    def _keys(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.moments

    def _count(self, parameter: Tensor, group: dict[str, Any]) -> int:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the CPU: its value decides what is computed
            for key in self._keys(group):
                state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["step"] += 1
        return int(state["step"])

    @abstractmethod
    def update(self, group: dict[str, Any], step: int, parameters: list[Tensor], *lists: Any) -> None:
        """Apply update number `step` to `parameters`; `lists` holds their gradients, then each of `moments`."""


class Lion(_ForeachOptimizer):
    """Lion (Chen et al., 2023, arXiv:2302.06675): `p -= lr * sign(b1 m + (1 - b1) g)`, then `m = b2 m + (1 - b2) g`.

    Weight decay is decoupled: `p *= 1 - lr * weight_decay` first.
    """

    moments = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def update(self, group: dict[str, Any], step: int, parameters: list[Tensor], *lists: Any) -> None:
        gradients, averages = lists
        beta1, beta2 = group["betas"]
        direction = torch._foreach_lerp(averages, gradients, 1.0 - beta1)
        torch._foreach_sign_(direction)
        torch._foreach_add_(parameters, direction, alpha=-group["lr"])
        torch._foreach_lerp_(averages, gradients, 1.0 - beta2)


class AdaBelief(_ForeachOptimizer):
    """AdaBelief (Zhuang et al., 2020, arXiv:2010.07468), rectified as RAdam; decoupled weight decay.

    With `amsgrad` the running maximum of the second moment is kept, but the rectified update does not use it, as in the
    authors' own code.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, defaults)

    def _keys(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_var", "max_exp_avg_var") if group["amsgrad"] else ("exp_avg", "exp_avg_var")

    def update(self, group: dict[str, Any], step: int, parameters: list[Tensor], *lists: Any) -> None:
        gradients, averages, variances, *maxima = lists
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(averages, gradients, 1.0 - beta1)
        surprise = torch._foreach_sub(gradients, averages)
        torch._foreach_mul_(variances, beta2)
        torch._foreach_addcmul_(variances, surprise, surprise, value=1.0 - beta2)
        torch._foreach_add_(variances, group["eps"])
        if maxima:
            torch._foreach_maximum_(maxima[0], variances)
        size = group["lr"] / (1.0 - beta1**step)
        rectification = _rectification(step, beta2)
        if rectification is None:
            torch._foreach_add_(parameters, averages, alpha=-size)
            return
        roots = torch._foreach_sqrt(variances)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, averages, roots, value=-size * rectification)


def _rectification(step: int, beta2: float) -> float | None:
    """Variance rectification of step `step` (from 1), the bias correction of the second moment included; None while too
    few steps were seen for the second moment to be of use (Liu et al., 2019, arXiv:1908.03265)."""
    limit = 2.0 / (1.0 - beta2) - 1.0
    decay = beta2**step
    length = limit - 2.0 * step * decay / (1.0 - decay)
    if length < 5.0:
        return None
    ratio = (length - 4.0) / (limit - 4.0) * (length - 2.0) / length * limit / (limit - 2.0)
    return math.sqrt((1.0 - decay) * ratio)
