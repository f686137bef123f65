"""Heartbeats of a rank: the launcher sees how far each is, and which one the others wait for.

A file of 40 bytes for each rank, mapped into its memory: a beat costs a microsecond, and stays when the process dies.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mainspring.training.loop.parallel import Loss, Parallel, Part
from mainspring.training.loop.world import World

OUTSIDE, COMPUTING, WAITING = 0, 1, 2  # of the loop; the rank's own work; for the other ranks
STORING = 3  # a checkpoint is written, and the thread that does it tells what it does
_LAYOUT = struct.Struct("<QQQ")
_ASIDE = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Beat:
    """State of a rank: beats so far, completed steps, and what it does; those of its thread that writes checkpoints."""

    count: int = 0
    step: int = 0
    phase: int = OUTSIDE
    aside_count: int = 0
    aside_phase: int = COMPUTING

    @property
    def does(self) -> int:
        """Phase of the rank: that of its other thread where it waits for that."""
        return self.aside_phase if self.phase == STORING else self.phase


def read_beat(path: Path) -> Beat:
    """Return the last beat; that of a rank outside its loop if there is none."""
    try:
        content = path.read_bytes()
        return Beat(*_LAYOUT.unpack_from(content), *_ASIDE.unpack_from(content, _LAYOUT.size))
    except (OSError, struct.error):
        return Beat()


class Heart:
    """Writes the beats of this rank."""

    def __init__(self, path: Path) -> None:
        with path.open("wb+") as file:
            file.write(_LAYOUT.pack(0, 0, OUTSIDE) + _ASIDE.pack(0, COMPUTING))
            file.flush()
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size + _ASIDE.size)
        self._count = self._step = self._aside_count = 0

    def beat(self, phase: int, step: int | None = None) -> None:
        self._count += 1
        self._step = self._step if step is None else step
        _LAYOUT.pack_into(self._memory, 0, self._count, self._step, phase)

    def beat_aside(self, phase: int) -> None:
        """Tell what the thread that writes checkpoints does."""
        self._aside_count += 1
        _ASIDE.pack_into(self._memory, _LAYOUT.size, self._aside_count, phase)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Tell inside the block that this rank waits for a checkpoint to be written."""
        self.beat(STORING)
        try:
            yield
        finally:
            self.beat(COMPUTING)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Tell inside the block that this rank waits for the others."""
        self.beat(WAITING)
        yield
        self.beat(COMPUTING)

    @contextmanager
    def in_loop(self) -> Iterator[None]:
        """Tell inside the block that this rank trains."""
        self.beat(COMPUTING, 0)
        try:
            yield
        finally:
            self.beat(OUTSIDE)


class _World(World):
    """A world that tells before and after each message."""

    def __init__(self, world: World, heart: Heart) -> None:
        super().__init__(world.rank, world.size, world.local_rank, world.group)
        object.__setattr__(self, "heart", heart)  # this class has no slots of its own

    def gather_tensors(self, tensor: Any, group: Any = None) -> list[Any]:
        with self.heart.waiting():  # type: ignore[attr-defined]
            return super().gather_tensors(tensor, group)

    def barrier(self) -> None:
        with self.heart.waiting():  # type: ignore[attr-defined]
            super().barrier()

    def aside(self) -> World:
        """Return the ranks for a thread beside the training, which tells of its own messages."""
        made = World(self.rank, self.size, self.local_rank, self.group).aside()
        return _Aside(made, self.heart)  # type: ignore[attr-defined]


class _Aside(World):
    """The ranks for a thread beside the training, which tells before and after each message."""

    def __init__(self, world: World, heart: Heart) -> None:
        super().__init__(world.rank, world.size, world.local_rank, world.group)
        object.__setattr__(self, "heart", heart)

    def gather_tensors(self, tensor: Any, group: Any = None) -> list[Any]:
        self.heart.beat_aside(WAITING)  # type: ignore[attr-defined]
        found = super().gather_tensors(tensor, group)
        self.heart.beat_aside(COMPUTING)  # type: ignore[attr-defined]
        return found


class _Beating:
    """A `Parallel` that tells before and after each call in which its rank may wait for the others."""

    def __init__(self, parallel: Parallel, heart: Heart, step: Callable[[], int], *, spread: bool) -> None:
        self._parallel, self._heart, self._step = parallel, heart, step
        self._own = WAITING if spread else COMPUTING  # in a forward pass, where layers may need the others
        self.world = _World(parallel.world, heart)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._parallel, name)
        if not callable(found):
            return found

        def told(*given: Any, **named: Any) -> Any:
            with self._heart.waiting():
                return found(*given, **named)

        return told

    def share(self, numbers: Any) -> Any:
        self._heart.beat(COMPUTING, self._step())
        return self._parallel.share(numbers)

    def gradients(self, parts: Iterable[Part], count: int, loss: Loss) -> Any:
        computed = 0

        def own() -> Iterator[Part]:
            for part in parts:
                self._heart.beat(self._own)
                yield part
                self._heart.beat(COMPUTING)  # the next part's rows are read

        def told(outputs: Any, targets: Any) -> Any:
            nonlocal computed
            computed += 1
            self._heart.beat(COMPUTING)
            value = loss(outputs, targets)
            if self._own == WAITING or computed == count:
                self._heart.beat(WAITING)  # the last backward pass ends with the sum of the gradients
            return value

        found = self._parallel.gradients(own(), count, told)
        self._heart.beat(COMPUTING)
        return found

    def outputs(self, inputs: tuple[Any, ...]) -> Any:
        self._heart.beat(self._own)
        return self._parallel.outputs(inputs)


def telling(world: World, heart: Heart) -> World:
    """Return the ranks, which tell the launcher before and after each message."""
    return _World(world, heart)


def beating(parallel: Parallel, heart: Heart, step: Callable[[], int], *, spread: bool) -> Parallel:
    """Return how the processes share the work, told to the launcher as they do.

    Args:
        spread: Whether layers are spread over processes, which wait for each other within a forward pass.
    """
    return cast("Parallel", _Beating(parallel, heart, step, spread=spread))
