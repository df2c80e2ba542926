"""The chosen torch optimizer and what surrounds it: groups, accumulation, scaling, clipping, warm-up, state."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fsdeploy.config.training import OptimizerOptions
from fsdeploy.errors import CheckFailedError
from fsdeploy.model.migration import rule_change
from fsdeploy.training.gradient_clip import GradClip
from fsdeploy.training.lion_adabelief import AdaBelief, Lion
from fsdeploy.training.lr_warmup import WarmupScheduler
from fsdeploy.training.moments import ACCUMULATED, load_moments

if TYPE_CHECKING:
    from fsdeploy.training.train import Trainer

__all__ = ["GradClip", "Optimizer", "get_parameter_group_ids"]

logger = logging.getLogger(__name__)

Group = Literal["decay", "no_decay"]
_VERSION = 2
_NORMS = "gradient_clipping/norms"


def get_parameter_group_ids(trainable_variables: Iterable[tuple[str, Tensor]]) -> dict[int, Group]:
    """Whether weight decay applies to each of a model's trainable parameters.

    Args:
        trainable_variables: Names and parameters, as `nn.Module.named_parameters` gives them.

    Returns:
        Index -> "no_decay" for vectors, scalars and names that end in "bias", else "decay".
    """
    return {
        index: "no_decay" if variable.ndim <= 1 or name.endswith("bias") else "decay"
        for index, (name, variable) in enumerate(trainable_variables)
    }


def build_optimizer(
    config: OptimizerOptions, groups: list[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer named in `config` over parameter groups that carry their own weight decay.

    One fused kernel does the whole update where torch has it (adam and adamw).
    """
    shared: dict[str, Any] = {"lr": config.learning_rate}
    betas = (config.ada_beta_1, config.ada_beta_2)
    eps = 10.0**config.epsilon_exponent
    fused = device.type in ("cpu", "cuda", "mps", "xpu")
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, betas=betas, eps=eps, amsgrad=config.ada_amsgrad, fused=fused, **shared)
        case "adamw":
            return torch.optim.AdamW(groups, betas=betas, eps=eps, amsgrad=config.ada_amsgrad, fused=fused, **shared)
        case "adamax":
            return torch.optim.Adamax(groups, betas=betas, eps=eps, **shared)
        case "nadam":
            return torch.optim.NAdam(groups, betas=betas, eps=eps, **shared)
        case "rms-prop":
            return torch.optim.RMSprop(groups, eps=eps, **shared)
        case "lion":
            return Lion(groups, betas=betas, **shared)
        case "adabelief":
            return AdaBelief(groups, betas=betas, eps=eps, amsgrad=config.ada_amsgrad, **shared)
        case name:
            raise ValueError(f"optimizer '{name}' is in no list")


