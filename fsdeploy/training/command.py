"""What `fsdeploy train` does, step by step."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fsdeploy.errors import InputError
from fsdeploy.images import write_image
from fsdeploy.model.base import ModelBase
from fsdeploy.model.registry import model_class
from fsdeploy.training import processes, session
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.preview_cv import PreviewBuffer
from fsdeploy.training.preview_window import open_preview
from fsdeploy.training.registry import trainer_class
from fsdeploy.training.requests import Requests, signals
from fsdeploy.training.setup import check_folders, choose_plugin, gather_options
from fsdeploy.training.train import Trainer

logger = logging.getLogger(__name__)

SMALL_PLUGIN = "compact"
"""What is proposed where the model asked for is slow."""
_MANY_FOR_A_CPU = 20_000_000


@dataclass(frozen=True)
class TrainArguments:
    """The command line of `fsdeploy train`."""

    model_dir: Path
    input_a: Path | None = None
    input_b: Path | None = None
    plugin: str | None = None
    """Asked for; None takes that of the folder (see `choose_plugin`)."""
    batch_size: int = 16
    iterations: int | None = None
    warmup: int = 0
    save_interval: int = 250
    snapshot_interval: int = 25000
    use_lr_finder: bool = False
    config_file: Path | None = None
    settings: tuple[str, ...] = ()
    load_weights: Path | None = None
    freeze_weights: bool = False
    loss_weights: Path | None = None
    preview: bool = False
    write_image: bool = False
    timelapse_a: Path | None = None
    timelapse_b: Path | None = None
    timelapse_output: Path | None = None
    warp_to_landmarks: bool = False
    no_flip: bool = False
    no_augment_color: bool = False
    no_warp: bool = False
    augment_on: Literal["auto", "cpu", "device"] | None = None
    distributed: bool = False
    nproc: int = 1
    compile_network: bool = False
    seed: int | None = None
    no_logs: bool = False
    summary: bool = False
    quiet: bool = False

    @property
    def folders(self) -> tuple[Path, Path]:
        """The two folders of faces.

        Raises:
            InputError: one was not named.
        """
        if self.input_a is None or self.input_b is None:
            missing = "-A" if self.input_a is None else "-B"
            raise InputError(f"no folder of faces was named with {missing}: training needs -A and -B")
        return self.input_a, self.input_b

    @property
    def timelapse_folders(self) -> tuple[Path, Path] | None:
        """The two folders of a time-lapse, if one was asked for.

        Raises:
            InputError: only one was named, or only its output.
        """
        if self.timelapse_a is not None and self.timelapse_b is not None:
            return self.timelapse_a, self.timelapse_b
        if self.timelapse_a is None and self.timelapse_b is None and self.timelapse_output is None:
            return None
        missing = "-x" if self.timelapse_a is None else "-y"
        raise InputError(f"no folder of faces was named with {missing}: a time-lapse needs -x and -y")

    def train_config(self) -> TrainConfig:
        """The settings that the trainer gets."""
        return TrainConfig(
            folders=self.folders,
            batch_size=self.batch_size,
            augment_color=not self.no_augment_color,
            flip=not self.no_flip,
            warp=not self.no_warp,
            cache_landmarks=self.warp_to_landmarks,
            lr_finder=self.use_lr_finder,
            snapshot_interval=self.snapshot_interval,
        )


def run_command(arguments: TrainArguments) -> None:
    """Train as the command line says.

    Raises:
        FsdeployError: anything a user can put right.
    """
    check_folders([*arguments.folders, *(arguments.timelapse_folders or ())])
    _warn_of_one_folder(arguments.folders)
    plugin_class = trainer_class(_trainer_name(arguments))
    requests = Requests()
    with (
        signals(requests),
        processes.joined(),
        _no_empty_folder(arguments.model_dir),
        _model(arguments) as model,
    ):
        trainer = Trainer(
            plugin_class(model, arguments.train_config()),
            preview=arguments.preview or arguments.write_image,
            warmup_steps=arguments.warmup,
            timelapse_folders=arguments.timelapse_folders,
            timelapse_output=arguments.timelapse_output or arguments.model_dir / "timelapse",
            seed=arguments.seed,
            augment_on=arguments.augment_on,
            loss_weights=arguments.loss_weights,
            compile_network=arguments.compile_network,
            logs=not arguments.no_logs,
            quiet=arguments.quiet,
        )
        try:
            if trainer.exit_early:
                trainer.save(is_exit=True)
            else:
                _announce(trainer)
                _run(trainer, arguments, requests)
        finally:
            trainer.close()


def _trainer_name(arguments: TrainArguments) -> str:
    if processes.is_worker():
        return "ddp"
    return "distributed" if arguments.distributed else "original"


def _warn_of_one_folder(folders: tuple[Path, Path]) -> None:
    a, b = folders
    if a.samefile(b):
        logger.warning(
            "-A and -B are the same folder, %s: the model will not learn to swap anybody; name faces of another person"
            " with -B",
            a,
        )


def _announce(trainer: Trainer) -> None:
    """Say what is trained, and on what: the first line of a run."""
    model = trainer.model
    count = sum(tensor.numel() for tensor in model.model.parameters())
    iterations = f"from iteration {trainer.iterations} on" if trainer.iterations else "a new model"
    # A face takes the longer the larger the model, so a plugin of any name may be too large for a CPU.
    slow = trainer.device.type == "cpu" and count > _MANY_FOR_A_CPU
    hint = f" (slow on a CPU: to try things out, train a new model with -t {SMALL_PLUGIN})" if slow else ""
    logger.info("%s, %.1f M parameters, %s, on %s%s", model.name, count / 1e6, iterations, trainer.device, hint)


def _run(trainer: Trainer, arguments: TrainArguments, requests: Requests) -> None:
    picture = arguments.model_dir / "training_preview.png"
    buffer = PreviewBuffer()

    def view(image: NDArray[np.uint8], name: str) -> None:
        buffer.add_image(name, image)
        if arguments.write_image:
            write_image(picture, image)

    writes = trainer.model.io.is_writer  # of several processes, one shows and writes
    viewer = view if writes and (arguments.preview or arguments.write_image) else None
    has_window = writes and arguments.preview
    window = open_preview(buffer, requests.triggers(), picture) if has_window else contextlib.nullcontext()
    with window:
        session.run(
            trainer,
            requests,
            arguments.iterations,
            arguments.save_interval,
            viewer,
            writes and arguments.timelapse_folders is not None,
            arguments.quiet or not writes,
        )


@contextmanager
def _model(arguments: TrainArguments) -> Iterator[ModelBase]:
    kind = model_class(choose_plugin(arguments.model_dir, arguments.plugin))
    training, own = gather_options(kind, arguments.model_dir, arguments.config_file, arguments.settings)
    model = kind(
        arguments.model_dir,
        own,
        training,
        freeze_weights=arguments.freeze_weights,
        load_weights=arguments.load_weights,
        no_logs=arguments.no_logs,
    )
    try:
        if arguments.seed is not None and not model.iterations:
            import torch

            torch.manual_seed(arguments.seed)
        model.build()
        yield model
    finally:
        model.close()


@contextmanager
def _no_empty_folder(folder: Path) -> Iterator[None]:
    """Leave no model folder behind when a run fails before its first save: neither lock, logs nor room for pictures."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        if not existed and processes.is_first() and folder.is_dir() and all(map(_is_ours, folder.iterdir())):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _is_ours(path: Path) -> bool:
    """Whether a path in a folder without a saved model was made by the run, and is of no use without the model."""
    if path.is_dir():
        return path.name.endswith("_logs") or not any(path.iterdir())
    return path.suffix == ".lock"


def print_summary(arguments: TrainArguments) -> None:
    """Print the parts of a model, new or existing, and their layers."""
    from fsdeploy.model.weights import sub_models
    from fsdeploy.terminal import console, folding_table

    kind = model_class(choose_plugin(arguments.model_dir, arguments.plugin))
    training, own = gather_options(kind, arguments.model_dir, arguments.config_file, arguments.settings)
    model = kind(None, own, training)
    model.build()
    table = folding_table("part", "layer", "kind", "weights", "parameters")
    total = 0
    for part, module in sub_models(model.model).items():
        for name, layer in module.named_modules():
            own_parameters = list(layer.parameters(recurse=False))
            if not own_parameters:
                continue
            count = sum(tensor.numel() for tensor in own_parameters)
            total += count
            shape = " ".join("x".join(map(str, tensor.shape)) for tensor in own_parameters)
            table.add_row(part, name, type(layer).__name__, shape, f"{count:,}")
    info = model.info()
    screen = console()
    screen.print(table)
    screen.print(f"{kind.name}: {total:,} parameters, input {info.input_size} px, outputs {info.output_sizes} px")
