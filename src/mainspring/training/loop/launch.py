"""Of a launched training: what its launcher gives to each call of `fit_torch` that does not say otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import Heart


@dataclass(frozen=True, slots=True)
class Launch:
    """How the processes share the work, the folder of checkpoints, the heart of this rank, and the restarts so far."""

    distributed: Distributed
    checkpoints: Path | str
    heart: Heart
    attempt: int = 0


_current: ContextVar[Launch | None] = ContextVar("mainspring_launch", default=None)


def current() -> Launch | None:
    """Return the launch that this process is part of."""
    return _current.get()


@contextmanager
def launching(launch: Launch) -> Iterator[None]:
    """Be part of a launch inside the block."""
    before = _current.set(launch)
    try:
        yield
    finally:
        _current.reset(before)
