"""The state JSON of the original program, any release, as ours. What has no meaning here is kept under "legacy"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy.config.option import check_value, specs
from fsdeploy.config.training import AugmentationOptions, LoaderOptions, TrainingOptions
from fsdeploy.errors import FsdeployError
from fsdeploy.model.stored_options import rewrite_legacy
from fsdeploy_converters import limits
from fsdeploy_converters.errors import hostile, shown
from fsdeploy_converters.keras_graph import KerasLayer, KerasNet
from fsdeploy_converters.strict_json import read_object

_SESSION_KEYS: dict[str, tuple[type, ...]] = {
    "timestamp": (int, float), "no_logs": (bool,), "batchsize": (int,), "iterations": (int,), "config": (dict,),
}  # fmt: skip
_BGR_ENCODERS = ("fs_original", "vgg")


@dataclass(frozen=True)
class MigratedState:
    """What the state file says, in our terms."""

    plugin: str
    values: Mapping[str, Any]
    """Keys of our state JSON."""
    color_order: str
    warnings: tuple[str, ...]


class _Reader:
    def __init__(self, has_mask: bool) -> None:
        self.warnings: list[str] = []
        self.legacy: dict[str, Any] = {}
        self.has_mask = has_mask

    def read(self, path: Path | None) -> dict[str, Any]:
        if path is None:
            self.warnings.append("there is no state file: iterations are taken as 0, options as defaults")
            return {}
        try:
            return read_object(_bounded(path), path)
        except (FsdeployError, OSError) as error:
            self.warnings.append(f"the state file cannot be used, iterations are taken as 0 ({error})")
            return {}

    def number(self, stored: dict[str, Any], key: str, default: float) -> float:
        value = stored.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
            self.warnings.append(f"the state's {key} is {shown(value)}: {default} is taken")
            return default
        return value

    def sessions(self, stored: Any) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        dropped: dict[str, Any] = {}
        for key, entry in stored.items() if isinstance(stored, dict) else ():
            if not key.isdigit() or len(key) > 6 or int(key) < 1 or not isinstance(entry, dict):
                self.warnings.append(f"the session {shown(key)} is damaged and left out")
                continue
            plain: dict[str, Any] = {"timestamp": 0.0, "no_logs": False, "batchsize": 0, "iterations": 0, "config": {}}
            for name, kind in _SESSION_KEYS.items():
                value = entry.get(name)
                if isinstance(value, kind) and (name == "no_logs" or not isinstance(value, bool)):
                    plain[name] = value
            if plain["iterations"] > 0 and plain["batchsize"] >= 0:
                kept[str(int(key))] = plain
            rest = {name: value for name, value in entry.items() if name not in _SESSION_KEYS}
            if rest:
                dropped[str(int(key))] = rest
        if dropped:
            self.legacy["sessions"] = dropped
        return kept

    def config(self, stored: Any, assumed: tuple[str, float], exists: bool) -> dict[str, Any]:
        """Known options with valid values; the rest goes to "legacy"."""
        given = rewrite_legacy({k: v for k, v in stored.items() if isinstance(k, str)} if _is_config(stored) else {})
        known = known_options()
        config: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                others[name] = value
                continue
            kind, spec = known[name]
            value = "none" if value is None and kind is str else value
            if kind is int and isinstance(value, float) and value.is_integer():
                value = int(value)
            try:
                config[name] = check_value(name, kind, spec, value)
            except FsdeployError as error:
                others[name] = value
                self.warnings.append(f"{error}: the default is taken")
        centering, coverage = ("legacy", 62.5) if exists else assumed
        if not {"centering", "coverage"} <= set(config):
            config.setdefault("centering", centering)
            config.setdefault("coverage", coverage)
            crop = f"centering {config['centering']}, coverage {config['coverage']} %"
            self.warnings.append(f"the state does not tell the whole crop: {crop} is taken")
        if others:
            self.legacy["config"] = others
        return self.consistent(config)

    def color_order(self, encoder: KerasLayer | None) -> str:
        """Order of the colours of a model whose encoder may be a pretrained one, "bgr" or "rgb".

        Only the state says it. Without it, the network inside the encoder tells by its name what it is.
        """
        named = self.legacy.get("config", {}).get("enc_architecture")
        if isinstance(named, str):
            return _order_of(named)
        inside = [] if encoder is None or encoder.net is None else encoder.net.layers.values()
        pretrained = next((layer.name for layer in inside if layer.net is not None), None)
        order = "bgr" if pretrained is None else _order_of(pretrained)
        holds = "no pretrained network" if pretrained is None else f"the network {shown(pretrained)}"
        self.warnings.append(
            f"the state does not name the encoder, the graph holds {holds}: colours are taken as {order.upper()}; "
            "should that be wrong, write config.enc_architecture into the state file"
        )
        return order

    def consistent(self, config: dict[str, Any]) -> dict[str, Any]:
        """The graph decides about a mask output; a loss on a mask needs a mask."""
        if config.get("learn_mask", self.has_mask) != self.has_mask:
            self.warnings.append(f"the state says learn_mask {config['learn_mask']}, the graph {self.has_mask}")
        config["learn_mask"] = self.has_mask
        if config.get("mask_type") == "none":
            if self.has_mask:
                config["mask_type"] = "extended"
                self.warnings.append("the model learns a mask but names no mask_type: extended is taken")
            else:
                config.update(penalized_mask_loss=False, eye_multiplier=1, mouth_multiplier=1)
        return config


def _bounded(path: Path) -> bytes:
    """The bytes of a state file, which are few.

    Raises:
        HostileFileError: they are more than any description has.
    """
    size = path.stat().st_size
    if size > limits.JSON_BYTES:
        raise hostile(path, f"a state of {size} bytes")
    with path.open("rb") as stream:
        return stream.read(limits.JSON_BYTES + 1)


def _order_of(encoder: str) -> str:
    """Pretrained encoders were trained on RGB, but VGG, and the program's own, on BGR."""
    return "bgr" if encoder.lower().startswith(_BGR_ENCODERS) else "rgb"


