"""The loaders that a trainer iterates: endless training batches, and faces for previews."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch.utils import data as torch_data

from fsdeploy.config.option import check_section
from fsdeploy.config.training import LoaderOptions, TrainingOptions
from fsdeploy.errors import ConfigError, InputError
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.data.cache import crop_digest
from fsdeploy.training.data.collate import Collate, ColorOrder, TrainBatch
from fsdeploy.training.data.crop import CropSpec
from fsdeploy.training.data.data_set import MultiDataset, PreviewSet, TrainSet, get_label
from fsdeploy.training.data.device import DeviceCollate
from fsdeploy.training.data.landmark_matcher import LandmarkMatcher
from fsdeploy.training.data.pipeline import BatchPipeline, available_cpus
from fsdeploy.training.data.sampler import EndlessSampler
from fsdeploy.training.data.scan import FEW_FACES, MINIMUM_FACES, FolderScan, scan_folder, scan_table

_LOG = logging.getLogger(__name__)


class TrainLoader:
    """Endless batches for training, the same for one seed whatever the number of workers.

    Args:
        input_size: edge I of the feed.
        output_sizes: edge of each model output, masks not counted.
        color_order: channel order of the model.
        config: folders, batch size, which variations are on.
        sampler: None or `RandomSampler` for one process; `DistributedSampler` gives each process of a
            `torch.distributed` group its own part of every batch.
        options: all training options; the defaults if None.
        seed: fixes order, pairing and variation.
        start_iteration: batches already used, to go on in the middle of an epoch.
        device: where the tensors shall be.
        augment_on: where faces are varied; "auto" takes the device if it is no CPU. None asks the options.
        minimum_faces: usable faces per folder below which the loader refuses to start.
        quiet: False shows the progress of the scan on stderr.

    Raises:
        ConfigError: an option is out of range, or options contradict each other.
        InputError: a folder is missing or holds too few usable faces.
    """

    def __init__(
        self,
        input_size: int,
        output_sizes: Sequence[int],
        color_order: ColorOrder,
        config: TrainConfig,
        sampler: type[torch_data.Sampler[Any]] | None = None,
        *,
        options: TrainingOptions | None = None,
        seed: int = 0,
        start_iteration: int = 0,
        device: str | torch.device = "cpu",
        augment_on: Literal["auto", "cpu", "device"] | None = None,
        minimum_faces: int = MINIMUM_FACES,
        quiet: bool = True,
    ) -> None:
        options = options or TrainingOptions()
        for section in (options.face, options.loss, options.mask, options.loader, options.augmentation):
            check_section(section)
        if config.batch_size < 1 or not config.folders:
            raise ConfigError("training needs a batch size of at least 1 and a folder per identity")
        self.device = torch.device(device)
        self.size = max(input_size, *output_sizes)
        self.scans = _scan(config.folders, options, minimum_faces, quiet)
        self.datasets = _datasets(self.scans, self.size, options)
        landmarks = _landmarks(self.scans, self.size, config, options)
        maker = Collate(input_size, output_sizes, color_order, config, landmarks, options=options, device=self.device)
        augment_on = augment_on or options.loader.augment_on  # type: ignore[assignment]
        on_device = augment_on == "device" or (augment_on == "auto" and self.device.type != "cpu")
        rank, world_size = _place(sampler)
        self.sampler = EndlessSampler(
            [len(dataset) for dataset in self.datasets], config.batch_size, seed, rank, world_size
        )
        loader = options.loader
        self._pipeline: BatchPipeline[Any] = BatchPipeline(
            DeviceCollate(maker) if on_device else maker,
            self.datasets,
            self.sampler,
            _workers(loader.num_processes),
            loader.pre_fetch,
            start_iteration,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TrainBatch:
        """The next batch.

        Returns:
            feeds: per identity (B, 3, I, I) float32 0..1.
            targets: per output (B, identities, 3, O, O) float32; a learned mask (B, identities, 1, O, O) comes last.
            meta: the masks.
        """
        return next(self._pipeline)

    @property
    def iteration(self) -> int:
        """Batches handed out since the start of training: the `start_iteration` that continues from here."""
        return self._pipeline.iteration

    @property
    def epoch(self) -> float:
        """How often the longest folder has been used."""
        return self.sampler.epoch(self.iteration)

    @property
    def table(self) -> str:
        """What the scan found in each folder, as text."""
        return scan_table(self.scans)

    def get_loader(self) -> BatchPipeline[Any]:
        """The pipeline that prepares the batches."""
        return self._pipeline

    def look_while_waiting(self, look: Callable[[], object]) -> None:
        """As `BatchPipeline.look_while_waiting`."""
        self._pipeline.look_while_waiting(look)

    def stop_waiting(self) -> None:
        """End waits for a storage that is away: kept crops take the place of others; without any it is an error."""
        for dataset in self.datasets:
            dataset.stop_waiting()

    def close(self) -> None:
        """Stop the workers and let go of the crops."""
        self._pipeline.close()
        for dataset in self.datasets:
            dataset.close()


class PreviewLoader:
    """Endless faces for previews: feeds, and targets at full coverage with the face mask as fourth channel.

    Every batch is full unless all folders hold fewer faces than a batch.

    Args:
        input_size: edge I of the feed.
        output_size: edge O of the model's largest output.
        color_order: channel order of the model.
        input_folders: a folder per identity.
        batch_size: faces per identity and batch.
        sampler: `RandomSampler` (the default) or `SequentialSampler`.
        num_samples: the first so many faces of each folder, in order of name and always the same (time-lapse); 0 pairs
            faces of whole folders at random.
        options: crop and mask; the defaults if None.
        scans: scans at hand, made with the same options; a folder among them is not scanned again.
        seed: fixes the order.

    Raises:
        InputError: a folder is missing or holds no usable face.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        color_order: ColorOrder,
        input_folders: Sequence[str | Path],
        batch_size: int,
        sampler: type[torch_data.Sampler[Any]] | None = None,
        num_samples: int = 0,
        *,
        options: TrainingOptions | None = None,
        scans: Sequence[FolderScan] = (),
        seed: int = 0,
    ) -> None:
        options = options or TrainingOptions()
        known = {scan.folder: scan for scan in scans}
        scans = [known.get(Path(folder)) or scan_folder(Path(folder), options) for folder in input_folders]
        if num_samples:
            num_samples = min(num_samples, *(max(1, len(scan.faces)) for scan in scans))
        sets = [
            PreviewSet(
                get_label(i, len(scans)), scan.folder, input_size, output_size, color_order, num_samples,
                options=options, scan=scan,
            )
            for i, scan in enumerate(scans)
        ]  # fmt: skip
        self._dataset = MultiDataset(sets, is_random=num_samples == 0, seed=seed)
        order: torch_data.Sampler[int]
        if sampler is not None and issubclass(sampler, torch_data.SequentialSampler):
            order = torch_data.SequentialSampler(self._dataset)
        else:
            order = torch_data.RandomSampler(self._dataset, generator=torch.Generator().manual_seed(seed))
        self._loader: torch_data.DataLoader[Any] = torch_data.DataLoader(
            self._dataset,  # type: ignore[arg-type]  # a plain sequence is a map-style data set
            batch_size,
            sampler=order,
            drop_last=len(self._dataset) >= batch_size,  # sheets of one size, where there are faces enough
        )
        self._iterator = iter(self._loader)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Feeds (identities, B, I, I, 3) and targets (identities, B, F, F, 4), float32 0..1, in the model's colours."""
        batch = next(self._iterator, None)
        if batch is None:
            self._dataset.shuffle()
            self._iterator = iter(self._loader)
            batch = next(self._iterator)
        feeds, targets = batch
        return feeds.swapaxes(0, 1), targets.swapaxes(0, 1)

    def get_loader(self) -> torch_data.DataLoader[Any]:
        """The underlying loader."""
        return self._loader


