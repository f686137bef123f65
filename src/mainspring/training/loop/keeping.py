"""When a training's checkpoints are due, and what becomes of one that cannot be written: a warning, not the end."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mainspring.core.errors import StorageFull
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.writing import Writer

_COST_SHARE = 50  # one is due no sooner than this many times what the last one took: they cost 2 % at most


class Keeping:
    """The checkpoints of one training, as they come to be.

    Args:
        every_s: How many seconds lie between two, at the least.
        every_steps: How many steps, whatever they cost; replaces `every_s`.
    """

    def __init__(self, checkpoints: Checkpoints, every_s: float, every_steps: int | None) -> None:
        self.checkpoints = checkpoints
        self._every_s, self._every_steps = every_s, every_steps
        self._writer = Writer(checkpoints)
        self._last = time.monotonic()  # when one was begun
        self._step = -1  # that the last one is of

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be the only training that uses the folder, inside the block. At its end what was begun is written.

        Raises:
            Conflict: Another training uses it now.
        """
        with self.checkpoints.hold(), self._writer.open():
            yield

    def found(self, step: int) -> None:
        """There is a checkpoint of this step."""
        self._step = step

    def due(self, step: int) -> bool:
        """Return whether one is due after this step."""
        if self._every_steps is not None:
            return step % self._every_steps == 0
        since = time.monotonic() - self._last
        if since < self._every_s or self._writer.busy:
            return False
        self.settle()  # only now is it known what it cost
        return since >= _COST_SHARE * self._writer.cost_s

    def has(self, step: int) -> bool:
        """Return whether there is one of this step; what is being written is waited for."""
        self.settle()
        return self._step == step

    def keep(self, checkpoint: Checkpoint, *, wait: bool = False) -> bool:
        """Write one while training goes on, or `wait` for it. Return whether it is there, as far as that is known."""
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
        """Wait for what is being written."""
        try:
            self._writer.settle()
        except (StorageFull, OSError) as error:
            self._step = -1
            _warn(error)

    def said(self) -> str:
        """Return a sentence that names the newest checkpoint; empty where there is none."""
        self.settle()
        steps = self.checkpoints.steps()
        return f" The last good checkpoint is {self.checkpoints.path(steps[-1])}." if steps else ""


def _warn(error: StorageFull | OSError) -> None:
    said = error.what if isinstance(error, StorageFull) else f"The checkpoint was not written: {error}."
    warnings.warn(f"{said} Training goes on without this checkpoint.", RuntimeWarning, stacklevel=3)
