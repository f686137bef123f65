"""Schedule of a training's checkpoints; a failed write is a warning and does not stop the training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mainspring.core.errors import StorageFull
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.writing import Writer

_COST_SHARE = 50  # minimum interval, in multiples of the last checkpoint's cost: they cost at most 2 %


class Keeping:
    """Writes the checkpoints of one training when they are due.

    Args:
        every_s: Minimum number of seconds between checkpoints.
        every_steps: Number of steps between checkpoints, whatever they cost; replaces `every_s`.
    """

    def __init__(self, checkpoints: Checkpoints, every_s: float, every_steps: int | None) -> None:
        self.checkpoints = checkpoints
        self._every_s, self._every_steps = every_s, every_steps
        self._writer = Writer(checkpoints)
        self._last = time.monotonic()  # start of the last checkpoint
        self._step = -1  # step of the last checkpoint

    @contextmanager
    def open(self) -> Iterator[None]:
        """Lock the folder for this training inside the block; finish a pending write at its end.

        Raises:
            Conflict: Another training holds the folder.
        """
        with self.checkpoints.hold(), self._writer.open():
            yield

    def found(self, step: int) -> None:
        """Record that a checkpoint of this step exists."""
        self._step = step

    def due(self, step: int) -> bool:
        """Return whether a checkpoint is due after this step."""
        if self._every_steps is not None:
            return step % self._every_steps == 0
        since = time.monotonic() - self._last
        if since < self._every_s or self._writer.busy:
            return False
        self.settle()  # a finished write has its full cost only now
        return since >= _COST_SHARE * self._writer.cost_s

    def has(self, step: int) -> bool:
        """Return whether a checkpoint of this step exists, after waiting for a pending write."""
        self.settle()
        return self._step == step

    def keep(self, checkpoint: Checkpoint, *, wait: bool = False) -> bool:
        """Write a checkpoint in the background, or `wait` for it; return False if it is known to have failed."""
        self.settle()
        try:
            (self._writer.write if wait else self._writer.begin)(checkpoint)
        except (StorageFull, OSError) as error:
            _warn(error)
            return False
        finally:
            self._last = time.monotonic()
        self._step = checkpoint.step
        return True

    def settle(self) -> None:
        """Wait for a pending write."""
        try:
            self._writer.settle()
        except (StorageFull, OSError) as error:
            self._step = -1
            _warn(error)

    def said(self) -> str:
        """Return a sentence that names the newest checkpoint; empty if there is none."""
        self.settle()
        steps = self.checkpoints.steps()
        return f" The last good checkpoint is {self.checkpoints.path(steps[-1])}." if steps else ""


def _warn(error: StorageFull | OSError) -> None:
    said = error.what if isinstance(error, StorageFull) else f"The checkpoint was not written: {error}."
    warnings.warn(f"{said} Training goes on without this checkpoint.", RuntimeWarning, stacklevel=3)
