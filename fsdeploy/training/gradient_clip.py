"""Clipping of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

ClipMethod = Literal["autoclip", "global_norm", "norm", "value"]


class GradClip:
    """Clips gradients in place, without waiting for the device.

    Args:
        method: `global_norm` bounds the norm of all gradients together, `norm` that of each tensor, `value` each
            element; `autoclip` bounds the global norm by a percentile of the norms seen so far (Seetharaman et al.,
            2020, arXiv:2007.14469).
        value: The bound; for autoclip tenths of the percentile (1.0 is the 10th).
        autoclip_history: How many norms autoclip remembers; 0 remembers all.

    Example:
        >>> clip = GradClip("global_norm", 1.0)
        >>> clip(list(model.parameters()))
    """

    def __init__(self, method: ClipMethod, value: float, autoclip_history: int = 10000) -> None:
        self.method = method
        self.value = value
        self._limit = autoclip_history
        self._norms = torch.empty(0)
        self._offered = 0
        self._kept = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def __call__(self, parameters: Sequence[nn.Parameter], norm: Tensor | None = None) -> None:
        """Clip the gradients of `parameters`.

        Args:
            norm: The L2 norm of all gradients, if it is known already.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        if self.method == "value":
            nn.utils.clip_grad_value_(parameters, self.value)
        elif self.method == "norm":
            factors = [(self.value / size).clamp(max=1.0) for size in torch._foreach_norm(gradients)]
            torch._foreach_mul_(gradients, factors)
        else:
            norm = nn.utils.get_total_norm(gradients) if norm is None else norm
            bound = self._percentile(norm) if self.method == "autoclip" else self.value
            # A norm that is not finite is left to the loss scaler or to the protection from non-finite losses.
            factor = torch.where(torch.isfinite(norm), bound / (norm + 1e-6), 1.0).clamp(max=1.0)
            torch._foreach_mul_(gradients, factor)

    def _percentile(self, norm: Tensor) -> Tensor:
        """Remember `norm` if it is finite, and return the percentile of the norms that are remembered."""
        room = self._limit or max(1024, 2 * len(self._norms))
        if self._norms.device != norm.device or self._offered >= len(self._norms) < room:
            grown = torch.full((room,), torch.inf, device=norm.device)
            grown[: len(self._norms)] = self._norms.to(norm.device)
            self._norms, self._kept = grown, self._kept.to(norm.device)
        slot = (self._kept % len(self._norms)).view(1)  # a vector: reading at a scalar would wait for the device
        finite = torch.isfinite(norm)
        self._norms.index_copy_(0, slot, torch.where(finite, norm, self._norms.index_select(0, slot)))
        self._kept = self._kept + finite
        self._offered += 1
        # Linear interpolation between sorted values, as numpy's percentile; free places are infinite and sort last.
        ordered = self._norms[: min(self._offered, len(self._norms))].sort().values
        count = self._kept.clamp(1, len(ordered))
        place = (int(self.value * 10) / 100.0) * (count - 1)
        below = place.floor().long()
        pair = ordered.index_select(0, torch.stack([below, torch.minimum(below + 1, count - 1)]))
        return torch.lerp(pair[0], pair[1], (place - below).to(ordered.dtype))

    def state_dict(self) -> dict[str, Any]:
        """Norms that are remembered and their count. Waits for the device."""
        kept = int(self._kept)
        return {"norms": self._norms[: min(kept, len(self._norms))].cpu().clone(), "kept": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the norms of `state_dict`; they are dropped if the length of the history was changed."""
        norms: Tensor = state["norms"]
        kept = int(state["kept"])
        if self._limit and (len(norms) > self._limit or (kept > len(norms) and len(norms) != self._limit)):
            return
        room = self._limit or max(1024, 2 * len(norms))
        self._norms = torch.full((room,), torch.inf)
        self._norms[: len(norms)] = norms
        self._kept = torch.tensor(kept)
        self._offered = kept
