"""The training loop's one step, and everything that surrounds it: data, figures, logs, previews, saving."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from fsdeploy.errors import CheckFailedError
from fsdeploy.training import random_state
from fsdeploy.training.data.loader import TrainLoader
from fsdeploy.training.loss import BatchLoss, LossCollator
from fsdeploy.training.memory import is_out_of_memory, memory_errors
from fsdeploy.training.metrics import IterationFigures, Pace, Recorder, describe_non_finite
from fsdeploy.training.optimizer import Optimizer
from fsdeploy.training.previews import Previews, Viewer
from fsdeploy.training.tensorboard import TorchTensorBoard
from fsdeploy.training.trainer_base import TrainerBase

if TYPE_CHECKING:
    from fsdeploy.training.data.collate import TrainBatch

logger = logging.getLogger(__name__)

_FETCH_INTERVAL_S = 0.1


class NonFiniteLossError(CheckFailedError):
    """A loss or gradient was NaN or infinite; the weights were left as they were (exit code 1)."""

    def __init__(self, figures: IterationFigures) -> None:
        super().__init__(describe_non_finite(figures))
        self.iteration = figures.iteration
        """The first iteration that was not finite."""


def pick_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


class Trainer:
    """Feeds a model with faces and keeps books.

    Args:
        plugin: How a batch is trained.
        preview: Make preview sheets for the viewer of `train_one_step`.
        warmup_steps: Updates over which the learning rate rises; 0 is off.
        timelapse_folders: Folders (A, B) whose first faces are shown again and again in the time-lapse.
        timelapse_output: Folder for the time-lapse.
        seed: Fixes order and variation of the faces and all random numbers of a new model; None takes the model's own
            seed, or a fresh one.
        device: None picks the best there is.
        augment_on: Where faces are varied: "cpu", "device" or "auto"; None asks the options.
        loss_weights: Folder with the pretrained weights that some losses need.
        compile_network: Let torch.compile fuse operations.
        logs: Write TensorBoard logs into the model folder.
        quiet: Show no progress of the start-up.

    Raises:
        InputError: folders, weights or model files cannot be used.
        ConfigError: options contradict each other or do not fit the model.
        CheckFailedError: no learning rate was found.
    """

    def __init__(
        self,
        plugin: TrainerBase,
        preview: bool,
        warmup_steps: int = 0,
        timelapse_folders: Sequence[str | Path] | None = None,
        timelapse_output: str | Path = "",
        *,
        seed: int | None = None,
        device: torch.device | None = None,
        augment_on: Literal["auto", "cpu", "device"] | None = None,
        loss_weights: Path | None = None,
        compile_network: bool = False,
        logs: bool = False,
        quiet: bool = True,
    ) -> None:
        self.plugin = plugin
        self.model = plugin.model
        """The model that is trained."""
        self.device = device or pick_device()
        self.quiet = quiet
        self._exit_early = False
        self._may_lack_compiler = compile_network  # only the first batch can tell
        self.figures: IterationFigures | None = None
        """Figures of the last iteration that was looked at."""
        self.pace = Pace()
        self._recorder = Recorder()
        self._board: TorchTensorBoard | None = None
        self._last_fetch = 0.0
        self._has_news = False
        self._place_model(loss_weights)
        self.optimizer = self._build_optimizer(warmup_steps)
        self._resume(seed)
        self.loader = self._build_loader(augment_on)
        plugin.prepare()
        if compile_network:
            plugin.compile()
        self._previews = self._open_previews(preview, timelapse_folders, Path(timelapse_output))
        self._find_learning_rate()  # last of what may fail: it takes minutes
        self.model.state.add_session_batchsize(plugin.batch_size)
        self._board = self._open_board() if logs and self.model.io.is_writer else None
        if self._generators is not None:  # last, so that nothing of the start-up draws from them
            random_state.restore(self._generators)

    def _place_model(self, loss_weights: Path | None) -> None:
        network = self.model.model.to(self.device)
        if self.device.type == "cuda":
            # Tensor cores read this layout; on a CPU it is slower.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        info = self.model.info()
        options = self.model.training
        self.plugin.register_loss(
            LossCollator.from_options(
                options.loss, info.color_order, info.output_sizes[0], options.mask.learn_mask, loss_weights  # type: ignore[arg-type]
            )
        )  # fmt: skip

    def _build_optimizer(self, warmup_steps: int) -> Optimizer:
        settings = self.model.settings
        scales = settings.use_mixed_precision and settings.half_precision(self.device) == torch.float16
        optimizer = Optimizer(self.model.model, self.model.training.optimizer, scales, warmup_steps)
        optimizer.nan_protection = self.model.training.network.nan_protection
        saved = self.model.io.load_optimizer()
        if saved is not None:
            optimizer.load_state_dict(saved)
        return optimizer

    def _resume(self, seed: int | None) -> None:
        """Random numbers and the place in the data as the last run left them; anew with another seed."""
        kept: dict[str, Any] = self.model.state.extra.get("run", {})
        self._start_batch = 0
        self._seed: int = seed if seed is not None else kept["seed"] if "seed" in kept else self.plugin.fresh_seed()
        self._generators: dict[str, Any] | None = None
        if kept.get("seed") == self._seed:
            self._start_batch = int(kept["batches"])
            self._generators = kept["random"]
        else:
            torch.manual_seed(self._seed)
        digest = self._loss_digest()
        if kept.get("losses", digest) != digest:
            logger.info("the loss functions were changed: the lowest average loss starts anew")
            self.model.state.lowest_avg_loss = 0.0

    def _loss_digest(self) -> str:
        """Tells two configurations of the loss apart: their values cannot be compared."""
        text = json.dumps([asdict(self.model.training.loss), asdict(self.model.training.mask)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _build_loader(self, augment_on: Literal["auto", "cpu", "device"] | None) -> TrainLoader:
        info = self.model.info()
        return TrainLoader(
            info.input_size,
            info.output_sizes,
            info.color_order,  # type: ignore[arg-type]
            self.plugin.config,
            self.plugin.sampler,
            options=self.model.training,
            seed=self._seed,
            start_iteration=self._start_batch,
            device=self.device,
            augment_on=augment_on,
            quiet=self.quiet,
        )

    def _find_learning_rate(self) -> None:
        state, options = self.model.state, self.model.training.lr_finder
        if not self.plugin.config.lr_finder:
            return
        if state.lr_finder > 0:
            logger.info("learning rate %.3g of an earlier search is used", state.lr_finder)
            self.optimizer.set_lr(state.lr_finder)
        elif state.iterations == 0:
            self.optimizer.find_learning_rate(
                self,
                options.lr_finder_iterations,
                1e-10,
                1e-1,
                options.lr_finder_strength,  # type: ignore[arg-type]
                options.lr_finder_mode,  # type: ignore[arg-type]
            )
            if options.lr_finder_mode == "graph_and_exit":
                self._exit_early = True
        else:
            logger.warning("the model was trained before: the learning rate finder is for new models and was not run")
            return
        state.update_session_config("learning_rate", state.lr_finder)

    def _open_previews(self, preview: bool, timelapse: Sequence[str | Path] | None, output: Path) -> Previews:
        return Previews(
            self.model,
            self.device,
            self.plugin.batch_size,
            self._seed,
            self.loader.scans,
            self.plugin.config.folders if preview else None,
            [Path(folder) for folder in timelapse] if timelapse else None,
            output,
        )

    def _open_board(self) -> TorchTensorBoard:
        folder = Path(self.model.io.model_dir) / f"{self.model.name}_logs" / f"session_{self.model.state.session_id}"
        board = TorchTensorBoard(folder, update_freq="batch")
        board.set_model(self.model.model)
        board.on_train_begin()
        return board

    @property
    def exit_early(self) -> bool:
        """True if the run was only to find a learning rate: save and train no step."""
        return self._exit_early

    @property
    def iterations(self) -> int:
        """Total iterations of the model."""
        return self.model.iterations

    def _next_batch(self) -> TrainBatch:
        started = time.perf_counter()
        inputs, targets, meta = next(self.loader)
        if self.device.type == "cuda":
            inputs = [side.contiguous(memory_format=torch.channels_last) for side in inputs]
        self.pace.add(time.perf_counter() - started)
        return inputs, targets, meta

    def _train_batch(self) -> list[BatchLoss]:
        with memory_errors(self.device):
            inputs, targets, meta = self._next_batch()
            try:
                losses = self.plugin.train_batch(inputs, targets, self.optimizer, meta)
            except BaseException as error:
                self.optimizer.drop_gradients()  # those of half a backward pass
                if not self._may_lack_compiler or not _tells_of_compiler(error):
                    raise
                reason = str(error).strip().partition("\n")[0]
                logger.warning("torch.compile does not work here (%s): training goes on without", reason)
                self.plugin.use_eager()
                losses = self.plugin.train_batch(inputs, targets, self.optimizer, meta)
            self._may_lack_compiler = False
            return losses

    def train_one_batch(self) -> list[BatchLoss]:
        """Train one batch, iterations not counted.

        Returns:
            The loss of each side (A, B), on the CPU. Waits for the device.
        """
        return [loss.to_cpu() for loss in self._train_batch()]

    def train_one_step(self, viewer: Viewer | None, do_timelapse: bool = False) -> None:
        """Train one iteration, with its figures, logs, snapshot and previews.

        Args:
            viewer: Shows a preview sheet (H, W, 3) uint8 BGR under a name; None: no preview this time.
            do_timelapse: Write a picture of the time-lapse.

        Raises:
            NonFiniteLossError: a loss was not finite; the weights are those before that iteration.
            InputError: out of memory, or a save in the background failed.
        """
        rate = self.optimizer.learning_rate
        losses = self._train_batch()
        self.model.state.increment_iterations()
        self._recorder.add(self.iterations, losses, rate, self.optimizer.gradient_norm, self.optimizer.spoilt)
        interval = self.plugin.config.snapshot_interval
        wants_snapshot = interval > 0 and self.iterations % interval == 0
        looks = wants_snapshot or viewer is not None or do_timelapse
        if looks or time.perf_counter() - self._last_fetch >= _FETCH_INTERVAL_S:
            self.fetch_figures()
        if wants_snapshot:
            self._note_run()
            self.model.io.snapshot(self.optimizer)
            logger.info("snapshot of iteration %d", self.iterations)
        if viewer is not None:
            sheet = self._previews.show(viewer)
            if sheet is not None and self._board is not None:
                self._board.add_image(self.iterations, "preview", sheet)
        if do_timelapse:
            self._previews.write_timelapse()

    def fetch_figures(self) -> IterationFigures | None:
        """Bring the figures of all iterations so far to the host: history, protection, logs.

        Raises:
            NonFiniteLossError: as `train_one_step`.
        """
        self._last_fetch = time.perf_counter()
        fetched = self._recorder.fetch()
        for figures in fetched:
            if self.optimizer.nan_protection and (figures.spoilt or not figures.is_finite):
                raise NonFiniteLossError(figures)
            self.model.add_history(figures.totals)
            if self._board is not None:
                self._log(self._board, figures)
        if fetched:
            self.figures = fetched[-1]
            self._has_news = True
        return self.figures

    def take_news(self) -> bool:
        """True if `figures` has changed since the last call."""
        news, self._has_news = self._has_news, False
        return news

    def _log(self, board: TorchTensorBoard, figures: IterationFigures) -> None:
        board.on_train_batch_end(figures.iteration, figures.logs(self.plugin.loss_func.weights))
        board.add_scalars(figures.iteration, {"lr": figures.learning_rate, "grad_norm": figures.gradient_norm})

    def toggle_mask(self) -> None:
        """Switch the mask overlay of previews on or off."""
        self._previews.toggle_mask()

    def refresh_preview(self) -> None:
        """Show other faces from the next preview on."""
        self._previews.refresh()

    def _note_run(self) -> None:
        self.model.state.extra["run"] = {
            "seed": self._seed,
            "batches": self.loader.iteration,
            "random": random_state.capture(),
            "losses": self._loss_digest(),
        }

    def save(self, is_exit: bool = False, with_optimizer: bool = True) -> None:
        """Save weights, state, and the optimizer if it is due.

        Args:
            is_exit: The last save of a run: waits until everything is on disk.
            with_optimizer: False leaves the optimizer out even if it is due.

        Raises:
            NonFiniteLossError: an iteration since the last look was spoilt: nothing is saved.
            InputError: the folder cannot be written; the last good set is untouched.
        """
        self.fetch_figures()
        self._note_run()
        self.model.io.save(self.optimizer if with_optimizer else None, is_exit)
        if self._board is not None:
            pace, waiting = self.pace.measure()
            images = pace * self.plugin.batch_size * 2
            self._board.add_scalars(self.iterations, {"images_per_second": images, "data_wait": waiting})
            self._board.on_save()

    def close(self) -> None:
        """Stop the workers and give the model folder back."""
        self.loader.close()
        if self._board is not None:
            self._board.on_train_end()
        self.model.close()


def _tells_of_compiler(error: BaseException) -> bool:
    return isinstance(error, RuntimeError | ImportError | OSError) and not is_out_of_memory(error)
