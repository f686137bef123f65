"""Background writing of checkpoints: tensors are copied at once, and the copy is written while training continues."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints, apart
from mainspring.training.loop.tensor_snapshot import Image, image_of


class Writer:
    """Background writer of one training's checkpoints, one at a time.

    `cost_s` is the cost of the last checkpoint to the training: the seconds that it waited, plus the processor time of
    the writing thread.

    Args:
        copy: `(tensors, places, previous copy) -> copy`, `None` if memory is short.
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
        """Wait for a pending write at the end of the block."""
        try:
            yield
        finally:
            self._pool.shutdown()

    @property
    def busy(self) -> bool:
        """True while a checkpoint is being written."""
        return self._going_on is not None and not self._going_on.done()

    def settle(self) -> None:
        """Wait for a pending write.

        Raises:
            StorageFull, OSError: The pending write failed; raised once.
        """
        going_on, self._going_on = self._going_on, None
        if going_on is not None:
            self.cost_s += going_on.result()

    def begin(self, checkpoint: Checkpoint) -> None:
        """Copy the checkpoint's tensors and return; the copy is written while the caller continues.

        If memory is short, write at once and return afterwards. No write may be pending.

        Raises:
            Invalid: The state holds something that is neither a tensor nor JSON.
            StorageFull, OSError: As `Checkpoints.write`, if written at once.
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
        """Write a checkpoint and return once it is stored. No write may be pending.

        Raises:
            StorageFull, OSError: As `Checkpoints.write`.
        """
        begun = time.monotonic()
        try:
            self._checkpoints.write(checkpoint)
        finally:
            self.cost_s = time.monotonic() - begun
