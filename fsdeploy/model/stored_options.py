"""Options of an existing model against those of this run: fixed ones keep the model's value, others follow the run.

Old spellings of the original system are understood.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsdeploy.config.option import OptionSpec, check_value, specs
from fsdeploy.config.training import AugmentationOptions, LoaderOptions, TrainingOptions
from fsdeploy.errors import ConfigError

logger = logging.getLogger(__name__)

# Of how faces are read and shown, not of the model: never stored with it.
_RUN_ONLY = (LoaderOptions, AugmentationOptions)
# What a model was trained with when its file, written by an old release, does not say.
_LEGACY_DEFAULTS = {
    "centering": "legacy", "coverage": 62.5, "mask_loss_function": "mse", "optimizer": "adam", "mixed_precision": False,
}  # fmt: skip
_GEOMETRY = ("centering", "coverage", "vertical_offset")


@dataclass(frozen=True)
class ResolvedOptions:
    """The options that hold for this run of an existing or new model."""

    training: TrainingOptions
    plugin: Any
    """Instance of the plugin's own options dataclass."""
    config: dict[str, Any]
    """What is stored: flat, all sections but loader and augmentation, the plugin's own, unknown keys kept."""
    updatable: dict[str, Any]
    """The options of `config` that may change on resume, as a session records them."""
    precision_changed: bool
    """True when `mixed_precision` differs from the stored value."""


def rewrite_legacy(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Translate option spellings of old releases; returns a new mapping."""
    config = dict(stored)
    if "dssim_loss" in config:
        config["loss_function"] = "ssim" if config.pop("dssim_loss") else "mae"
    if "mask_type" in config and "learn_mask" not in config:
        config["learn_mask"] = config["mask_type"] is not None
    if config.get("mask_type") in ("facehull", "dfl_full"):
        config["mask_type"] = "components"
    if "l2_reg_term" in config:
        config["loss_function_2"], config["loss_weight_2"] = "mse", config.pop("l2_reg_term")
    if config.pop("clipnorm", False):
        config["gradient_clipping"] = "norm"
    if config.pop("autoclip", False):
        config["gradient_clipping"] = "autoclip"
    return config


def resolve(
    stored: Mapping[str, Any] | None,
    training: TrainingOptions | None,
    plugin_type: type,
    plugin: Any | None,
    source: str,
) -> ResolvedOptions:
    """Merge the stored options of a model with those of this run.

    Args:
        stored: The `config` of the state JSON, None for a new model.
        training, plugin: Options of this run; None takes the stored ones.
        plugin_type: The plugin's options dataclass.
        source: The state file, for messages.

    Raises:
        ConfigError: a stored option that shapes the network or the crop has an impossible value.
    """
    old = None if stored is None else rewrite_legacy(stored)
    given = training or TrainingOptions()
    sections: dict[str, Any] = {}
    updatable: dict[str, Any] = {}
    config: dict[str, Any] = dict(old or {})
    for field in dataclasses.fields(TrainingOptions):
        section = getattr(given, field.name)
        if isinstance(section, _RUN_ONLY):
            continue
        values = _merge(section, old, training is not None, source, strict=_GEOMETRY)
        sections[field.name] = dataclasses.replace(section, **values)
        config.update(values)
        updatable.update({name: values[name] for name, (_, _, spec) in specs(type(section)).items() if not spec.fixed})
    own = plugin if plugin is not None else plugin_type()
    own_values = _merge(own, old, plugin is not None, source, strict=tuple(specs(plugin_type)))
    config.update(own_values)
    updatable.update({name: own_values[name] for name, (_, _, spec) in specs(plugin_type).items() if not spec.fixed})
    return ResolvedOptions(
        dataclasses.replace(given, **sections),
        dataclasses.replace(own, **own_values),
        config,
        updatable,
        precision_changed=old is not None
        and bool(old.get("mixed_precision", False)) != sections["network"].mixed_precision,
    )


def _merge(
    section: Any, stored: Mapping[str, Any] | None, is_given: bool, source: str, strict: tuple[str, ...]
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, (kind, _, spec) in specs(type(section)).items():
        given = merged[name] = check_value(name, kind, spec, getattr(section, name))
        if stored is None or (name not in stored and (is_given or name not in _LEGACY_DEFAULTS)):
            continue
        if is_given and not spec.fixed:
            if name in stored and stored[name] != given:
                logger.info("option '%s' changes from %r to %r", name, stored[name], given)
            continue
        value = stored[name] if name in stored else _LEGACY_DEFAULTS[name]
        merged[name] = _stored_value(name, kind, spec, value, given, source, name in strict)
        if is_given and merged[name] != given:
            logger.warning(
                "option '%s' is fixed once a model exists: the model's %r is kept, not %r", name, merged[name], given
            )
    return merged


def _stored_value(name: str, kind: type, spec: OptionSpec, value: Any, fallback: Any, source: str, strict: bool) -> Any:
    if value is None and kind is str:
        value = "none"
    elif kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return check_value(name, kind, spec, value)
    except ConfigError as error:
        if strict:
            raise ConfigError(f"{source}: {error}") from error
        logger.warning("%s: %s; %r is used", source, error, fallback)
        return fallback