class Optimizer:
    """Updates a model's trainable parameters.

    Args:
        model: The network, on its device already. Parameters that are frozen later need a new `Optimizer`.
        config: The user's options.
        mixed_precision: Scale the loss so that float16 gradients do not vanish. Not needed for bfloat16.
        warmup_steps: Updates over which the learning rate rises; 0 is off.

    Example:
        >>> optimizer = Optimizer(network, OptimizerOptions(optimizer="adamw", weight_decay=0.01), warmup_steps=100)
        >>> optimizer.backward(loss)
        >>> optimizer.step()
    """

    def __init__(
        self, model: nn.Module, config: OptimizerOptions, mixed_precision: bool = False, warmup_steps: int = 0
    ) -> None:
        self._config = config
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self._named:
            raise ValueError("the model has no trainable parameter")
        self._parameters = list(self._named.values())
        self.device = self._parameters[0].device
        self._count = 0
        self.scaler = torch.amp.GradScaler(self.device.type) if mixed_precision else None
        self.clip = self._build_clip()
        self.optimizer = build_optimizer(config, self._groups(), self.device)
        """The wrapped torch optimizer."""
        self.warmup = WarmupScheduler(self.optimizer, warmup_steps) if warmup_steps >= 1 else None
        self.nan_protection = True
        """Leave the weights as they are from the first loss or gradient on that is not finite."""
        self.spoilt = torch.zeros((), dtype=torch.bool, device=self.device)
        """True once `nan_protection` has stopped the updates. Reading it waits for the device."""
        self.gradient_norm = torch.zeros((), device=self.device)
        """L2 norm of all gradients at the last update, before clipping."""
        self._finder: torch.optim.lr_scheduler.LRScheduler | None = None

    def _build_clip(self) -> GradClip | None:
        method = self._config.gradient_clipping
        if method == "none":
            return None
        return GradClip(method, self._config.clipping_value, self._config.autoclip_history)  # type: ignore[arg-type]

    def _groups(self) -> list[dict[str, Any]]:
        ids = get_parameter_group_ids(self._named.items())
        decay: dict[Group, float] = {"decay": self._config.weight_decay, "no_decay": 0.0}
        groups: list[dict[str, Any]] = [
            {"params": [p for i, p in enumerate(self._parameters) if ids[i] == kind], "weight_decay": amount}
            for kind, amount in decay.items()
        ]
        return [group for group in groups if group["params"]]

    @property
    def learning_rate(self) -> float:
        """Rate of the next update, warm-up included."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr(self, lr: float) -> None:
        """Set the base learning rate. A warm-up goes on, towards the new rate."""
        factor = 1.0 if self.warmup is None else self.warmup.factor
        for group in self.optimizer.param_groups:
            group["lr"] = lr * factor
            if "initial_lr" in group:
                group["initial_lr"] = lr
        if self.warmup is not None:
            self.warmup.base_lrs = [lr] * len(self.warmup.base_lrs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` (a scalar), divided by the number of batches of an update."""
        self.note_loss(loss)
        loss = loss / self._config.gradient_accumulation
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()  # type: ignore[no-untyped-call]

    def note_loss(self, loss: Tensor) -> None:
        """Look at a loss (a scalar) that takes part in the next update, such as one joined from several processes.

        With `nan_protection`, no update follows one that is not finite. Does not wait for the device.
        """
        if self.nan_protection:
            self.spoilt |= ~torch.isfinite(loss.detach())

    @property
    def completes_update(self) -> bool:
        """True when the next `step` updates the weights; False while it only accumulates."""
        return self._count + 1 >= self._config.gradient_accumulation

    def step(self) -> None:
        """Count a batch and, when enough are accumulated, clip, update the weights and forget the gradients."""
        self._count += 1
        if self._count < self._config.gradient_accumulation:
            return
        self._count = 0
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        self.gradient_norm = nn.utils.get_total_norm(gradients)
        if self.nan_protection and self.scaler is None:  # with a scaler such gradients are ordinary: it skips them
            self.spoilt |= ~torch.isfinite(self.gradient_norm)
        if self.clip is not None:
            self.clip(self._parameters, self.gradient_norm)
        self._update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._finder is not None:
            self._finder.step()
        elif self.warmup is not None:
            self.warmup.step()

    def _update(self) -> None:
        if self.nan_protection and self._skips_on_device:
            # The kernel itself reads the flag: the host need not wait for the loss. With a scaler a gradient that is
            # not finite costs this one update, which its own step would skip as well; it knows nothing of the loss.
            skips = self.spoilt if self.scaler is None else self.spoilt | ~torch.isfinite(self.gradient_norm)
            self.optimizer.found_inf = skips.float()  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not (self.nan_protection and bool(self.spoilt)):
            if self.scaler is not None:  # skips by itself what is not finite
                self.scaler.step(self.optimizer)
            else:
                self.optimizer.step()
        if self.scaler is not None:
            self.scaler.update()

    @property
    def _skips_on_device(self) -> bool:
        return self.device.type == "cuda" and bool(self.optimizer.defaults.get("fused"))

    def drop_gradients(self) -> None:
        """Forget the gradients of batches since the last update."""
        self._count = 0
        self.optimizer.zero_grad(set_to_none=True)

    def find_learning_rate(
        self,
        trainer: Trainer,
        steps: int,
        start_lr: float,
        end_lr: float,
        strength: Literal["default", "aggressive", "extreme"],
        mode: Literal["set", "graph_and_set", "graph_and_exit"],
    ) -> float:
        """Scan learning rates on the trainer's data, and train with the best.

        Weights, optimizer state and random numbers are as before afterwards.

        Args:
            steps: Updates of the scan.
            start_lr: First rate.
            end_lr: Last rate; the rate grows by a constant factor.
            strength: How close to the edge of divergence the rate is set.
            mode: Whether to draw the curve, and whether to train afterwards.

        Returns:
            The rate that was found.

        Raises:
            CheckFailedError: no rate was found; says why.
        """
        from fsdeploy.training.lr_finder import LearningRateFinder

        before = self._hold()
        self.drop_gradients()
        warmup, self.warmup = self.warmup, None
        try:
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] = start_lr
            factor = (end_lr / start_lr) ** (1.0 / steps)
            self._finder = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, factor)
            batches = self._config.gradient_accumulation
            finder = LearningRateFinder(trainer, self._finder, steps, strength, mode, batches_per_update=batches)
            finder.find()
        finally:
            self._finder, self.warmup = None, warmup
            self._put_back(before)
        if finder.best_lr is None:
            raise CheckFailedError(f"no learning rate was found: {finder.problem}")
        self.set_lr(finder.best_lr)
        return finder.best_lr

    def _hold(self) -> dict[str, Any]:
        """Everything a scan of learning rates changes, kept in memory."""
        tensors, values = self.state_tensors()
        rates = [(group["lr"], group.get("initial_lr")) for group in self.optimizer.param_groups]
        return {"tensors": {k: v.detach().clone() for k, v in tensors.items()}, "metadata": values, "rates": rates}

    def _put_back(self, held: dict[str, Any]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self._count = 0
        self.spoilt.zero_()
        if self.scaler is not None:
            self.scaler = torch.amp.GradScaler(self.device.type)
        self.clip = self._build_clip()
        self.load_state_dict(held)
        for group, (rate, initial) in zip(self.optimizer.param_groups, held["rates"], strict=True):
            group["lr"] = rate
            group.pop("initial_lr", None)
            if initial is not None:
                group["initial_lr"] = initial

    def state_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a model folder keeps of the optimizer.

        Returns:
            Tensors named "<parameter name>/<state key>" (gradients accumulated so far included), and JSON values:
            optimizer name, hyper-parameters, scaler, warm-up, counters.
        """
        tensors = {
            f"{name}/{key}": value
            for name, parameter in self._named.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        if self._count:
            tensors |= {f"{name}/{ACCUMULATED}": p.grad for name, p in self._named.items() if p.grad is not None}
        clip: dict[str, Any] | None = None
        if self.clip is not None and self.clip.method == "autoclip":
            state = self.clip.state_dict()
            tensors[_NORMS] = state["norms"]
            clip = {"kept": state["kept"]}
        hyper = {key: value for key, value in self.optimizer.param_groups[0].items() if key != "params"}
        values = {
            "version": _VERSION,
            "optimizer": self._config.optimizer,
            "hyper_parameters": {k: list(v) if isinstance(v, tuple) else v for k, v in hyper.items()},
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "warmup": None if self.warmup is None else {"steps": self.warmup.steps, "done": self.warmup.last_epoch},
            "accumulated": self._count,
            "clip": clip,
        }
        return tensors, values

    def state_dict(self) -> dict[str, Any]:
        """{"tensors": name -> tensor, "metadata": JSON values}: `state_tensors` in one dict."""
        tensors, values = self.state_tensors()
        return {"tensors": tensors, "metadata": values}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state, exactly.

        Hyper-parameters stay those of the configuration. Parameters without saved state, as after a change of what is
        frozen, start fresh, with a warning; so do those whose state lacks a part. A warm-up goes on if it has the same
        length, else it starts anew.

        Args:
            state_dict: As `state_dict` gives it. "behind", if it is there, counts the iterations that the weights were
                trained on after this state was saved: gradients of a half accumulated update are then dropped, and a
                warm-up is where those iterations brought it.
        """
        tensors, values, behind = state_dict["tensors"], state_dict["metadata"], int(state_dict.get("behind", 0))
        if values.get("optimizer") != self._config.optimizer:
            logger.warning("the saved state is of optimizer '%s': starting fresh", values.get("optimizer"))
            return
        if change := rule_change(self._config.optimizer, str(values.get("optimizer_rule"))):
            logger.warning(change)  # told once: our own saves do not carry the rule on
        if behind:
            tensors = {key: value for key, value in tensors.items() if not key.endswith(f"/{ACCUMULATED}")}
        fresh = load_moments(self.optimizer, self._named, tensors, self._state_keys())
        if fresh and len(fresh) < len(self._named):
            logger.warning(
                "no saved optimizer state for %d parameters, %s first: they start fresh", len(fresh), fresh[0]
            )
        elif fresh and tensors:
            logger.warning("the saved optimizer state fits none of the model's parameters: starting fresh")
        if self.scaler is not None and values.get("scaler"):  # the scaler of a run without one is empty
            self.scaler.load_state_dict(values["scaler"])
        warmup = values.get("warmup")
        if self.warmup is not None and warmup and warmup["steps"] == self.warmup.steps:
            missed = (int(values.get("accumulated", 0)) + behind) // self._config.gradient_accumulation if behind else 0
            self.warmup.resume(warmup["done"] + missed)
        if self.clip is not None and values.get("clip") and _NORMS in tensors:
            self.clip.load_state_dict({"norms": tensors[_NORMS], "kept": values["clip"]["kept"]})
        accumulated = 0 if behind else int(values.get("accumulated", 0))
        self._count = min(accumulated, self._config.gradient_accumulation - 1)

    def _state_keys(self) -> dict[str, bool]:
        """What the optimizer keeps per parameter, found by trial: key -> whether it has the parameter's shape."""
        parameter = nn.Parameter(torch.zeros(1))
        trial = build_optimizer(self._config, [{"params": [parameter]}], parameter.device)
        parameter.grad = torch.zeros(1)
        trial.step()
        return {key: value.ndim > 0 for key, value in trial.state[parameter].items()}

    def to(self, device: torch.device) -> None:
        """Move the optimizer's tensors to where the model's parameters are now. `step` counters that live on the CPU
        for the host to read stay there."""
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                if value.ndim or bool(self.optimizer.defaults.get("fused")):
                    state[key] = value.to(device)
            if parameter.grad is not None:
                parameter.grad = parameter.grad.to(device)
        self.device = torch.device(device)
        self.spoilt, self.gradient_norm = self.spoilt.to(device), self.gradient_norm.to(device)
