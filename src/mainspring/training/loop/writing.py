"""Checkpoints written beside the training: what they keep is copied, the rest is done while the next steps are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints, apart
from mainspring.training.loop.image import Image, image_of


class Writer:
    """Writes the checkpoints of one training, one at a time.

    `cost_s` is what the last one took from the training: the seconds that it waited, and the processor's on the thread.

    Args:
        copy: `(tensors, places, the copy before) -> copy`, `None` where there is no room for one.
    """

    def __init__(self, checkpoints: Checkpoints, copy: Callable[..., Image | None] = image_of) -> None:
        self._checkpoints = checkpoints
        self._copy = copy
        self._image: Image | None = None
        self._going_on: Future[float] | None = None
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self.cost_s = 0.0

    @contextmanager
    def open(self) -> Iterator[None]:
        """At the end of the block what is being written is done."""
        try:
            yield
        finally:
            self._pool.shutdown()

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._going_on is not None and not self._going_on.done()

    def settle(self) -> None:
        """Return when nothing is being written.

        Raises:
            StorageFull, OSError: The last one that was begun was not written; said once.
        """
        going_on, self._going_on = self._going_on, None
        if going_on is not None:
            self.cost_s += going_on.result()

    def begin(self, checkpoint: Checkpoint) -> None:
        """Copy what a checkpoint keeps, and return; it is written while the caller goes on, whatever changes there.

        Where memory has no room for the copy, this returns when it is written. Nothing may be being written.

        Raises:
            Invalid: The state holds something that is neither a tensor nor JSON.
            StorageFull, OSError: As `Checkpoints.write`, where it is written at once.
        """
        begun = time.monotonic()
        self.cost_s = 0.0
        whole = apart(checkpoint)
        self._image = image = self._copy(whole.tensors, whole.places, self._image)
        if image is None:
            self._checkpoints.write(checkpoint)
        else:

            def write() -> float:
                used = time.thread_time()
                self._checkpoints.put(whole, image.pieces())
                return time.thread_time() - used

            self._going_on = self._pool.submit(write)
        self.cost_s = time.monotonic() - begun

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and return when it is there. Nothing may be being written.

        Raises:
            StorageFull, OSError: As `Checkpoints.write`.
        """
        begun = time.monotonic()
        try:
            self._checkpoints.write(checkpoint)
        finally:
            self.cost_s = time.monotonic() - begun