def _is_config(stored: Any) -> bool:
    return isinstance(stored, dict)


def known_options() -> dict[str, tuple[type, Any]]:
    """Every stored training option: name -> type and spec."""
    return {
        name: (kind, spec)
        for field in dataclasses.fields(TrainingOptions)
        if not isinstance(getattr(TrainingOptions(), field.name), (LoaderOptions, AugmentationOptions))
        for name, (kind, _, spec) in specs(type(getattr(TrainingOptions(), field.name))).items()
    }


def plugin_name(model_name: str) -> str:
    """Plugin of a model name: one plugin has two architectures."""
    name = model_name.lower().replace("-", "_")
    name = "dfl_sae" if name.startswith("dfl_sae") else name
    return name if name.isascii() and name.replace("_", "").isalnum() else "imported"


def migrated_state(
    path: Path | None, model: KerasNet | str, has_mask: bool, assumed: tuple[str, float]
) -> MigratedState:
    """Read the state file of a model; a missing or broken one is no obstacle.

    Args:
        path: The file, None when there is none.
        model: The graph, or the name of the model where there is none; the state's own name does not overrule it.
        has_mask: Whether the graph has a mask output.
        assumed: Centering and coverage (percent) of this generation's defaults, for a model without a state.
    """
    model_name = model if isinstance(model, str) else model.name
    reader = _Reader(has_mask)
    stored = reader.read(path)
    plugin = plugin_name(model_name)
    named = stored.pop("name", plugin)
    if named != plugin and plugin_name(str(named)) != plugin:
        reader.warnings.append(
            f"the state speaks of {shown(named)}, the model of {shown(model_name)}: the model is right"
        )
    epochs = reader.number(stored, "epoch_no", 0)
    lowest = stored.pop("lowest_avg_loss", 0.0)
    if isinstance(lowest, dict):
        lowest = sum(value for value in lowest.values() if isinstance(value, (int, float)))
    values: dict[str, Any] = {
        "sessions": reader.sessions(stored.pop("sessions", {})),
        "iterations": max(int(reader.number(stored, "iterations", epochs)), 0),
        "lowest_avg_loss": max(reader.number({"lowest": lowest}, "lowest", 0.0), 0.0),
        "lr_finder": reader.number(stored, "lr_finder", -1.0),
        "mixed_precision_layers": [],
        "config": reader.config(stored.pop("config", {}), assumed, exists=path is not None),
    }
    reader.legacy |= stored
    values["legacy"] = reader.legacy
    color_order = "bgr"
    if plugin == "phaze_a":
        color_order = reader.color_order(None if isinstance(model, str) else model.layers.get("encoder"))
    return MigratedState(plugin, values, color_order, tuple(reader.warnings))
