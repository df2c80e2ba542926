"""`Legacy`: a Keras 2 `.h5` as a `.keras` file of today, graph and weights, without Keras.

What changed between the two descriptions: calls of nested nets are counted from zero instead of one, outputs are a flat
list, a call is {args, kwargs} with tensors that tell their history, and a few options have other names. The one
function that real files carry as code, a scaled sum, becomes the layer that Keras 3 has for it; code is never copied.

What does not carry over is arithmetic: Keras 3 on torch crops transposed convolutions one pixel differently, and its
hard sigmoid is (x + 3) / 6 where that of Keras 2 is 0.2 x + 0.5.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fsdeploy import files
from fsdeploy.errors import InputError
from fsdeploy_converters import limits
from fsdeploy_converters.assign import check_dataset
from fsdeploy_converters.errors import unsupported
from fsdeploy_converters.hdf5 import Hdf5File
from fsdeploy_converters.keras2 import place_weights
from fsdeploy_converters.keras2_weights import check_version
from fsdeploy_converters.keras3_weights import layer_keys
from fsdeploy_converters.keras_graph import Keras2Reader, KerasCall, KerasLayer, KerasNet, Ref
from fsdeploy_converters.layer_config import Dialect, Shape
from fsdeploy_converters.strict_json import read_object
from fsdeploy_converters.translate import Slot, Translated, translate
from fsdeploy_converters.window import Window

KERAS_VERSION = "3.14.1"
_MODULES = {
    "lib.model.layers": (
        "PixelShuffler", "ReflectionPadding2D", "KResizeImages", "Swish", "QuickGELU", "ScalarOp", "L2Normalize",
        "GlobalMinPooling2D", "GlobalStdDevPooling2D",
    ),
    "lib.model.normalization": (
        "InstanceNormalization", "AdaInstanceNormalization", "GroupNormalization", "RMSNormalization",
    ),
    "keras.src.applications.inception_resnet_v2": ("CustomScaleLayer",),
}  # fmt: skip
_DROPPED = {
    "DepthwiseConv2D": ("groups",),
    "Conv2DTranspose": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SpatialDropout2D": ("trainable",),
}
_NEW_CLASSES = {"TFOpLambda": "ScalarOp", "SubPixelUpscaling": "PixelShuffler", "Lambda": "CustomScaleLayer"}
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}, "InputLayer": {"batch_input_shape": "batch_shape"}}
_OPERATIONS = {"math.multiply": "multiply", "math.subtract": "subtract", "__operators__.add": "add"}

Shapes = Mapping[tuple[tuple[str, ...], str, int, int], Shape]
"""Net, layer, call, output -> shape without the batch."""


class Legacy:
    """Handles the updating of Keras 2.x models to Keras 3.x.

    Args:
        model_path: The `.h5` file; it is only read.

    Raises:
        FsdeployError: the file cannot be read as a model.

    Example:
        >>> Legacy("old_model/original.h5")("new_model/original.keras")
    """

    def __init__(self, model_path: str) -> None:
        self._path = Path(model_path)
        self._file = Hdf5File(Window.whole(self._path), limits.KERAS2_HDF5, model_path)
        check_version(self._file)
        config = self._file.text("", "model_config")
        if config is None:
            raise unsupported(model_path, "it holds weights without a graph (no model_config)")
        self._root = Keras2Reader(model_path).read(read_object(config, model_path))
        self._shapes: dict[tuple[tuple[str, ...], str, int, int], Shape] = {}
        self._translated: Translated = translate(self._root, Dialect.KERAS2, model_path, self._shapes)

    def config(self) -> dict[str, Any]:
        """The graph description in the grammar of Keras 3."""
        return {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": _net(self._root, (), self._shapes),
            "registered_name": "Functional",
            "build_config": {"input_shape": None},
            "compile_config": {},
        }

    def __call__(self, output: str | None = None) -> Path:
        """Write the `.keras` file, by default beside the source.

        Raises:
            InputError: the file exists already or cannot be written.
        """
        target = Path(output) if output else self._path.with_suffix(".keras")
        if target.exists():
            raise InputError(f"{target} exists already: choose another name")
        metadata = {"keras_version": KERAS_VERSION, "date_saved": "1980-01-01@00:00:00"}
        with tempfile.TemporaryDirectory(prefix="fsdeploy_") as folder, files.atomic_path(target) as temporary:
            weights = Path(folder) / "model.weights.h5"
            self._write_weights(weights)
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(zipfile.ZipInfo("metadata.json"), json.dumps(metadata))
                archive.writestr(zipfile.ZipInfo("config.json"), json.dumps(self.config()))
                archive.write(weights, "model.weights.h5")
        return target

    def _write_weights(self, path: Path) -> None:
        places = place_weights(self._file, self._root, self._translated.slots)
        for slot in self._translated.slots:
            check_dataset(self._file, places[slot][1], slot)
        with h5py.File(path, "w") as target:
            groups = _write_groups(target, self._root, ())
            for slot in self._translated.slots:
                own = groups[slot.path]
                holder = own.require_group(f"{slot.place}/vars" if slot.place else "vars")
                holder.create_dataset(str(slot.index), data=_as_written(slot, self._file.read(places[slot][1])))


def _as_written(slot: Slot, values: NDArray[Any]) -> NDArray[Any]:
    """Values in the precision that Keras 3 has for them: samples are counted in 32 bits there."""
    if slot.kind == "count":
        return np.clip(np.nan_to_num(values.astype(np.float64)), 0, np.iinfo(np.int32).max).astype(np.int32)
    return values.astype(np.float32, copy=False)


def _write_groups(group: h5py.Group, net: KerasNet, path: tuple[str, ...]) -> dict[tuple[str, ...], h5py.Group]:
    """A group for each layer, and in it `vars` with the layer's name."""
    found: dict[tuple[str, ...], h5py.Group] = {}
    group.create_group("vars").attrs["name"] = net.name
    for name, key in layer_keys(_as_keras3(net)).items():
        own = found[(*path, name)] = group.create_group(f"layers/{key}")
        inner = net.layers[name].net
        if inner is not None:
            found |= _write_groups(own, inner, (*path, name))
        else:
            own.create_group("vars").attrs["name"] = name
    return found


