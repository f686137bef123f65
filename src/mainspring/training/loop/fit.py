"""Training loop for PyTorch modules: seeded, with early stopping, checkpoints and exact resumption.

A resumed training continues from the batch, the random states and the optimiser state at which it was interrupted. On
the same machine with the same number of threads, its final weights equal those of an uninterrupted training bit for
bit.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, MainspringError
from mainspring.training.loop.batches import Rows
from mainspring.training.loop.checkpoints import (
    Checkpoint,
    Checkpoints,
    generator_states,
    restore_generators,
    seed_generators,
)
from mainspring.training.loop.signals import Interrupted, signals_noted
from mainspring.training.loop.stopping import EarlyStopping
from mainspring.training.loop.tensors import import_torch, take_apart, weights_digest
from mainspring.training.loop.writing import Keeping

if TYPE_CHECKING:
    from mainspring.training.runs.run import Run

_LOOK_EVERY = 32  # steps between two checks of the loss, where a check waits for the accelerator
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # address of a function in a module's text


def fit_torch(
    module: Any,
    train: Any,
    loss: Callable[[Any, Any], Any],
    *,
    optimiser: Any,
    validation: Any = None,
    metric: Callable[[Any, Any], Any] | None = None,
    stopping: EarlyStopping | None = None,
    epochs: int = 10,
    batch_size: int = 256,
    schedule: Any = None,
    schedule_per: str = "step",
    clip_norm: float | None = None,
    amp: bool = False,
    seed: int | None = None,
    run: Run | None = None,
    log_every: int = 50,
    checkpoints: Path | str | None = None,
    checkpoint_every_s: float = 30.0,
    checkpoint_every_steps: int | None = None,
    keep: int = 3,
    progress: Callable[[str, float], None] | None = None,
) -> Any:
    """Train a `torch.nn.Module` on its current device (CPU or an accelerator) and return it, in evaluation mode.

    Args:
        train: `(inputs, targets)`, tensors or arrays of shape (rows, ...), inputs also a tuple of them, each an
            argument of the module; or a dataset with `len()` and `[number] -> (inputs, target)`.
        loss: `(outputs, targets) -> tensor of shape ()`.
        optimiser: A `torch.optim` optimiser of the module's parameters.
        validation: Rows like `train`, evaluated after each epoch.
        metric: `(outputs, targets) -> number` over all validation rows at once; by default the loss.
        stopping: Ends the training when validation stops improving, and returns the best weights instead of the last.
        schedule: A `torch.optim.lr_scheduler`, stepped after each "step" or "epoch" (`schedule_per`).
        clip_norm: Gradients are scaled down to this norm (2-norm over all parameters).
        amp: Mixed precision: compute in bfloat16 where PyTorch considers it safe (`torch.autocast`).
        seed: Seed of the row order and of the random generators; by default the run's, else 0. Weights are initialised
            before this call: seed PyTorch there.
        run: Receives `loss` and `lr` every `log_every` steps, and `validation` after each epoch.
        checkpoints: Folder of checkpoints. An interrupted training with the same module, rows and settings is resumed
            from there; a finished one is started again. `None`: no checkpoints.
        checkpoint_every_s: Seconds between checkpoints; extended so that checkpoints cost at most 2 % of the time.
        checkpoint_every_steps: Steps between checkpoints, whatever they cost; replaces `checkpoint_every_s`.
        keep: Number of newest checkpoints kept, in addition to the best by the last validation (by the `mode` of
            `stopping`; without it, lower is better).
        progress: Called with a description of the current stage and the completed share, from 0 to 1.

    Raises:
        MainspringError: The loss or the weights are no longer finite, or memory ran out; the message names the step.
        Invalid: There are no rows, or the settings are inconsistent.
        Conflict: Another training uses the checkpoint folder.
        Interrupted: SIGTERM or SIGINT arrived; a checkpoint was written first, if there is a folder.
    """
    if epochs < 1 or batch_size < 1 or log_every < 1:
        raise Invalid(f"epochs={epochs}, batch_size={batch_size} and log_every={log_every} must be at least 1.")
    if schedule_per not in ("step", "epoch"):
        raise Invalid(f"The unit of the schedule is {schedule_per!r}.", fix='use "step" or "epoch".')
    if stopping is not None and validation is None:
        raise Invalid("Early stopping needs validation rows.", fix="give validation=(inputs, targets).")
    loop = Loop(module, Rows(train), loss, optimiser, epochs, batch_size)
    loop.validation = None if validation is None else Rows(validation)
    loop.metric, loop.stopping = metric, stopping
    loop.schedule, loop.schedule_per = schedule, schedule_per
    loop.clip_norm, loop.amp = clip_norm, amp
    loop.seed = seed if seed is not None else run.seed if run is not None else 0
    loop.run, loop.log_every, loop.progress = run, log_every, progress
    with ExitStack() as stack:
        if checkpoints is not None:
            folder = Path(checkpoints) / loop.fingerprint()[:16]
            loop.keeping = Keeping(Checkpoints(folder, keep=keep), checkpoint_every_s, checkpoint_every_steps)
            stack.enter_context(loop.keeping.open())
        loop.noted = stack.enter_context(signals_noted())
        loop.begin()
        loop.go()
    if loop.noted:
        raise Interrupted(loop.noted[0], f"Training was stopped by a signal after its last step, {loop.step}.")
    return module.eval()


class Loop:
    """A training and its position."""

    validation: Rows | None = None
    metric: Callable[[Any, Any], Any] | None = None
    stopping: EarlyStopping | None = None
    schedule: Any = None
    schedule_per = "step"
    clip_norm: float | None = None
    amp = False
    seed = 0
    run: Run | None = None
    log_every = 50
    progress: Callable[[str, float], None] | None = None
    keeping: Keeping | None = None

    def __init__(self, module: Any, rows: Rows, loss: Any, optimiser: Any, epochs: int, batch_size: int) -> None:
        self.torch = import_torch()
        self.module, self.rows, self.loss, self.optimiser = module, rows, loss, optimiser
        self.epochs, self.batch_size = epochs, batch_size
        self.parameters = [each for group in optimiser.param_groups for each in group["params"]]
        self.device = next((each.device for each in module.parameters()), self.torch.device("cpu"))
        named = dict(module.named_parameters(remove_duplicate=False))
        self.frozen = {name: weights for name, weights in named.items() if not weights.requires_grad}
        self.batches = math.ceil(len(rows) / batch_size)
        self.noted: list[int] = []
        self.step = self.epoch = self.batch = 0  # completed; `batch` counts within the current epoch
        self.finished = False
        self.score: float | None = None
        self.best: dict[str, Any] | None = None
        self._losses: list[Any] = []  # not yet checked

    def fingerprint(self) -> str:
        """Return a digest that identifies this training: module, rows, settings and frozen weights, but not those
        that are trained, nor the number of epochs.

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
        settings = (self.schedule_per, self.clip_norm, self.amp, self.seed, self.batch_size, stopping)
        rows = (self.rows.digest(), self.validation.digest() if self.validation else None)
        frozen = (weights_digest(self.frozen),) if self.frozen else ()
        text = "\0".join(map(repr, (self.module, shapes, loss, *states, *settings, *rows, *frozen)))
        return hashlib.sha256(_ADDRESS.sub("", text).encode()).hexdigest()

    def begin(self) -> None:
        """Resume from the newest checkpoint of an unfinished training, or seed the generators."""
        checkpoint = self.keeping.checkpoints.newest() if self.keeping is not None else None
        if checkpoint is not None and self.keeping is not None and checkpoint.state["finished"]:
            self.keeping.checkpoints.clear()
            checkpoint = None
        if checkpoint is None or self.keeping is None:
            seed_generators(self.seed)
            return
        state = checkpoint.state
        self._restore(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.stopping is not None:
            self.stopping.restore(state["stopping"])
        self.step, self.epoch, self.batch = checkpoint.step, state["epoch"], state["batch"]
        self.best, self.score = state["best"], checkpoint.score
        self.keeping.found(checkpoint.step)
        restore_generators(state["generators"])
        self._tell(f"resumes from step {checkpoint.step}")

    def go(self) -> None:
        """Train until the last epoch, or until early stopping."""
        stop = self.stopping is not None and self.stopping.rounds - self.stopping.best_round >= self.stopping.patience
        while self.epoch < self.epochs and not stop:
            self.module.train()
            order = self.rows.order(self.seed, self.epoch).split(self.batch_size)
            for numbers in order[self.batch :]:
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
        if self.noted:
            self._interrupted()
        self.finished = True
        if self.stopping is not None and self.best is not None:
            self._restore(self.best)
        if self.keeping is not None:
            self._checkpoint(self.keeping, wait=True)

    def _train(self, numbers: Any) -> None:
        self.step += 1
        try:
            self.optimiser.zero_grad(set_to_none=True)  # frees memory before the batch is loaded
            inputs, targets = self.rows.batch(numbers, self.device)
            if self.amp:
                with self._autocast():
                    loss = self.loss(self.module(*inputs), targets)
            else:
                loss = self.loss(self.module(*inputs), targets)
            self._note(loss)  # before the step, while the weights are still finite
            loss.backward()
            if self.clip_norm is not None:
                self.torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
            self.optimiser.step()
        except (RuntimeError, MemoryError) as error:
            raise self._explained(error) from error
        if self.schedule is not None and self.schedule_per == "step":
            self.schedule.step()
        if self.run is not None and self.step % self.log_every == 0:
            self._look()
            self.run.log_metrics({"loss": float(loss.detach()), "lr": self.optimiser.param_groups[0]["lr"]}, self.step)

    def _explained(self, error: Exception) -> Exception:
        """Return the error to raise: a `MainspringError` if memory ran out, else the error itself."""
        if not _out_of_memory(error):
            return error
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return MainspringError(
            f"Out of memory at step {self.step} with {self.batch_size} rows a batch: {said}.{self._kept()}",
            fix=f"use batch_size={max(1, self.batch_size // 2)}, or a smaller module.",
        )

    def _autocast(self) -> Any:
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
            with self.torch.no_grad(), self._autocast():
                for inputs, wanted in self.validation.in_order(self.batch_size, self.device):
                    outputs.append(self.module(*inputs))
                    targets.append(wanted)
                found = (self.metric or self.loss)(self.torch.cat(outputs), self.torch.cat(targets))
        except (RuntimeError, MemoryError) as error:
            raise self._explained(error) from error
        value = float(found)
        if not math.isfinite(value):
            raise self._diverged(f"The validation is {value} after step {self.step} (epoch {self.epoch + 1})")
        if self.run is not None:
            self.run.log_metrics({"validation": value}, self.step)
        self._tell(f"epoch {self.epoch + 1} of {self.epochs}, validation {value:.6g}")
        self.score = -value if self.stopping is not None and self.stopping.mode == "max" else value
        if self.stopping is None:
            return False
        if self.stopping.is_better(value):
            self.best = deepcopy(self._trained())
        return self.stopping.update(value)

    def _after_step(self) -> None:
        if self.noted:
            self._interrupted()
        if self.keeping is not None and self.keeping.due(self.step):
            self._checkpoint(self.keeping)

    def _interrupted(self) -> None:
        self._look()
        said = "no checkpoints were asked for"
        if self.keeping is not None:
            said = "the checkpoint of this step was not written"
            if self.keeping.has(self.step) or self._checkpoint(self.keeping, wait=True):
                said = f"the checkpoint {self.keeping.checkpoints.path(self.step)} is written"
        if self.run is not None:
            self.run.flush()
        raise Interrupted(self.noted[0], f"Training was stopped by a signal after step {self.step}; {said}.")

    def _checkpoint(self, keeping: Keeping, *, wait: bool = False) -> bool:
        self._look()
        finite = [self.torch.isfinite(each).all().to(self.device) for each in self.parameters]
        if finite and not bool(self.torch.stack(finite).all()):
            raise self._diverged(f"The weights are no longer finite after step {self.step} (epoch {self.epoch + 1})")
        state = {
            "module": self._trained(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "stopping": None if self.stopping is None else self.stopping.state(),
            "best": self.best,
            "epoch": self.epoch,
            "batch": self.batch,
            "finished": self.finished,
            "generators": generator_states(),
        }
        return keeping.keep(Checkpoint(self.step, state, self.score), wait=wait)

    def _trained(self) -> dict[str, Any]:
        """Return the module's state without the frozen weights, which stay as they are."""
        return {name: value for name, value in self.module.state_dict().items() if name not in self.frozen}

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict({**self.module.state_dict(), **state})

    def _diverged(self, what: str) -> MainspringError:
        return MainspringError(
            f"{what}.{self._kept()}",
            fix="use a lower learning rate or clip_norm=1.0, scale the inputs, and look for nulls among them.",
        )

    def _kept(self) -> str:
        return self.keeping.said() if self.keeping is not None else ""

    def _tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what, min(1.0, (self.epoch + self.batch / self.batches) / self.epochs))


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
