"""Training on many devices equals training on one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from two_sizes_model import TwoSizesModel

from fsdeploy.config.training import TrainingOptions
from fsdeploy.errors import InputError
from fsdeploy.model.folder import load_model
from fsdeploy.training.command import TrainArguments, run_command
from fsdeploy.training.config import TrainConfig
from fsdeploy.training.data.collate import BatchMeta
from fsdeploy.training.loss import BatchLoss, LossCollator
from fsdeploy.training.registry import trainer_class

Folders = tuple[Path, Path]
# No variation of the faces, which differs between processes; and an optimizer that is smooth in the gradient: the usual
# epsilon makes a step of full size out of a gradient of rounding errors.
PLAIN = ("zoom_amount=0", "rotation_range=0", "shift_range=0", "epsilon_exponent=0", "learning_rate=0.1", "width=8",
         "num_processes=1")  # fmt: skip

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(), reason="forks, which this system, or CUDA, cannot"
)


def arguments(faces: Folders, folder: Path, iterations: int | None, **changes: Any) -> TrainArguments:
    plain = {"settings": PLAIN, "no_flip": True, "no_augment_color": True, "no_warp": True, "quiet": True, "seed": 3}
    named = {"input_a": faces[0], "input_b": faces[1], "plugin": "compact", "batch_size": 4, "iterations": iterations}
    return TrainArguments(folder, **{**named, **plain, **changes})


def start_group(processes: int, run: TrainArguments) -> list[int]:
    """Fork a group of training processes; their ids."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ids = []
    for rank in range(processes):
        pid = os.fork()
        if pid:
            ids.append(pid)
            continue
        try:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            run_command(run)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return ids


def ends_well(ids: list[int]) -> bool:
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ids]
    return codes == [0] * len(ids)