def _as_keras3(net: KerasNet) -> KerasNet:
    """The same net with the class names that the new file has: keys are made of them."""
    layers = {
        name: KerasLayer(_class_name(layer), name, layer.config, layer.calls, layer.net)
        for name, layer in net.layers.items()
    }
    return KerasNet(net.name, layers, net.inputs, net.outputs)


def _class_name(layer: KerasLayer) -> str:
    if layer.net is not None:
        return "Functional"
    return _NEW_CLASSES.get(layer.class_name, layer.class_name)


def _net(net: KerasNet, path: tuple[str, ...], shapes: Shapes) -> dict[str, Any]:
    nested = {name for name, layer in net.layers.items() if layer.net is not None}

    def ends(refs: tuple[Ref, ...]) -> list[list[Any]]:
        # Here, and only here, calls of nested nets are still counted from one.
        return [[ref.layer, ref.call + (1 if ref.layer in nested else 0), ref.output] for ref in refs]

    return {
        "name": net.name,
        "trainable": True,
        "layers": [_layer(layer, path, shapes) for layer in net.layers.values()],
        "input_layers": ends(net.inputs),
        "output_layers": ends(net.outputs),
    }


def _layer(layer: KerasLayer, path: tuple[str, ...], shapes: Shapes) -> dict[str, Any]:
    class_name = _class_name(layer)
    own = next((module for module, names in _MODULES.items() if class_name in names), None)
    if layer.net is not None:
        config, module = _net(layer.net, (*path, layer.name), shapes), "keras.src.models.functional"
    else:
        config, module = _layer_config(layer), own or "keras.layers"
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": class_name if own or layer.net else None,
        "name": layer.name,
        "inbound_nodes": [_call(call, path, shapes) for call in layer.calls if call.inputs],
    }


def _layer_config(layer: KerasLayer) -> dict[str, Any]:
    renamed = _RENAMED.get(layer.class_name, {})
    dropped = _DROPPED.get(layer.class_name, ())
    config = {renamed.get(key, key): value for key, value in layer.config.items() if key not in dropped}
    if layer.class_name == "SubPixelUpscaling":
        config["size"] = config.pop("scale_factor", 2)
    if layer.class_name == "TFOpLambda":
        constant = layer.calls[0].constants.get("y")
        return {"name": layer.name, "operation": _OPERATIONS.get(str(config.get("function"))), "value": constant}
    if layer.class_name == "Lambda":
        # Translation has made sure that this is all there is to the code.
        config = {"name": layer.name, "scale": config["arguments"]["scale"], "dtype": config.get("dtype")}
    policy = config.get("dtype")
    name = policy.get("config", {}).get("name", "float32") if isinstance(policy, dict) else policy or "float32"
    config["dtype"] = {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": name},
        "registered_name": None,
    }
    if layer.class_name == "InputLayer":
        config = {"batch_shape": config["batch_shape"], "dtype": "float32", "sparse": False, "name": layer.name}
    return config


def _call(call: KerasCall, path: tuple[str, ...], shapes: Shapes) -> dict[str, Any]:
    tensors = [_tensor(ref, shapes[(path, ref.layer, ref.call, ref.output)]) for ref in call.inputs]
    return {"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": {}}


def _tensor(ref: Ref, shape: Shape) -> dict[str, Any]:
    history = [ref.layer, ref.call, ref.output]
    config = {"shape": [None, *shape], "dtype": "float32", "keras_history": history}
    return {"class_name": "__keras_tensor__", "config": config}
