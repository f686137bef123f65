"""A training and its position: its steps, its validation, its checkpoints."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import MainspringError
from mainspring.registry.runs import PREEMPTED as PREEMPTED_TAG
from mainspring.registry.runs import UNWRITTEN
from mainspring.training.loop.batches import Rows
from mainspring.training.loop.checkpoints import Checkpoint
from mainspring.training.loop.generators import generator_states, restore_generators, seed_generators
from mainspring.training.loop.parallel import Alone, Parallel, Part
from mainspring.training.loop.signals import PREEMPTED, WARNED, Interrupted
from mainspring.training.loop.stopping import EarlyStopping
from mainspring.training.loop.streamed import Streamed
from mainspring.training.loop.tensors import import_torch, packed, take_apart, unpacked, weights_digest
from mainspring.training.loop.writing import Keeping
from mainspring.training.preemption.notices import Notice, PreemptionNotices

if TYPE_CHECKING:
    from mainspring.training.runs.run import Run

_LOOK_EVERY = 32  # steps between two checks of the loss, where a check waits for the accelerator
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # address of a function in a module's text


class Loop:
    """A training and its position."""

    validation: Rows | Streamed | None = None
    metric: Callable[[Any, Any], Any] | None = None
    stopping: EarlyStopping | None = None
    schedule: Any = None
    schedule_per = "step"
    clip_norm: float | None = None
    amp = False
    accumulate = 1
    seed = 0
    run: Run | None = None
    log_every = 50
    progress: Callable[[str, float], None] | None = None
    keeping: Keeping | None = None
    notices: PreemptionNotices | None = None
    restart_finished = True  # whether a finished training in the folder of checkpoints is started again
    same_run = False  # whether a training that is resumed goes on in this run

    def __init__(
        self, module: Any, rows: Rows | Streamed, loss: Any, optimiser: Any, epochs: int, batch_size: int
    ) -> None:
        self.torch = import_torch()
        self.module, self.rows, self.loss, self.optimiser = module, rows, loss, optimiser
        self.epochs, self.batch_size = epochs, batch_size
        self.parameters = [each for group in optimiser.param_groups for each in group["params"]]
        self.device = next((each.device for each in module.parameters()), self.torch.device("cpu"))
        named = dict(module.named_parameters(remove_duplicate=False))
        self.frozen = {name: weights for name, weights in named.items() if not weights.requires_grad}
        self.batches = math.ceil(len(rows) / batch_size)
        self.parallel: Parallel = Alone()
        self.noted: list[int] = []
        self.step = self.epoch = self.batch = 0  # completed; `batch` counts within the current epoch
        self.finished = False
        self._announced = ""
        self.score: float | None = None
        self.best: dict[str, Any] | None = None
        self._losses: list[Any] = []  # not yet checked

    def described(self) -> dict[str, tuple[Any, ...]]:
        """Return values that identify this training by their texts: module, rows, settings and frozen weights, but not
        those that are trained, nor the number of epochs.

        Raises:
            Invalid: The optimiser or the schedule has state that a checkpoint cannot store.
        """
        shapes = [
            (name, str(parameter.dtype), list(parameter.shape)) for name, parameter in self.module.named_parameters()
        ]
        loss = getattr(self.loss, "__qualname__", type(self.loss).__qualname__)
        states = [None if stateful is None else (type(stateful).__qualname__, take_apart(stateful.state_dict())[0])
                for stateful in (self.optimiser, self.schedule)]  # fmt: skip
        stopping = self.stopping and (self.stopping.patience, self.stopping.min_delta, self.stopping.mode)
        settings = (self.schedule_per, self.clip_norm, self.amp, self.seed, self.batch_size, stopping,
                    *((self.accumulate,) if self.accumulate > 1 else ()))  # fmt: skip
        return {
            "module": (self.module, shapes),
            "loss": (loss,),
            "optimiser or schedule": tuple(states),
            "settings": settings,
            "rows": (self.rows.digest(),),
            "validation rows": (self.validation.digest() if self.validation else None,),
            "frozen weights": (weights_digest(self.frozen),) if self.frozen else (),
        }

    def train(self, module: Any) -> None:
        """Train this module, as the processes share it, in place of the one given; the optimiser has its parameters."""
        self.module = module
        self.parameters = [each for group in self.optimiser.param_groups for each in group["params"]]

    def begin(self) -> None:
        """Resume from the newest checkpoint of an unfinished training, or seed the generators."""
        checkpoint = self._resumed()
        if checkpoint is None:
            seed_generators(self.seed, self.parallel.stream)
            return
        state = checkpoint.state
        self.parallel.restore(self.module, self.optimiser, state)
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.stopping is not None:
            self.stopping.restore(state["stopping"])
        self.step, self.epoch, self.batch = checkpoint.step, state["epoch"], state["batch"]
        self.best, self.score = state["best"], checkpoint.score
        stream, before = self.parallel.stream, [state["generators"], *state.get("other_ranks", ())]
        if stream < len(before):
            restore_generators(before[stream])
        else:  # a process more than before
            seed_generators(self.seed + checkpoint.step, self.parallel.stream)
        if self.keeping is not None:
            self.keeping.found(checkpoint.step)
        self.tell(f"resumes from step {checkpoint.step}")

    def _resumed(self) -> Checkpoint | None:
        """Return the checkpoint to continue from, the same on every rank."""
        if self.keeping is None:
            return None
        found = self.keeping.checkpoints.newest(self.parallel.like)
        if found is not None and found.state["finished"] and self.restart_finished:
            self.keeping.checkpoints.clear()
            return None
        return found

    def go(self) -> None:
        """Train until the last epoch, or until early stopping."""
        stop = self.stopping is not None and self.stopping.rounds - self.stopping.best_round >= self.stopping.patience
        while self.epoch < self.epochs and not stop:
            self.module.train()
            for numbers in self.rows.batches(self.seed, self.epoch, self.batch_size, self.batch):
                self._train(numbers)
                self.batch += 1
                if self.batch < self.batches:
                    self._after_step()
            self._look()
            stop = self._validate()
            self.epoch, self.batch = self.epoch + 1, 0
            if self.schedule is not None and self.schedule_per == "epoch":
                needs_score = type(self.schedule).__name__ == "ReduceLROnPlateau"
                self.schedule.step(*([self.score] if needs_score else []))
            if self.epoch < self.epochs and not stop:
                self._after_step()
        signal = self.parallel.settle(self._signal)
        if signal not in (0, WARNED, PREEMPTED):  # a preempted training that is done may still be in time
            self._interrupted(signal)
        self.finished = True
        self._say_bound()
        if self.stopping is not None and self.best is not None:
            self.parallel.load(self.module, self.best)
        if self.keeping is not None:
            self._checkpoint(self.keeping, wait=True)

    def _train(self, numbers: Any) -> None:
        self.step += 1
        try:
            self.optimiser.zero_grad(set_to_none=True)  # frees memory before the batch is loaded
            loss = self._gradients(numbers)
            if self.clip_norm is not None:
                self.parallel.clip(self.parameters, self.clip_norm)
            self.optimiser.step()
        except (RuntimeError, MemoryError) as error:
            self._explain(error)
            raise
        if self.schedule is not None and self.schedule_per == "step":
            self.schedule.step()
        if self.step % self.log_every == 0 and (self.run is not None or self.parallel.world.size > 1):
            self._look()
            value = float(self.parallel.total(loss))
            self._log({"loss": value, "lr": self.optimiser.param_groups[0]["lr"], **self.rows.speed()})

    def _gradients(self, numbers: Any) -> Any:
        """Set the gradients to those of a batch; return this rank's share of its loss."""
        parts = [self.parallel.share(part) for part in numbers.tensor_split(self.accumulate)]
        return self.parallel.gradients(self._parts(parts, numbers), len(parts), self._loss)

    def _parts(self, parts: Iterable[Any], numbers: Any) -> Iterator[Part]:
        """Load the parts of a batch, one after the other; one without rows has a row that does not count."""
        for part in parts:
            rows = self.rows.batch(part if len(part) else numbers[:1], self.device)
            yield Part(*rows, weight=len(part) / len(numbers))

    def _loss(self, outputs: Any, targets: Any) -> Any:
        try:
            value = self.loss(outputs, targets)
        except RuntimeError as error:  # binary_cross_entropy refuses NaN, and does not name it
            if self.torch.is_tensor(outputs) and not outputs.isfinite().all():
                raise self._diverged(
                    f"The outputs are not finite at step {self.step} (epoch {self.epoch + 1})"
                ) from error
            raise
        self._note(value)  # before the step, while the weights are still finite
        return value

    def _log(self, values: dict[str, float]) -> None:
        if self.run is not None and self.parallel.world.first:
            self.run.log_metrics(values, self.step)

    def _say_bound(self) -> None:
        """Say in the run whether it was bound by its data or by computing, where that is known."""
        bound = self.rows.bound()
        if bound and self.run is not None and self.parallel.world.first:
            self.run.set_tag("bound_by", bound)

    def _explain(self, error: Exception) -> None:
        """Raise if it says that memory ran out."""
        if not _out_of_memory(error):
            return
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MainspringError(
            f"Out of memory at step {self.step} with {self.batch_size} rows a batch: {said}.{self._kept()}",
            fix=f"use batch_size={max(1, self.batch_size // 2)}, or a smaller module.",
        ) from error

    def autocast(self) -> Any:
        """Return the context of a forward pass: mixed precision, or nothing."""
        if not self.amp:
            return nullcontext()
        return self.torch.autocast(self.device.type, dtype=self.torch.bfloat16)

    def _note(self, loss: Any) -> None:
        if self.device.type == "cpu":
            self._check(loss.item(), self.step)
            return
        self._losses.append(loss.detach())
        if len(self._losses) >= _LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        """Raise if a loss since the last check is not finite."""
        if self._losses:
            values = self.torch.stack(self._losses).tolist()
            self._losses = []
            for number, value in enumerate(values, start=self.step - len(values) + 1):
                self._check(value, number)

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise self._diverged(f"The loss is {loss} at step {step} (epoch {self.epoch + 1})")

    def _validate(self) -> bool:
        if self.validation is None:
            return False
        self.module.eval()
        outputs, targets = [], []
        try:
            with self.torch.no_grad(), self.autocast():
                for batch in self.validation.stored(self.batch_size * self.parallel.world.size):
                    own = self.parallel.share(batch)
                    inputs, wanted = self.validation.batch(own if len(own) else batch[:1], self.device)
                    outputs.append(self.parallel.gathered(self.parallel.outputs(inputs)[: len(own)]))
                    targets.append(self.parallel.gathered(wanted[: len(own)]))
                found = (self.metric or self.loss)(self.torch.cat(outputs), self.torch.cat(targets))
        except (RuntimeError, MemoryError) as error:
            self._explain(error)
            raise
        value = float(found)
        if not math.isfinite(value):
            raise self._diverged(f"The validation is {value} after step {self.step} (epoch {self.epoch + 1})")
        self._log({"validation": value})
        self.tell(f"epoch {self.epoch + 1} of {self.epochs}, validation {value:.6g}")
        self.score = -value if self.stopping is not None and self.stopping.mode == "max" else value
        if self.stopping is None:
            return False
        if self.stopping.is_better(value):
            self.best = deepcopy(self._trained())
        return self.stopping.update(value)

    @property
    def _signal(self) -> int:
        return max(self.noted, default=0)

    def _after_step(self) -> None:
        wanted = self.keeping is not None and self.parallel.world.first and self.keeping.due(self.step)
        signal, due = self.parallel.vote(self._signal, wanted)
        while WARNED in self.noted:  # it counts once
            self.noted.remove(WARNED)
        if signal > WARNED:
            self._interrupted(signal)
        if (due or signal == WARNED) and self.keeping is not None:
            self._checkpoint(self.keeping)

    def _interrupted(self, signal: int) -> None:
        self._look()
        said = "no checkpoints were asked for"
        if self.keeping is not None:
            said = "the checkpoint of this step was not written"
            if self.keeping.has(self.step) or self._checkpoint(self.keeping, wait=True):
                place = self.keeping.checkpoints.shown(self.step)
                said = f"the checkpoint {place} is written, where the same training resumes"
        preempted = signal == PREEMPTED
        if self._announced:
            self.tell(self._announced)
        if self.run is not None:
            if preempted and self.parallel.world.first:
                self.run.set_tag(PREEMPTED_TAG, f"after step {self.step}")
            self.run.flush()
        why = "as its machine is preempted" if preempted else "by a signal"
        what = f"Training was stopped {why} after step {self.step}; {said}."
        raise Interrupted(SIGTERM if preempted else signal, what, preempted=preempted)

    def _checkpoint(self, keeping: Keeping, *, wait: bool = False) -> bool:
        self._look()
        if not self.parallel.finite(self.parameters):
            raise self._diverged(f"The weights are no longer finite after step {self.step} (epoch {self.epoch + 1})")
        if self.same_run and self.run is not None:
            self.run.flush()  # what is before the checkpoint is not logged again
        generators = self._generators()
        state = {
            **self.parallel.state(self._trained(), self.optimiser),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "stopping": None if self.stopping is None else self.stopping.state(),
            "best": None if self.best is None else self.parallel.stored(self.best),
            "epoch": self.epoch,
            "batch": self.batch,
            "finished": self.finished,
            "generators": generators[0],
            "other_ranks": generators[1:],
        }
        return keeping.keep(Checkpoint(self.step, state, self.score), wait=wait)

    def _generators(self) -> list[Any]:
        """Return the states of the ranks' random generators, one of each stream."""
        own = packed(generator_states())
        every = self.parallel.world.gather_bytes(own)
        streams = self.parallel.world.gather(self.parallel.stream)
        return [unpacked(each) for _, each in sorted(dict(zip(streams, every, strict=True)).items())]

    def example(self) -> tuple[Any, ...]:
        """Return the module's arguments for one row."""
        return self.rows.batch(self.torch.zeros(1, dtype=self.torch.int64), self.device)[0]

    def _trained(self) -> dict[str, Any]:
        """Return this rank's part of the module's state without the frozen weights, which stay as they are."""
        return {name: each for name, each in self.parallel.weights(self.module).items() if name not in self.frozen}

    def _diverged(self, what: str) -> MainspringError:
        return MainspringError(
            f"{what}.{self._kept()}",
            fix="use a lower learning rate or clip_norm=1.0, scale the inputs, and look for nulls among them.",
        )

    def _kept(self) -> str:
        return self.keeping.said() if self.keeping is not None else ""

    def tell_checkpoints(self, took_s: float, interval: str) -> None:
        """Say how often checkpoints are written, and whether one takes longer than a preemption is announced."""
        if interval:
            self.tell(f"checkpoints {interval}")
        if not self.parallel.world.first:
            return
        if interval and self.run is not None:
            self.run.set_tag("checkpoints", interval)
        if self.notices is not None and took_s > self.notices.least_s:
            warnings.warn(
                f"A checkpoint takes {took_s:.3g} s, and {self.notices.name} announces a preemption "
                f"{self.notices.least_s:.3g} s before. What was done since the last checkpoint may be lost.",
                RuntimeWarning,
                stacklevel=2,
            )

    def tell_failed(self, said: str) -> None:
        """Say that a checkpoint could not be written."""
        self.tell(said)
        if self.run is not None and self.parallel.world.first:
            self.run.set_tag(UNWRITTEN, said)

    def hear(self, notice: Notice) -> None:
        """Note a preemption, from the thread that listens for it."""
        self._announced = notice.what
        self.noted.append(PREEMPTED if notice.ends else WARNED)

    def tell(self, what: str) -> None:
        """Say what happens, and which share is done."""
        if self.progress is not None:
            self.progress(what, min(1.0, (self.epoch + self.batch / self.batches) / self.epochs))


def digest_of(values: Iterable[Any]) -> str:
    """Return the SHA-256 of the texts of values."""
    text = "\0".join(map(repr, values))
    return hashlib.sha256(_ADDRESS.sub("", text).encode()).hexdigest()


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
