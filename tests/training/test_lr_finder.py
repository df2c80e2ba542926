"""Finding a learning rate, on a problem whose answer is known, and inside a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from test_training_run import PLAIN, run, start

from fsdeploy.errors import CheckFailedError
from fsdeploy.training.lr_finder import LearningRateFinder, LRStrength
from fsdeploy.training.train import Trainer


class Bowl:
    """A trainer whose loss falls, has its lowest point at one rate, and then rises fourfold."""

    quiet = True

    def __init__(self, losses: list[float], folder: str = "", accumulation: int = 1) -> None:
        self._losses = iter(losses)
        self._accumulation = accumulation
        self._batches = 0
        state = SimpleNamespace(add_lr_finder=lambda rate: setattr(self, "stored", rate), extra={})
        self.model = SimpleNamespace(
            model=torch.nn.Linear(1, 1), state=state, io=SimpleNamespace(model_dir=folder, is_writer=True)
        )
        self.optimizer = torch.optim.SGD(self.model.model.parameters(), lr=1e-4)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 10.0)

    def train_one_batch(self) -> list[SimpleNamespace]:
        self._batches += 1
        if self._batches % self._accumulation == 0:
            self.optimizer.step()
            self.scheduler.step()
        with torch.no_grad():
            self.model.model.weight.add_(1.0)
        torch.rand(1)
        return [SimpleNamespace(total=torch.tensor(next(self._losses)))]


@pytest.mark.parametrize("strength", ["default", "aggressive", "extreme"])
def test_the_rate_of_the_lowest_loss_is_divided_by_the_strength(strength: str) -> None:
    bowl = Bowl([3.0, 1.0, 2.0, 9.0, 9.0])
    before, generator = bowl.model.model.weight.clone(), torch.get_rng_state()
    finder = LearningRateFinder(bowl, bowl.scheduler, 5, strength, "set", beta=0.0)
    assert finder.best_lr is None
    finder.find()
    # The rate is noted after the step: 1e-3, 1e-2, ...; the second batch is the lowest.
    assert finder.best_lr == pytest.approx(1e-2 / LRStrength[strength.upper()].value)
    assert bowl.stored == finder.best_lr
    assert len(finder.losses) == 4, "the scan stops at four times the lowest loss"
    assert torch.equal(bowl.model.model.weight, before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_losses_are_smoothed_with_bias_correction() -> None:
    bowl = Bowl([2.0, 1.0, 1.0])
    finder = LearningRateFinder(bowl, bowl.scheduler, 3, "default", "set", beta=0.5)
    finder.find()
    assert finder.losses == pytest.approx([2.0, (0.5 * 1.0 + 0.5) / 0.75, (0.5 * 1.0 + 0.5) / 0.875])


def test_nothing_is_found_when_the_loss_is_no_number_from_the_start() -> None:
    bowl = Bowl([float("nan")])
    finder = LearningRateFinder(bowl, bowl.scheduler, 5, "default", "set")
    finder.find()
    assert finder.best_lr is None
    assert "the loss was no number from the start" in finder.problem


def test_with_accumulated_gradients_a_step_of_the_scan_is_an_update_and_counts_its_batches_mean() -> None:
    bowl = Bowl([3.0, 3.5, 2.5, 1.0, 0.5, 1.5, 2.0, 2.0, 2.0, 9.0, 9.0, 9.0], accumulation=3)
    finder = LearningRateFinder(bowl, bowl.scheduler, 4, "default", "set", beta=0.0, batches_per_update=3)
    finder.find()
    assert finder.losses == pytest.approx([3.0, 1.0, 2.0, 9.0])
    assert finder.rates == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    assert finder.best_lr == pytest.approx(1e-3)
    assert not finder.problem


def test_a_rate_below_the_smallest_that_can_be_set_is_no_result(drawn_faces: tuple[Path, Path]) -> None:
    bowl = Bowl([1.0, 2.0, 3.0, 9.0])
    for group in bowl.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 5e-8
    bowl.scheduler = torch.optim.lr_scheduler.ExponentialLR(bowl.optimizer, 10.0)
    finder = LearningRateFinder(bowl, bowl.scheduler, 4, "default", "set", beta=0.0)
    finder.find()
    assert finder.rates[0] == pytest.approx(5e-7)  # divided by 10 it is below the option's 1e-7
    assert finder.best_lr is None
    assert not hasattr(bowl, "stored")
    assert "5e-08 is below" in finder.problem
    assert "no number" not in finder.problem


def test_the_graph_is_a_picture_in_the_model_folder(tmp_path: Path) -> None:
    bowl = Bowl([3.0, 1.0, 2.0, 9.0], str(tmp_path))
    LearningRateFinder(bowl, bowl.scheduler, 5, "default", "graph_and_set", beta=0.0).find()
    (path,) = tmp_path.glob("learning_rate_finder_*.png")
    image = cv2.imread(str(path))
    assert image.shape == (600, 1000, 3)
    assert all((image == colour).all(2).any() for colour in ((60, 160, 60), (0, 190, 220), (40, 40, 220)))


FINDER = {**PLAIN, "lr_finder_iterations": 100, "lr_finder_mode": "graph_and_exit"}


def test_a_search_leaves_weights_and_optimizer_as_they_were_and_is_reused(
    tmp_path: Path, drawn_faces: tuple[Path, Path]
) -> None:
    trainer = start(tmp_path, drawn_faces, FINDER, lr_finder=True, warmup_steps=4)
    fresh = start(None, drawn_faces, FINDER)
    fresh.close()
    assert trainer.exit_early
    for one, two in zip(trainer.model.model.parameters(), fresh.model.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not trainer.optimizer.state_tensors()[0]
    found = trainer.model.state.lr_finder
    assert trainer.optimizer.learning_rate == pytest.approx(found / 4), "the warm-up leads to the rate that was found"
    trainer.save(is_exit=True)
    trainer.close()
    stored = json.loads((tmp_path / "two_sizes_state.json").read_text())
    assert stored["lr_finder"] == found
    assert len(stored["fsdeploy"]["lr_curve"]["rates"]) > 10
    assert list(tmp_path.glob("learning_rate_finder_*.png"))

    resumed = start(tmp_path, drawn_faces, FINDER, lr_finder=True)
    assert not resumed.exit_early
    assert resumed.optimizer.learning_rate == pytest.approx(found)
    assert resumed.model.state.current_session["config"]["learning_rate"] == found
    run(resumed, 2)


def test_a_failed_search_says_so_and_removes_nothing(
    tmp_path: Path, drawn_faces: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "notes.txt"
    kept.write_text("mine")
    monkeypatch.setattr(LearningRateFinder, "_scan", lambda self: None)
    with pytest.raises(CheckFailedError, match="no learning rate was found: the loss was no number"):
        start(tmp_path, drawn_faces, FINDER, lr_finder=True)
    assert kept.read_text() == "mine"


def test_a_search_with_accumulated_gradients_covers_all_rates(
    drawn_faces: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    real = Trainer.train_one_batch
    monkeypatch.setattr(Trainer, "train_one_batch", lambda self: batches.append(1) or real(self))
    options = {**PLAIN, "lr_finder_iterations": 100, "gradient_accumulation": 3}
    trainer = start(None, drawn_faces, options, lr_finder=True)
    trainer.close()
    curve = trainer.model.state.extra["lr_curve"]
    assert len(batches) == 3 * len(curve["rates"])
    # From 1e-10 to 1e-1 in 100 updates: the n-th has 1e-10 * 10**(9 n / 100), whatever a batch is.
    expected = [1e-10 * 10 ** (9 * n / 100) for n in range(1, len(curve["rates"]) + 1)]
    assert curve["rates"] == pytest.approx(expected)
    assert 1e-7 <= trainer.model.state.lr_finder <= 1e-1
    assert trainer.optimizer.learning_rate == pytest.approx(trainer.model.state.lr_finder)
