"""Training loop for PyTorch modules: seeded, with early stopping, checkpoints and exact resumption.

A resumed training continues from the batch, the random states and the optimiser state at which it was interrupted. On
the same machine with the same number of threads, its final weights equal those of an uninterrupted training bit for
bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid
from mainspring.training.distribution import Distributed
from mainspring.training.loop.alike import check_alike
from mainspring.training.loop.beats import beating
from mainspring.training.loop.checkpoints import Checkpoints
from mainspring.training.loop.interval import Interval
from mainspring.training.loop.launch import current
from mainspring.training.loop.looking import LOOK, Looked
from mainspring.training.loop.loop import Loop, digest_of
from mainspring.training.loop.mesh.chosen import parallel_of, remarks
from mainspring.training.loop.objects import shelf_of
from mainspring.training.loop.parallel import Parallel
from mainspring.training.loop.refining import REFINE
from mainspring.training.loop.signals import PREEMPTED, WARNED, Interrupted, signals_noted
from mainspring.training.loop.stopping import EarlyStopping
from mainspring.training.loop.streamed import rows_of
from mainspring.training.loop.tensors import import_torch, sampled_digest
from mainspring.training.loop.world import joined
from mainspring.training.loop.writing import Keeping
from mainspring.training.preemption.notices import PreemptionNotices, notices_of
from mainspring.training.preemption.watching import Watch

if TYPE_CHECKING:
    from mainspring.training.runs.run import Run


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
    accumulate: int = 1,
    distributed: Distributed | None = None,
    seed: int | None = None,
    run: Run | None = None,
    log_every: int = 50,
    checkpoints: Path | str | None = None,
    checkpoint_every_s: float | None = None,
    checkpoint_every_steps: int | None = None,
    failure_every_h: float | None = None,
    keep: int = 3,
    preemption: str | PreemptionNotices = "",
    progress: Callable[[str, float], None] | None = None,
) -> Any:
    """Train a `torch.nn.Module` on its current device (CPU or an accelerator) and return it, in evaluation mode.

    In one of several processes that a launcher such as torchrun started, each computes its share of every batch, and
    all return equal weights. They must be called alike; the first one writes metrics and checkpoints.

    Args:
        train: `(inputs, targets)`, tensors or arrays of shape (rows, ...), inputs also a tuple of them, each an
            argument of the module; or a dataset with `len()` and `[number] -> (inputs, target)`; or an `ms.Loader` of
            rows that need not fit into memory.
        loss: `(outputs, targets) -> tensor of shape ()`.
        optimiser: A `torch.optim` optimiser of the module's parameters.
        validation: Rows like `train`, evaluated after each epoch.
        metric: `(outputs, targets) -> number` over all validation rows at once; by default the loss.
        stopping: Ends the training when validation stops improving, and returns the best weights instead of the last.
        schedule: A `torch.optim.lr_scheduler`, stepped after each "step" or "epoch" (`schedule_per`).
        clip_norm: Gradients are scaled down to this norm (2-norm over all parameters).
        accumulate: Parts in which a batch is computed, one after the other, where memory does not hold it at once. The
            gradient is that of the whole batch, whose loss is a mean over rows; batch normalisation sees parts.
        amp: Mixed precision: compute in bfloat16 where PyTorch considers it safe (`torch.autocast`). Shards are
            gathered in bfloat16, and their gradients summed in float32, the type of weights and optimiser states.
        distributed: How several processes share the work; by default as the model declares, else each has a copy of
            the module.
        seed: Seed of the row order and of the random generators; by default the run's, else 0. Weights are initialised
            before this call: seed PyTorch there.
        run: Receives `loss` and `lr` every `log_every` steps, and `validation` after each epoch.
        checkpoints: Folder of checkpoints, or `s3://bucket/prefix`. An interrupted training with the same module, rows
            and settings is resumed from there; a finished one is started again. `None`: no checkpoints, or the
            launcher's folder in one of several processes that `mainspring train` starts.
        checkpoint_every_s: Seconds between checkpoints, at least. By default they follow from what a checkpoint costs
            and how often a training fails, so that it is expected to end first. Checkpoints cost at most 2 % of the
            time in any case.
        checkpoint_every_steps: Steps between checkpoints, whatever they cost; replaces `checkpoint_every_s`.
        failure_every_h: Hours between two failures of this training, on average; by default 24 for each machine, and
            what the run's store knows of trainings so far.
        keep: Number of newest checkpoints kept, in addition to the best by the last validation (by the `mode` of
            `stopping`; without it, lower is better).
        preemption: "aws", "gcp" or "azure": heed the cloud's announcement that it takes this machine back, by a
            checkpoint and an end in order; "detect": of the cloud that the machine's firmware names, if any. By
            default as `distributed` says. The machine's metadata service is asked, at a fixed address.
        progress: Called with a description of the current stage and the completed share, from 0 to 1.

    Raises:
        MainspringError: The loss or the weights are no longer finite, or memory ran out; the message names the step.
        Invalid: There are no rows, or the settings are inconsistent.
        Conflict: Another training uses the checkpoint folder.
        Interrupted: SIGTERM or SIGINT arrived, or a preemption was announced; a checkpoint was written first, if there
            is a folder.
    """
    _check_kinds(module, optimiser)
    if epochs < 1 or batch_size < 1 or log_every < 1 or accumulate < 1:
        raise Invalid(
            f"epochs={epochs}, batch_size={batch_size}, log_every={log_every} and accumulate={accumulate} must be at "
            "least 1.",
            fix="give whole numbers from 1 on.",
        )
    if schedule_per not in ("step", "epoch"):
        raise Invalid(f"The unit of the schedule is {schedule_per!r}.", fix='use "step" or "epoch".')
    if stopping is not None and validation is None:
        raise Invalid("Early stopping needs validation rows.", fix="give validation=(inputs, targets).")
    loop = Loop(module, rows_of(train), loss, optimiser, epochs, batch_size)
    loop.validation = None if validation is None else rows_of(validation)
    loop.metric, loop.stopping = metric, stopping
    loop.schedule, loop.schedule_per = schedule, schedule_per
    loop.clip_norm, loop.amp, loop.accumulate = clip_norm, amp, accumulate
    loop.seed = seed if seed is not None else run.seed if run is not None else 0
    loop.run, loop.log_every, loop.progress = run, log_every, progress
    if _refined(loop):
        checkpoints = None
    launch = current()
    if launch is not None:
        loop.same_run, loop.restart_finished = True, checkpoints is not None and not launch.attempt
        distributed, checkpoints = distributed or launch.distributed, checkpoints or launch.checkpoints
    wanted = preemption or (distributed.preemption if distributed is not None else "")
    loop.notices = notices_of(wanted) if isinstance(wanted, str) else wanted
    with ExitStack() as stack:
        for rows in (loop.rows, loop.validation):
            if rows is not None:
                stack.callback(rows.close)
        loop.parallel = _shared(loop, distributed, stack)
        world = loop.parallel.world
        described = loop.described() if checkpoints is not None or world.size > 1 else {}
        _check_alike(loop, described, distributed)
        for remark in remarks(distributed, loop.parallel, loop.device, module):
            loop.tell(remark)
        if checkpoints is not None:
            place = shelf_of(checkpoints, digest_of(chain(*described.values()))[:16])
            kept = Checkpoints(place, keep=keep, world=world.aside())
            seen = run.failures() if run is not None and failure_every_h is None else None
            interval = Interval(
                checkpoint_every_s, failure_every_h, machines=distributed.machines if distributed else 1, seen=seen
            )
            loop.keeping = _keeping(loop, kept, interval, checkpoint_every_steps)
            stack.enter_context(loop.keeping.open())
        loop.noted = stack.enter_context(signals_noted())
        if loop.notices is not None and world.local_rank == 0:
            stack.enter_context(Watch(loop.notices, loop.hear))
        loop.train(stack.enter_context(loop.parallel.training(module, optimiser, loop.autocast, loop.example)))
        loop.begin()
        loop.go()
    stopped = [each for each in loop.noted if each not in (WARNED, PREEMPTED)]
    if stopped:
        raise Interrupted(stopped[0], f"Training was stopped by a signal after its last step, {loop.step}.")
    return module.eval()


def _check_kinds(module: Any, optimiser: Any) -> None:
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise Invalid(f"The module is of type {type(module).__name__}.", fix="give a torch.nn.Module.")
    if not isinstance(optimiser, torch.optim.Optimizer):
        raise Invalid(
            f"The optimiser is of type {type(optimiser).__name__}.",
            fix="give one of torch.optim: optimiser=torch.optim.Adam(module.parameters()).",
        )


def _refined(loop: Loop) -> bool:
    """Let those who asked look at the training, which ends it, or change it; return whether it was changed."""
    look, refine = LOOK.get(), REFINE.get()
    if look is not None:
        look(loop)
        raise Looked
    if refine is not None:
        refine(loop)
    return refine is not None


def _shared(loop: Loop, distributed: Distributed | None, stack: ExitStack) -> Parallel:
    """Join the other processes, and return how they share the work: told to the launcher, if there is one."""
    launch = current()
    if launch is None:
        return parallel_of(joined(loop.device), distributed, loop.device, loop.amp)
    stack.enter_context(launch.heart.in_loop())
    with launch.heart.waiting():
        world = joined(loop.device)
    spread = distributed is not None and distributed.parts > 1
    shared = parallel_of(world, distributed, loop.device, loop.amp)
    return beating(shared, launch.heart, lambda: loop.step, spread=spread)


def _keeping(loop: Loop, checkpoints: Checkpoints, interval: Interval, every_steps: int | None) -> Keeping:
    launch = current()
    storing = nullcontext if launch is None else launch.heart.storing
    return Keeping(checkpoints, interval, every_steps, loop.tell_checkpoints, loop.tell_failed, storing)


def _check_alike(loop: Loop, described: Mapping[str, Iterable[Any]], distributed: Distributed | None) -> None:
    """Raise where a rank trains another module, on other rows or with other settings.

    Copies begin with the weights of the first rank. Where a module is spread over ranks, they must have the same.
    """
    world, digests = loop.parallel.world, {name: digest_of(each) for name, each in described.items()}
    if distributed is not None and distributed.parts > 1 and world.size > 1:
        digests["weights at the beginning"] = sampled_digest(dict(loop.module.named_parameters()))
    check_alike(world, digests, "fit_torch")