def _scan(folders: Sequence[Path], options: TrainingOptions, minimum: int, quiet: bool) -> list[FolderScan]:
    """Scan all folders, log the table, and refuse those with too few faces."""
    scans = [scan_folder(Path(folder), options, quiet) for folder in folders]
    skipped = sum(len(scan.skipped) for scan in scans)
    _LOG.log(logging.WARNING if skipped else logging.INFO, "Faces found (%d skipped):\n%s", skipped, scan_table(scans))
    for scan in scans:
        scan.require(minimum)
        if len(scan.faces) < FEW_FACES:
            _LOG.warning("%s holds only %d faces: a few hundred give better results", scan.folder, len(scan.faces))
    return scans


def _datasets(scans: Sequence[FolderScan], size: int, options: TrainingOptions) -> list[TrainSet]:
    """A data set per folder; each gets the share of the cache budget that its faces have."""
    budget = options.loader.cache_budget << 20
    total = sum(len(scan.faces) for scan in scans)
    kept_in = Path(options.loader.cache_folder) if options.loader.cache_folder else None
    sets = [
        TrainSet(
            get_label(i, len(scans)), scan.folder, size, options=options, scan=scan,
            cache_budget=budget * len(scan.faces) // total,
            cache_file=kept_in / f"{_file_name(scan.folder)}_{size}.crops" if kept_in else None,
        )
        for i, scan in enumerate(scans)
    ]  # fmt: skip
    needed = total * sets[0].spec.row_bytes
    if budget and needed > budget:
        _LOG.warning(
            "'cache_budget' of %d MB holds %d %% of the faces, the others are decoded each time: %d MB would hold all",
            budget >> 20, 100 * budget // needed, (needed >> 20) + 1,
        )  # fmt: skip
    return sets


def _file_name(folder: Path) -> str:
    """A name for a folder's crops that no other folder has."""
    return f"{folder.name}_{crop_digest(str(folder.resolve())).hex()[:12]}"


def _landmarks(
    scans: Sequence[FolderScan], size: int, config: TrainConfig, options: TrainingOptions
) -> LandmarkMatcher | None:
    if not (config.warp and config.cache_landmarks):
        return None
    spec = CropSpec.from_options(options, size)
    faces = [[face.aligned for face in scan.faces] for scan in scans]
    for scan in scans:
        for face in scan.faces:
            if len(face.aligned.landmarks) not in (68, 98):
                raise InputError(
                    f"{face.path} has {len(face.aligned.landmarks)} landmarks: a warp to landmarks needs 68 or 98;"
                    " take the file away or turn the warp to landmarks off"
                )
    return LandmarkMatcher(
        [scan.folder for scan in scans], size, spec.centering, spec.coverage, spec.vertical_offset, faces=faces
    )


def _place(sampler: type[torch_data.Sampler[Any]] | None) -> tuple[int, int]:
    """(rank, processes) of this process."""
    if sampler is None or not issubclass(sampler, torch_data.DistributedSampler):
        return 0, 1
    from torch import distributed

    return distributed.get_rank(), distributed.get_world_size()


def _workers(wanted: int) -> int:
    """Threads to use: no more than there are cores. Nothing is said of a number that nobody chose."""
    cpus = available_cpus()
    if wanted > cpus and wanted != LoaderOptions().num_processes:
        _LOG.info("'num_processes' is %d but there are %d cores: using %d", wanted, cpus, cpus)
    return min(wanted, cpus)
