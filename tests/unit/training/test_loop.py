"""The loop against one written out by hand, and what it does when something goes wrong."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.full_disk import room
from kit.later import later
from kit.metadata_services import played
from mainspring.core.errors import Conflict, Invalid, MainspringError, causes
from mainspring.core.time import ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.loop.batches import Rows
from mainspring.training.loop.checkpoints import Checkpoints
from mainspring.training.loop.fit import fit_torch
from mainspring.training.loop.signals import Interrupted
from mainspring.training.loop.stopping import EarlyStopping
from mainspring.training.preemption.aws import AwsNotices
from mainspring.training.runs.run import Run

pytestmark = pytest.mark.slow

torch = later("torch")
X: Any = None  # rows, from the fixture below
Y: Any = None


@pytest.fixture(autouse=True, scope="module")
def rows() -> None:
    made = torch.randn(70, 4, generator=torch.Generator().manual_seed(0))
    globals().update(X=made, Y=(made @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]])) + 0.3)


def squared(outputs: Any, targets: Any) -> Any:
    return torch.nn.functional.mse_loss(outputs, targets)


def network(width: int = 8) -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Dropout(0.1), torch.nn.Linear(width, 1))


def trained(module: Any = None, loss: Any = squared, rate: float = 0.01, **settings: Any) -> Any:
    module = network() if module is None else module
    settings = {"epochs": 4, "batch_size": 16, "seed": 7, **settings}
    source = settings.pop("train", (X, Y))
    make: Callable[..., Any] = settings.pop("optimiser", lambda of: torch.optim.Adam(of.parameters(), lr=rate))
    return fit_torch(module, source, loss, optimiser=make(module), **settings)


def weights(module: Any) -> list[Any]:
    return [value for tensor in module.state_dict().values() for value in tensor.reshape(-1).tolist()]


def test_it_is_bit_for_bit_the_loop_one_would_write() -> None:
    by_hand = network()
    optimiser = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20)
    torch.manual_seed(7)
    by_hand.train()
    for epoch in range(4):
        for numbers in Rows((X, Y)).order(7, epoch).split(16):
            optimiser.zero_grad()
            squared(by_hand(X[numbers]), Y[numbers]).backward()
            torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    module = network()
    adam = torch.optim.Adam(module.parameters(), lr=0.01)
    ours = fit_torch(module, (X.numpy(), Y.numpy()), squared, optimiser=adam, epochs=4, batch_size=16, seed=7,
                     schedule=torch.optim.lr_scheduler.CosineAnnealingLR(adam, 20), clip_norm=1.0)  # fmt: skip
    assert weights(ours) == weights(by_hand)
    assert not ours.training


def test_each_row_once_an_epoch_in_an_order_of_the_seed() -> None:
    rows = Rows((X, Y))
    assert sorted(rows.order(1, 0).tolist()) == list(range(70))
    assert rows.order(1, 0).tolist() == rows.order(1, 0).tolist()
    orders = {tuple(rows.order(seed, epoch).tolist()) for seed in (0, 1, -1) for epoch in (0, 1)}
    assert len(orders) == 6


def test_several_inputs_and_datasets() -> None:
    class Sum(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = torch.nn.Linear(4, 1), torch.nn.Linear(2, 1)

        def forward(self, left: Any, right: Any) -> Any:
            return self.one(left) + self.two(right)

    pairs = [((X[number], X[number, :2]), Y[number]) for number in range(len(X))]
    assert weights(trained(Sum(), train=((X, X[:, :2]), Y))) == weights(trained(Sum(), train=pairs))


def test_what_it_tells_the_run() -> None:
    tracking = MemoryTracking()
    run_id = tracking.start("net", {}, 0)
    with Run(tracking, run_id, ManualClock(), seed=7) as run:
        ours = trained(run=run, log_every=2, validation=(X, Y), seed=None)
    assert weights(ours) == weights(trained())  # validation changes nothing, and the seed is the run's
    found = {name: [step for _, step, _ in tracking.history(run_id, name)] for name in ("loss", "lr", "validation")}
    assert found == {"loss": list(range(2, 21, 2)), "lr": list(range(2, 21, 2)), "validation": [5, 10, 15, 20]}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_early_stopping_returns_the_best_weights(mode: str) -> None:
    values = iter([3.0, 1.0, 2.0, 1.5, 0.0])
    if mode == "max":
        values = iter([-each for each in values])
    stopping = EarlyStopping(2, mode=mode)
    ours = trained(epochs=9, validation=(X, Y), metric=lambda *_: next(values), stopping=stopping)
    assert (stopping.rounds, stopping.best_round) == (4, 2)
    assert weights(ours) == weights(trained(epochs=2))


def test_a_schedule_of_epochs_and_one_of_the_validation() -> None:
    for schedule, per in (("StepLR", {"step_size": 1}), ("ReduceLROnPlateau", {"patience": 0, "threshold": 1e9})):
        module = network()
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        made = getattr(torch.optim.lr_scheduler, schedule)(optimiser, **per)
        fit_torch(module, (X, Y), squared, optimiser=optimiser, schedule=made, schedule_per="epoch",
                  validation=(X, Y), epochs=3)  # fmt: skip
        assert optimiser.param_groups[0]["lr"] == pytest.approx(1e-4)


class Stop(Exception):
    pass


def stopping_after(calls: int) -> Any:
    """A loss that fails at its last call, as a kill would."""
    left = iter(range(calls))

    def loss(outputs: Any, targets: Any) -> Any:
        if next(left, None) is None:
            raise Stop
        return squared(outputs, targets)

    loss.__qualname__ = "loss"
    return loss


@pytest.mark.parametrize("calls", [1, 4, 5, 6, 13, 19])
@pytest.mark.parametrize("every", [1, 3])
def test_it_goes_on_where_it_stopped(calls: int, every: int, tmp_path: Path) -> None:
    settings = {"checkpoints": tmp_path, "checkpoint_every_steps": every}
    with pytest.raises(Stop):
        trained(loss=stopping_after(calls), **settings)
    told: list[str] = []
    ours = trained(loss=stopping_after(99), progress=lambda what, _share: told.append(what), **settings)
    begun = calls // every * every
    assert told[:1] == ([f"resumes from step {begun}"] if begun else [])
    assert weights(ours) == weights(trained())


def test_other_rows_or_settings_are_another_training(tmp_path: Path) -> None:
    settings = {"checkpoints": tmp_path, "checkpoint_every_steps": 1}
    with pytest.raises(Stop):
        trained(loss=stopping_after(9), **settings)
    told: list[str] = []
    for other in ({"train": (X + 1, Y)}, {"batch_size": 15}, {"rate": 0.02}, {"module": network(9)}):
        trained(loss=stopping_after(99), **settings, **other, progress=lambda what, _share: told.append(what))
    assert told == []
    assert len(list(tmp_path.iterdir())) == 5


def partly_frozen(shift: float = 0.0) -> Any:
    module = network()
    module[0].weight.requires_grad_(False).add_(shift)
    module.append(torch.nn.Linear(1, 1, bias=False))
    module[3].weight = torch.nn.Parameter(torch.ones(1, 1), requires_grad=False)
    return module


def test_frozen_weights_are_in_no_checkpoint_and_belong_to_the_training(tmp_path: Path) -> None:
    told: list[str] = []
    settings: dict[str, Any] = {
        "checkpoints": tmp_path, "checkpoint_every_steps": 2, "validation": (X, Y),
        "stopping": EarlyStopping(patience=9),
        "progress": lambda what, _share: told.append(what),
    }  # fmt: skip

    def stops(outputs: Any, wanted: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return squared(outputs, wanted)

    with pytest.raises(Interrupted):
        trained(partly_frozen(), metric=stops, **settings)
    (folder,) = tmp_path.iterdir()
    kept = Checkpoints(folder).newest()
    assert kept is not None
    assert {*kept.state["module"]} == {"0.bias", "2.weight", "2.bias"} == {*kept.state["best"]}
    other = trained(partly_frozen(0.5), metric=squared, **settings)
    assert not any("resumes" in what for what in told)
    assert torch.equal(other[0].weight, partly_frozen(0.5)[0].weight)
    resumed = trained(partly_frozen(), metric=squared, **settings)
    assert sum("resumes from step 5" in what for what in told) == 1
    assert weights(resumed) == weights(trained(partly_frozen(), validation=(X, Y), stopping=EarlyStopping(patience=9)))


def test_without_a_reason_a_checkpoint_waits_for_its_time(tmp_path: Path) -> None:
    trained(checkpoints=tmp_path)
    assert [path.name for path in tmp_path.glob("*/0*")] == ["000000000020.safetensors"]  # the finished one


def diverging(after: int, value: float = math.nan) -> Any:
    left = iter(range(after))

    def loss(outputs: Any, targets: Any) -> Any:
        return squared(outputs, targets) * (value if next(left, None) is None else 1)

    return loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(value: float, tmp_path: Path) -> None:
    module = network()
    with pytest.raises(MainspringError, match=rf"loss is {value} at step 8 \(epoch 2\).*0006.*lower learning rate"):
        trained(module, diverging(7, value), checkpoints=tmp_path, checkpoint_every_steps=3)
    assert all(map(math.isfinite, weights(module)))
    [folder] = tmp_path.iterdir()
    assert Checkpoints(folder).newest().step == 6  # type: ignore[union-attr]


def test_a_loss_that_refuses_outputs_that_are_not_finite_is_told_as_one_that_is_not() -> None:
    module = torch.nn.Sequential(network(), torch.nn.Sigmoid())
    entropy = torch.nn.functional.binary_cross_entropy
    with pytest.raises(MainspringError, match=r"outputs are not finite at step 1 \(epoch 1\).*nulls among them"):
        trained(module, entropy, train=(X * math.nan, (Y > 0).float()))
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        trained(network(), entropy, train=(X + 5, (Y > 0).float()))


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    def loss(outputs: Any, targets: Any) -> Any:  # finite, with a gradient that is not
        return squared(outputs, targets) + torch.sqrt(torch.zeros(()) * outputs.sum())

    with pytest.raises(MainspringError, match="weights are no longer finite after step 1"):
        trained(loss=loss, checkpoints=tmp_path, checkpoint_every_steps=1)
    assert list(tmp_path.glob("*/0*")) == []


def test_out_of_memory_says_what_to_do() -> None:
    class Greedy(torch.nn.Linear):  # type: ignore[misc]
        def forward(self, rows: Any) -> Any:
            return super().forward(rows) + torch.empty(2**55).sum()

    with pytest.raises(MainspringError, match=r"Out of memory at step 1 with 16 rows.*batch_size=8"):
        trained(Greedy(4, 1))


@pytest.mark.parametrize(
    "error",
    [lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), MemoryError],
)
def test_out_of_memory_on_an_accelerator_and_anywhere_else_too(error: Callable[[], Exception], tmp_path: Path) -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        if next(left, None) is None:
            raise error()
        return squared(outputs, targets)

    left = iter(range(6))
    said = r"Out of memory at step 7 with 16 rows a batch: .*\. The last good checkpoint is .*0006.*batch_size=8"
    with pytest.raises(MainspringError, match=said) as raised:
        trained(loss=loss, checkpoints=tmp_path, checkpoint_every_steps=3)
    assert "more" not in str(raised.value)


def test_out_of_memory_while_validating_too() -> None:
    def metric(_outputs: Any, _targets: Any) -> Any:
        return torch.empty(2**55).sum()

    with pytest.raises(MainspringError, match="Out of memory at step 5 with 16 rows"):
        trained(validation=(X, Y), metric=metric)


def test_a_function_within_a_module_does_not_make_it_another_training(tmp_path: Path) -> None:
    class Shown(torch.nn.Linear):  # type: ignore[misc]
        def extra_repr(self) -> str:
            return f"activation={(lambda rows: rows)}"

    for _ in range(2):
        trained(Shown(4, 1), checkpoints=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_schedule_that_cannot_be_kept_is_refused_at_once(tmp_path: Path) -> None:
    module = network()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 3)
    schedule.note = object()
    with pytest.raises(Invalid, match=r"'/note' is a object"):
        fit_torch(module, (X, Y), squared, optimiser=optimiser, schedule=schedule, checkpoints=tmp_path)


def test_a_run_that_was_stopped_is_killed_not_failed(tmp_path: Path) -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return squared(outputs, targets)

    tracking = MemoryTracking()
    run_id = tracking.start("net", {}, 0)
    with pytest.raises(Interrupted), Run(tracking, run_id, ManualClock(), seed=7) as run:
        trained(loss=loss, run=run, checkpoints=tmp_path)
    assert tracking.get(run_id).status == "KILLED"


def test_a_folder_that_cannot_be_written_does_not_end_a_training(tmp_path: Path) -> None:
    """Something took the name that the checkpoint would have, and cannot be moved away."""

    def broken(*_: Any) -> Any:
        folder = next(tmp_path.iterdir())
        folder.joinpath("training.lock").unlink(missing_ok=True)
        folder.rename(tmp_path / "away")
        folder.write_text("in the way")
        return torch.zeros(())

    with pytest.warns(RuntimeWarning, match="was not written"):
        trained(epochs=1, validation=(X, Y), metric=broken, checkpoints=tmp_path)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape") as raised:
        trained(torch.nn.Linear(3, 1))
    assert list(causes(raised.value)) == [raised.value]
    assert raised.value.__cause__ is None, "an error that is its own cause has no end"


def test_a_full_disk_does_not_end_a_training(tmp_path: Path) -> None:
    settings = {"checkpoints": tmp_path, "checkpoint_every_steps": 10}
    with room(4096), pytest.warns(RuntimeWarning, match=r"No space left.*goes on without this checkpoint"):
        ours = trained(**settings)
    assert weights(ours) == weights(trained())
    assert [path.name for path in tmp_path.glob("*/*")] == ["training.lock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_ends_in_order(number: signal.Signals, tmp_path: Path) -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), number)
        return squared(outputs, targets)

    calls: list[int] = []
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after step 8; the checkpoint .*0008.safetensors is written") as raised:
        trained(loss=loss, checkpoints=tmp_path)
    assert raised.value.number == number
    assert signal.getsignal(number) is before
    assert weights(trained(loss=loss, checkpoints=tmp_path)) == weights(trained())
    assert len(calls) == 20


def test_two_trainings_with_one_folder(tmp_path: Path) -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        if not inside:
            inside.append(1)
            with pytest.raises(Conflict, match="Another training"):
                trained(loss=loss, checkpoints=tmp_path)
            inside.append(2)
        return squared(outputs, targets)

    inside: list[int] = []
    trained(loss=loss, checkpoints=tmp_path)
    assert inside == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"epochs": 0}, "epochs=0.*whole numbers from 1"),
        (
            {"module": "a network", "optimiser": lambda _: None},
            r"module is of type str\. Fix: give a torch\.nn\.Module",
        ),
        ({"optimiser": lambda _: "adam"}, r"optimiser is of type str\. Fix: give one of torch\.optim"),
        ({"schedule_per": "batch"}, "'batch'"),
        ({"stopping": EarlyStopping()}, "validation"),
        ({"train": lambda: (X, Y[:5])}, r"\[70, 5\]"),
        ({"train": lambda: (X[:0], Y[:0])}, "no rows"),
        ({"train": lambda: (X, Y, Y)}, "3 values"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(Invalid, match=what):
        trained(**{name: value() if name == "train" else value for name, value in wrong.items()})


def test_bfloat16_learns_too() -> None:
    ours = trained(amp=True, epochs=60)
    assert float(squared(ours(X), Y).detach()) < 0.2 * float(Y.var())
    assert next(ours.parameters()).dtype == torch.float32


def test_arrays_are_taken_as_they_are() -> None:
    rows = Rows((np.zeros((3, 2), np.float32), np.array([0, 1, 0])))
    (inputs,), targets = rows.batch(torch.tensor([1, 2]), torch.device("cpu"))
    assert (inputs.shape, targets.tolist()) == ((2, 2), [1, 0])


def test_the_run_says_how_often_checkpoints_are_written(tmp_path: Path) -> None:
    tracking, clock = MemoryTracking(), ManualClock(0)
    run = Run(tracking, tracking.start("m", {}, 0), clock, seed=1)
    with run:
        trained(checkpoints=tmp_path, checkpoint_every_s=0.0, run=run)
    told = tracking.get(run.id).tags["checkpoints"]
    assert re.fullmatch(r"every .* s: a checkpoint costs .* s, and at most 2 % of the time", told)


def _nothing() -> None:
    pass


def slow(at: int = 0, announce: Callable[[], None] = _nothing) -> Any:
    """Return a network that takes its time, and has the cloud announce a preemption at a pass."""
    left = at

    class Slow(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))

        def forward(self, rows: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                announce()
            if left < 0 and announce is not _nothing:
                time.sleep(0.02)
            return self.layers(rows)

        def __repr__(self) -> str:
            return "Slow()"

    return Slow()


def test_a_preempted_training_keeps_its_step_and_resumes_exactly(tmp_path: Path) -> None:
    undisturbed = trained(slow())
    tracking, clock = MemoryTracking(), ManualClock(0)
    run = Run(tracking, tracking.start("m", {}, 0), clock, seed=1)
    with played("aws") as service:
        settings = {"checkpoints": tmp_path, "preemption": AwsNotices(service.base, poll_s=0.01), "epochs": 400}
        with pytest.raises(Interrupted) as stopped, run:
            trained(slow(3, service.announce), run=run, **settings)
    assert stopped.value.preempted
    assert stopped.value.number == signal.SIGTERM
    text = re.fullmatch(
        r"Training was stopped as its machine is preempted after step (\d+); the checkpoint .* is written, where the "
        r"same training resumes\.",
        str(stopped.value),
    )
    assert text
    assert 3 <= int(text[1]) < 19  # of the 20 of the training below
    assert tracking.get(run.id).tags["preempted"] == f"after step {text[1]}"
    assert tracking.get(run.id).status == "KILLED"
    told: list[str] = []
    resumed = trained(slow(), checkpoints=tmp_path, progress=lambda what, _share: told.append(what))
    assert told[0] == f"resumes from step {text[1]}"
    assert weights(resumed) == weights(undisturbed)


def test_a_warning_of_a_preemption_is_a_checkpoint_and_no_end(tmp_path: Path) -> None:
    with played("aws") as service:

        def announce() -> None:
            service.recommended = "2026-05-01T12:00:00Z"

        trained(slow(3, announce), checkpoints=tmp_path, preemption=AwsNotices(service.base, poll_s=0.01),
                checkpoint_every_s=1000, keep=9)  # fmt: skip
    steps = [int(path.stem) for path in tmp_path.glob("*/*.safetensors")]
    assert len(steps) == 2
    assert 3 <= min(steps) < 20 == max(steps)


def test_checkpoints_that_take_longer_than_the_notice_are_said(tmp_path: Path) -> None:
    class Short(AwsNotices):
        least_s = 1e-6

    with played("aws") as service, pytest.warns(RuntimeWarning, match="aws announces a preemption 1e-06 s before"):
        trained(checkpoints=tmp_path, checkpoint_every_steps=2, preemption=Short(service.base))
    with pytest.raises(Invalid, match="no cloud 'sky'"):
        trained(preemption="sky")
