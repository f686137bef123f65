"""Checkpoints of a training, written when they are due, in the background: tensors are copied at once, and the copy is
written while training continues. A failed write is a warning and does not stop the training.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from mainspring.core.errors import StorageFull
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.interval import Interval
from mainspring.training.loop.tensors import Place, import_torch, pieces

_MACHINE = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
_SMALL = 64 << 20  # bytes of a snapshot that is always allowed
_FREE_SHARE = 4  # a larger snapshot takes at most one such part of the free memory


class Keeping:
    """Writes the checkpoints of one training when they are due.

    Args:
        interval: Seconds between checkpoints.
        every_steps: Number of steps between checkpoints, whatever they cost; replaces `interval`.
        told: Called when the first checkpoint is stored, with the seconds that this took, and a text of the interval
            and the numbers that it follows from, empty for one in steps.
        failed: Called with a sentence on each checkpoint that could not be written.
        storing: Returns a context of each wait for a write.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        interval: Interval,
        every_steps: int | None = None,
        told: Callable[[float, str], None] | None = None,
        failed: Callable[[str], None] | None = None,
        storing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.checkpoints, self._storing, self._failed = checkpoints, storing, failed
        self._interval, self._every_steps, self._told = interval, every_steps, told
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
        if self._writer.busy or since < self._interval.seconds(self._writer.cost_s):
            return False
        self.settle()  # a finished write has its full cost only now
        return since >= self._interval.seconds(self._writer.cost_s)

    def has(self, step: int) -> bool:
        """Return whether a checkpoint of this step exists, after waiting for a pending write."""
        self.settle()
        return self._step == step

    def keep(self, checkpoint: Checkpoint, *, wait: bool = False) -> bool:
        """Write a checkpoint in the background, or `wait` for it; return False if it is known to have failed."""
        self.settle()
        try:
            with self._storing():
                (self._writer.write if wait else self._writer.begin)(checkpoint)
        except (StorageFull, OSError) as error:
            self._warn(error)
            return False
        finally:
            self._last = time.monotonic()
        self._step = checkpoint.step
        return True

    def settle(self) -> None:
        """Wait for a pending write."""
        try:
            with self._storing():
                settled = self._writer.settle()
            if settled and self._told is not None:
                told, self._told = self._told, None
                by_time = self._every_steps is None
                told(self._writer.took_s, self._interval.explained(self._writer.cost_s or 0.0) if by_time else "")
        except (StorageFull, OSError) as error:
            self._step = -1
            self._warn(error)

    def said(self) -> str:
        """Return a sentence that names the newest checkpoint; empty if there is none."""
        self.settle()
        steps = self.checkpoints.steps()
        return f" The last good checkpoint is {self.checkpoints.shown(steps[-1])}." if steps else ""

    def _warn(self, error: StorageFull | OSError) -> None:
        said = error.what if isinstance(error, StorageFull) else f"The checkpoint was not written: {error}."
        said = f"{said} Training goes on without this checkpoint."
        if self._failed is not None:
            self._failed(said)
        warnings.warn(said, RuntimeWarning, stacklevel=3)


def free_bytes(machine: Path = _MACHINE, group: Path = _GROUP) -> int | None:
    """Return the free memory in bytes, the smaller of the machine's and the container's; `None` if unknown.

    Sources: the Linux kernel's documentation of proc(5), `MemAvailable`, and of control groups v2, "Memory".
    """
    available = []
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = machine.read_text().splitlines()
        available.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):  # no limit is the word "max"
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        available.append(limit - used + int(stat.get("inactive_file", 0)))
    return max(0, min(available)) if available else None


class Image:
    """A snapshot of tensors, laid out by `places` in one buffer."""

    def __init__(self, tensors: Mapping[str, Any], places: Mapping[str, Place]) -> None:
        torch = import_torch()
        self.places = dict(places)
        self._bytes = torch.empty(max((place.end for place in places.values()), default=0), dtype=torch.uint8)
        self._views = {
            name: self._bytes[place.begin : place.end].view(tensors[name].dtype).view(place.shape)
            for name, place in places.items()
            if place.end > place.begin
        }

    def take(self, tensors: Mapping[str, Any]) -> None:
        """Copy the current values of the tensors into the buffer."""
        for name, view in self._views.items():
            view.copy_(tensors[name])

    def pieces(self) -> Iterable[Any]:
        """Return the bytes in the order of their places."""
        return [self._bytes.numpy()]


def image_of(tensors: Mapping[str, Any], places: Mapping[str, Place], before: Image | None) -> Image | None:
    """Return a snapshot of the tensors, reusing the buffer of `before` if it fits; `None` if memory is short."""
    if before is None or before.places != places:
        size = max((place.end for place in places.values()), default=0)
        free = free_bytes()
        if size > _SMALL and free is not None and size > free // _FREE_SHARE:
            return None
        try:
            before = Image(tensors, places)
        except (RuntimeError, MemoryError):  # PyTorch's errors for failed allocation
            return None
    before.take(tensors)
    return before


class Writer:
    """Background writer of one training's checkpoints, one at a time.

    `cost_s` is the cost of the last checkpoint to the training: the seconds that it waited, plus the processor time of
    the writing thread. `took_s` are the seconds until it was stored.

    Args:
        copy: `(tensors, places, previous copy) -> copy`, `None` if memory is short.
    """

    def __init__(self, checkpoints: Checkpoints, copy: Callable[..., Image | None] = image_of) -> None:
        self._checkpoints = checkpoints
        self._copy = copy
        self._images: list[Image | None] = [None, None]  # of the checkpoint, and of this rank's part of it
        self._going_on: Future[float] | None = None
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self.cost_s: float | None = None  # before the first
        self.took_s = 0.0

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

    def settle(self) -> bool:
        """Wait for a pending write; return whether there was one.

        Raises:
            StorageFull, OSError: The pending write failed; raised once.
        """
        going_on, self._going_on = self._going_on, None
        if going_on is None:
            return False
        self.cost_s = (self.cost_s or 0.0) + going_on.result()
        return True

    def begin(self, checkpoint: Checkpoint) -> None:
        """Copy the checkpoint's tensors and return; the copy is written while the caller continues.

        If memory is short, write at once and return afterwards. No write may be pending.

        Raises:
            Invalid: The state holds something that is neither a tensor nor JSON.
            StorageFull, OSError: As `Checkpoints.write`, if written at once.
        """
        begun = time.monotonic()
        whole = self._checkpoints.apart(checkpoint)
        files = ((whole.tensors, whole.places), (whole.part, whole.part_places))
        self._images = [self._copy(*file, before) for file, before in zip(files, self._images, strict=True)]
        image, part = self._images
        if image is None or part is None:
            contents = [pieces(*file) for file in files]
            self._checkpoints.put(whole, *contents)
        else:

            def write() -> float:
                used = time.thread_time()
                self._checkpoints.put(whole, image.pieces(), part.pieces())
                self.took_s = time.monotonic() - begun
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
