"""What a torch optimizer remembers of each parameter, taken from a saved state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ACCUMULATED = "accumulated_grad"
"""State key of a gradient that waits for the rest of its update."""
_MAXIMA = "max_"


def load_moments(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, bool],
) -> list[str]:
    """Give every parameter the saved state that fits it: all that its optimizer keeps, or nothing.

    Args:
        optimizer: Whose state is set.
        parameters: Parameter name -> parameter.
        tensors: "<parameter name>/<state key>" -> tensor. Keys that the optimizer does not use are left out.
        expected: State key -> whether it has the parameter's shape; it is a scalar otherwise.

    Returns:
        Names of the parameters that start fresh.
    """
    saved: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("/")
        if name in saved:
            saved[name][part] = tensor
    on_device = bool(optimizer.defaults.get("fused")) or bool(optimizer.defaults.get("capturable"))
    fresh = []
    for name, parameter in parameters.items():
        found = saved[name]
        gradient = found.pop(ACCUMULATED, None)
        if gradient is not None and gradient.shape == parameter.shape:
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
            if not found:  # saved before the first update was complete
                continue
        state = _fitting(found, parameter, expected)
        if state is None:
            fresh.append(name)
            continue
        for key, value in state.items():
            if expected[key]:
                # In the parameter's own memory layout, which fused kernels rely on.
                optimizer.state[parameter][key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            else:
                optimizer.state[parameter][key] = value.detach().clone().to(parameter.device if on_device else "cpu")
    return fresh


def _fitting(found: Mapping[str, Tensor], parameter: Tensor, expected: Mapping[str, bool]) -> dict[str, Tensor] | None:
    """The whole state of a parameter, or None if a part is missing or of another shape."""
    state = {}
    for key, is_shaped in expected.items():
        value = found.get(key)
        if value is None and key.startswith(_MAXIMA):
            # A state from before AMSGrad was on, or of a program that does not hand its maxima over: a running
            # maximum that starts at zero is right after one step.
            value = torch.zeros_like(parameter)
        if value is None or value.shape != (parameter.shape if is_shaped else torch.Size()):
            return None
        state[key] = value
    return state
