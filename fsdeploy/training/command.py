"""What `fsdeploy train` does, step by step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fsdeploy.errors import InputError
from fsdeploy.model.base import ModelBase
from fsdeploy.model.registry import model_class
from fsdeploy.training import processes, session
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.registry import trainer_class
from fsdeploy.training.setup import check_folders, gather_options
from fsdeploy.training.train import Trainer


@dataclass(frozen=True)
class TrainArguments:
    """The command line of `fsdeploy train`."""

    model_dir: Path
    input_a: Path | None = None
    input_b: Path | None = None
    plugin: str = "original"
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
    check_folders(arguments.folders)
    plugin_class = trainer_class(_trainer_name(arguments))
    requests = session.Requests()
    with (
        session.signals(requests),
        processes.joined(),
        _no_empty_folder(arguments.model_dir),
        _model(arguments) as model,
    ):
        trainer = Trainer(
            plugin_class(model, arguments.train_config()),
            preview=False,
            warmup_steps=arguments.warmup,
            seed=arguments.seed,
            augment_on=arguments.augment_on,
            loss_weights=arguments.loss_weights,
            compile_network=arguments.compile_network,
            quiet=arguments.quiet,
        )
        try:
            if trainer.exit_early:
                trainer.save(is_exit=True)
            else:
                session.run(trainer, requests, arguments.iterations, arguments.save_interval, quiet=arguments.quiet)
        finally:
            trainer.close()


def _trainer_name(arguments: TrainArguments) -> str:
    if processes.is_worker():
        return "ddp"
    return "distributed" if arguments.distributed else "original"


@contextmanager
def _model(arguments: TrainArguments) -> Iterator[ModelBase]:
    kind = model_class(arguments.plugin)
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
    """Leave no empty model folder behind when a run fails before its first save."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        if not existed and folder.is_dir() and all(path.suffix == ".lock" for path in folder.iterdir()):
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
        raise


def print_summary(arguments: TrainArguments) -> None:
    """Print the parts of a model, new or existing, and their layers."""
    from rich.console import Console
    from rich.table import Table

    from fsdeploy.model.weights import sub_models

    kind = model_class(arguments.plugin)
    training, own = gather_options(kind, arguments.model_dir, arguments.config_file, arguments.settings)
    model = kind(None, own, training)
    model.build()
    table = Table("part", "layer", "kind", "weights", "parameters")
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
    console = Console()
    console.print(table)
    console.print(f"{kind.name}: {total:,} parameters, input {info.input_size} px, outputs {info.output_sizes} px")