@needs_fork
def test_two_processes_train_the_weights_of_one_with_the_same_batch(
    tmp_path: Path, drawn_faces: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdeploy.model.io.FEWEST_AVERAGED", 4)  # the others are forks
    run_command(arguments(drawn_faces, tmp_path / "one", 4))
    assert ends_well(start_group(2, arguments(drawn_faces, tmp_path / "two", 4)))
    one, two = (load_file(tmp_path / name / "compact.safetensors") for name in ("one", "two"))
    moments = load_file(tmp_path / "one" / "compact_optimizer.safetensors")
    assert max(float(tensor.abs().max()) for name, tensor in moments.items() if name.endswith("/exp_avg")) > 1e-4
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    states = [load_model(tmp_path / name).state for name in ("one", "two")]
    assert [state.iterations for state in states] == [4, 4]
    assert states[1].sessions[1]["batchsize"] == 4
    assert states[0].lowest_avg_loss > 0
    assert states[1].lowest_avg_loss == pytest.approx(states[0].lowest_avg_loss, rel=1e-4)


@needs_fork
def test_a_request_to_stop_in_one_process_saves_and_ends_all(tmp_path: Path, drawn_faces: Folders) -> None:
    ids = start_group(2, arguments(drawn_faces, tmp_path / "m", None))
    deadline = time.monotonic() + 60
    while not (tmp_path / "m" / "compact_state.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(ids[1], signal.SIGTERM)
    assert ends_well(ids)
    assert load_model(tmp_path / "m").iterations >= 1


def test_a_batch_that_cannot_be_shared_is_refused(
    monkeypatch: pytest.MonkeyPatch, built: tuple[TwoSizesModel, LossCollator], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    with pytest.raises(InputError, match="cannot be shared by 3 processes: use --batch-size 3"):
        trainer_class("ddp")(built[0], TrainConfig((tmp_path, tmp_path), 4, False, False, False, False))


def launched(code: str) -> tuple[int, str]:
    """Exit status and stderr of a launch of two processes that run `code`."""
    launcher = "import sys; from fsdeploy.training.processes import launch; "
    launcher += f"sys.exit(launch(2, [sys.executable, '-c', {code!r}]))"
    done = subprocess.run([sys.executable, "-c", launcher], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_a_launch_tells_every_process_its_place() -> None:
    code = "import os, sys; names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR')\n"
    code += "print([os.environ[name] for name in names], file=sys.stderr)"
    status, errors = launched(code)
    assert (status, errors.strip()) == (0, "['0', '0', '2', '2', '127.0.0.1']")


def test_an_error_of_all_processes_is_shown_once() -> None:
    status, errors = launched("import sys; print('Error: no faces', file=sys.stderr); sys.exit(2)")
    assert (status, errors.strip()) == (2, "Error: no faces")


def test_an_error_of_a_silent_process_is_shown_and_the_others_are_stopped() -> None:
    code = "import os, sys, time\nif os.environ['RANK'] == '0': time.sleep(50)\n"
    code += "print('Error: out of memory', file=sys.stderr); sys.exit(3)"
    started = time.monotonic()
    status, errors = launched(code)
    assert (status, errors.strip()) == (3, "Error: out of memory")
    assert time.monotonic() - started < 30


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGHUP")
def test_a_launcher_that_loses_its_terminal_has_its_processes_save_and_end(tmp_path: Path) -> None:
    code = "import os, pathlib, signal, sys, time\nplace = pathlib.Path(sys.argv[1], os.environ['RANK'])\n"
    code += "def end(*_):\n    place.with_suffix('.ended').touch(); sys.exit(0)\n"
    code += "signal.signal(signal.SIGTERM, end); place.touch(); time.sleep(60)"
    launcher = "import sys; from fsdeploy.training.processes import launch; "
    launcher += f"sys.exit(launch(2, [sys.executable, '-c', {code!r}, sys.argv[1]]))"
    process = subprocess.Popen([sys.executable, "-c", launcher, str(tmp_path)])
    while len(list(tmp_path.iterdir())) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert {path.name for path in tmp_path.glob("*.ended")} == {"0.ended", "1.ended"}


@pytest.mark.slow
def test_the_command_line_starts_two_processes(tmp_path: Path, drawn_faces: Folders) -> None:
    command = ["train", "-A", drawn_faces[0], "-B", drawn_faces[1], "-m", tmp_path / "m", "-t", "compact", "-b", "4"]
    more = ["-i", "1", "-n", "-q", "--nproc", "2", "--set", "width=8", "--set", "num_processes=1"]
    line = [sys.executable, "-m", "fsdeploy", *map(str, command), *more]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "m").iterations == 1


def batch(model: TwoSizesModel, items: int) -> tuple[list[torch.Tensor], list[torch.Tensor], BatchMeta]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    size = model.input_shape[1]
    outputs = model.output_shapes[: len(model.output_shapes) // 2]
    targets = [random(items, 2, *shape[1:]) for shape in outputs]
    masks = [random(items, 2, 1, *shape[2:]).round() for shape in outputs if shape[1] == 3]
    return [random(items, 3, size, size) for _ in range(2)], targets, BatchMeta(masks, masks, masks)


@pytest.fixture
def built() -> tuple[TwoSizesModel, LossCollator]:
    torch.manual_seed(0)
    options: dict[str, Any] = {"loss_function": "mae", "loss_function_2": "mse", "learn_mask": True}
    model = TwoSizesModel(None, None, TrainingOptions.from_flat(options))
    model.build()
    model.model.eval()  # dropout draws anew for every part of a batch
    info = model.info()
    return model, LossCollator.from_options(model.training.loss, "bgr", info.output_sizes[0], True)


def test_losses_of_the_parts_of_a_batch_join_to_those_of_the_whole(built: tuple[TwoSizesModel, LossCollator]) -> None:
    from fsdeploy_plugins.trainers.distributed import WrappedModel

    model, loss = built
    wrapped = WrappedModel(model.model, loss)
    inputs, targets, meta = batch(model, 4)
    fields = {"mask_face": meta.mask_face, "mask_eye": meta.mask_eye, "mask_mouth": meta.mask_mouth}
    whole = wrapped(inputs, targets, fields)

    def part(items: slice) -> list[dict[str, Any]]:
        """What scattering gives one device."""
        result: list[dict[str, Any]] = wrapped(
            [side[items] for side in inputs],
            [target[items] for target in targets],
            {name: [mask[items] for mask in masks or []] for name, masks in fields.items()},
        )
        return result

    parts = [part(slice(0, 2)), part(slice(2, 4))]
    for side in range(2):
        for level in range(len(whole[side]["weighted"])):
            for name, values in whole[side]["weighted"][level].items():
                torch.testing.assert_close(torch.cat([p[side]["weighted"][level][name] for p in parts]), values)
        torch.testing.assert_close(torch.cat([p[side]["mask"] for p in parts]), whole[side]["mask"])
        assert BatchLoss(**whole[side]).total.ndim == 0


def test_distributed_training_falls_back_to_one_device_with_a_warning(
    built: tuple[TwoSizesModel, LossCollator], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from fsdeploy.training.optimizer import Optimizer

    if torch.cuda.device_count() > 1:
        pytest.skip("this machine has several GPUs")
    results = []
    for name in ("original", "distributed"):
        torch.manual_seed(0)
        model = TwoSizesModel(None, None, built[0].training)
        model.build()
        trainer = trainer_class(name)(model, TrainConfig((tmp_path, tmp_path), 4, False, False, False, False))
        trainer.register_loss(built[1])
        trainer.prepare()
        torch.manual_seed(1)
        losses = trainer.train_batch(*_ordered(model, Optimizer(model.model, model.training.optimizer)))
        results.append(([float(loss.total.detach()) for loss in losses], model.model.state_dict()))
    assert "needs two GPUs or more" in caplog.text
    assert results[0][0] == pytest.approx(results[1][0])
    for tensor, other in zip(results[0][1].values(), results[1][1].values(), strict=True):
        assert torch.equal(tensor, other)


def test_a_loss_that_is_not_finite_in_another_process_ends_the_updates_of_this_one(
    built: tuple[TwoSizesModel, LossCollator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fsdeploy.training.optimizer import Optimizer

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "new_group", lambda **options: None)
    model, loss = built
    trainer = trainer_class("ddp")(model, TrainConfig((tmp_path, tmp_path), 4, False, False, False, False))
    trainer.register_loss(loss)
    optimizer = Optimizer(model.model, model.training.optimizer)

    def train(others: float) -> dict[str, torch.Tensor]:
        """Weights after a batch whose losses are so much in the other process, its gradients being finite."""
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.add_(others))
        trainer.train_batch(*_ordered(model, optimizer))
        return {name: parameter.detach().clone() for name, parameter in model.model.named_parameters()}

    one, two, three, four = train(1.0), train(1.0), train(torch.inf), train(1.0)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(two[name], other[name]) for other in (three, four) for name in two)


def _ordered(model: TwoSizesModel, optimizer: Any) -> tuple[Any, ...]:
    inputs, targets, meta = batch(model, 4)
    return inputs, targets, optimizer, meta
