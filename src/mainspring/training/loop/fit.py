"""A training loop for PyTorch modules: seeded, watched, and killed at any moment no worse off than not killed.

A resumed training goes on from the row, the random states and the optimiser's tensors at which it was cut off, so its
finished weights are bit for bit those of one that nobody disturbed, on the same machine with as many threads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid
from mainspring.training.loop.batches import Rows
from mainspring.training.loop.checkpoints import Checkpoints
from mainspring.training.loop.keeping import Keeping
from mainspring.training.loop.signals import Interrupted, signals_noted
from mainspring.training.loop.stepping import Loop
from mainspring.training.loop.stopping import EarlyStopping

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
    seed: int | None = None,
    run: Run | None = None,
    log_every: int = 50,
    checkpoints: Path | str | None = None,
    checkpoint_every_s: float = 30.0,
    checkpoint_every_steps: int | None = None,
    keep: int = 3,
    progress: Callable[[str, float], None] | None = None,
) -> Any:
    """Train a `torch.nn.Module` where it lies (CPU or an accelerator) and return it, in evaluation mode.

    Args:
        train: `(inputs, targets)`, tensors or arrays of shape (rows, ...), inputs also a tuple of them, each an
            argument of the module; or a dataset with `len()` and `[number] -> (inputs, target)`.
        loss: `(outputs, targets) -> tensor of shape ()`.
        optimiser: Of the module's parameters.
        validation: Rows like `train`, looked at after each epoch.
        metric: `(outputs, targets) -> number` over all validation rows at once; by default the loss.
        stopping: Ends the training where validation no longer gets better, and has the best weights returned instead
            of the last.
        schedule: A `torch.optim.lr_scheduler`, stepped after each "step" or "epoch" (`schedule_per`).
        clip_norm: Gradients are scaled down to this norm (2-norm over all parameters).
        amp: Compute in bfloat16 where PyTorch holds that to be safe (`torch.autocast`).
        seed: Of the rows' order and of the random generators; by default the run's, else 0. Weights are drawn before
            this is called: seed PyTorch there.
        run: Is told `loss` and `lr` every `log_every` steps, and `validation` each epoch.
        checkpoints: A folder; training goes on there where an earlier call, with the same module, rows and settings,
            was cut off. A finished training is done anew. `None`: no checkpoints.
        checkpoint_every_s: How often, in seconds; less often where one takes long (2 % of the time at most).
        checkpoint_every_steps: How often, in steps, whatever they cost; replaces `checkpoint_every_s`.
        keep: How many of the newest checkpoints are kept, beside the best by the last validation (by the `mode` of
            `stopping`; without it, less is better).
        progress: Told in words what is being done, and the share that is done, from 0 to 1.

    Raises:
        MainspringError: The loss or the weights are no longer finite, or memory ran out; the message names the step.
        Invalid: There are no rows, or the settings make no sense.
        Conflict: Another training uses the checkpoint folder.
        Interrupted: SIGTERM or SIGINT came; a checkpoint was written first.
    """
    if epochs < 1 or batch_size < 1 or log_every < 1:
        raise Invalid(f"epochs={epochs}, batch_size={batch_size} and log_every={log_every} must be at least 1.")
    if schedule_per not in ("step", "epoch"):
        raise Invalid(f"The schedule is stepped per {schedule_per!r}.", fix='use "step" or "epoch".')
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
