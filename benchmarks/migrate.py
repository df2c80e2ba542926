"""How long does a migration take, and how much memory does it need?

    python benchmarks/migrate.py [PATH ...]

Without PATH an `.h5` of 313 MB is made first: the network of `original` with random weights, as Keras 2 writes it. Each
migration runs in a process of its own. `memory` is what the process holds at its peak over what it held after importing
torch, in multiples of the file's size: the target is under 1.5, and under 10 s for 300 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MEASURE = """
import json, re, sys, time
from pathlib import Path
from fsdeploy.model.migrate import open_migration, report, write_migration
import fsdeploy_converters.keras0, fsdeploy_converters.keras1, fsdeploy_converters.keras2
import fsdeploy_converters.keras3_torch, fsdeploy_plugins.models.original, fsdeploy_plugins.models.imported

def held(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
before, wall, cpu = held("VmRSS"), time.monotonic(), time.process_time()
with open_migration(Path(sys.argv[1])) as migration:
    write_migration(migration, Path(sys.argv[2]))
    found = report(migration, Path(sys.argv[2]), True)
figures = {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu, "memory": held("VmHWM") - before}
print(json.dumps({**figures, "plugin": found.plugin, "optimizer": found.optimizer}))
"""


def layer(class_name: str, name: str, source: str | None, **config: Any) -> dict[str, Any]:
    """A layer that is called once."""
    nodes = [[[source, 0, 0, {}]]] if source else []
    return {"class_name": class_name, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


class Net:
    """A chain of layers and the shapes of its weights."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shapes = name, {}
        self.layers = [layer("InputLayer", "input", None, batch_input_shape=[None, *shape])]
        self.channels = shape[-1]

    def add(self, class_name: str, name: str, **config: Any) -> None:
        self.layers.append(layer(class_name, name, self.layers[-1]["name"], **config))

    def conv(self, name: str, filters: int, kernel: int, stride: int = 1) -> None:
        sizes = {"filters": filters, "kernel_size": [kernel] * 2, "strides": [stride] * 2, "padding": "same"}
        self.add("Conv2D", name, **sizes)
        self.shapes[name], self.channels = (kernel, kernel, self.channels, filters), filters

    def dense(self, name: str, inputs: int, units: int) -> None:
        self.add("Dense", name, units=units)
        self.shapes[name] = (inputs, units)

    def up(self, filters: int) -> None:
        self.conv(f"up_{filters}", 4 * filters, 3)
        self.add("LeakyReLU", f"up_{filters}_slope", alpha=0.1)
        self.add("PixelShuffler", f"up_{filters}_shuffle", size=[2, 2])
        self.channels = filters

    def described(self, calls: list[Any]) -> dict[str, Any]:
        ends = {"input_layers": [["input", 0, 0]], "output_layers": [[self.layers[-1]["name"], 0, 0]]}
        config = {"name": self.name, "layers": self.layers, **ends}
        return {"class_name": "Functional", "name": self.name, "config": config, "inbound_nodes": calls}


def write_original(path: Path) -> None:
    """The network of `original` in Keras 2's HDF5, weights random."""
    encoder = Net("encoder", (64, 64, 3))
    for filters in (128, 256, 512, 1024):
        encoder.conv(f"conv_{filters}", filters, 5, 2)
        encoder.add("LeakyReLU", f"slope_{filters}", alpha=0.1)
    encoder.add("Flatten", "flatten")
    encoder.dense("dense", 16384, 1024)
    encoder.dense("dense_1", 1024, 16384)
    encoder.add("Reshape", "reshape", target_shape=[4, 4, 1024])
    encoder.channels = 1024
    encoder.up(512)
    decoders = []
    for side in "ab":
        decoder = Net(f"decoder_{side}", (8, 8, 512))
        for filters in (256, 128, 64):
            decoder.up(filters)
        decoder.conv("face", 3, 5)
        decoder.add("Activation", "face_out", activation="sigmoid")
        decoders.append(decoder)
    faces = [layer("InputLayer", f"face_in_{side}", None, batch_input_shape=[None, 64, 64, 3]) for side in "ab"]
    nets = [encoder.described([[["face_in_a", 0, 0, {}]], [["face_in_b", 0, 0, {}]]])]
    nets += [decoder.described([[["encoder", side + 1, 0, {}]]]) for side, decoder in enumerate(decoders)]
    config = {
        "name": "original",
        "layers": faces + nets,
        "input_layers": [["face_in_a", 0, 0], ["face_in_b", 0, 0]],
        "output_layers": [["decoder_a", 1, 0], ["decoder_b", 1, 0]],
    }
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.10.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        for net in (encoder, *decoders):
            group = file.create_group(f"model_weights/{net.name}")
            group.attrs["weight_names"] = [f"{name}/{kind}:0" for name in net.shapes for kind in ("kernel", "bias")]
            for name, shape in net.shapes.items():
                kernel = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
                group[f"{name}/kernel:0"], group[f"{name}/bias:0"] = kernel, np.zeros(shape[-1], np.float32)


def size_of(path: Path) -> float:
    """Bytes of a file, or of the model files of a folder."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in (".h5", ".keras")]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    paths = parser.parse_args().paths
    with tempfile.TemporaryDirectory() as folder:
        if not paths:
            paths = [Path(folder) / "original.h5"]
            write_original(paths[0])
        for number, path in enumerate(paths):
            command = [sys.executable, "-c", MEASURE, str(path), str(Path(folder) / f"out_{number}")]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            size = size_of(path) / (1 << 20)
            print(
                f"{path.name}: {size:.0f} MB, {figures['wall']:.1f} s ({figures['cpu']:.1f} s of processor), "
                f"memory {figures['memory']:.0f} MB = {figures['memory'] / size:.2f} of the file, "
                f"plugin {figures['plugin']}, optimizer {figures['optimizer']}"
            )


if __name__ == "__main__":
    main()
