"""A training that is changed before its first step: it goes on from other weights, or with another network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainspring.training.loop.loop import Loop

Refine = Callable[["Loop"], None]

REFINE: ContextVar[Refine | None] = ContextVar("refine", default=None)


@contextmanager
def refined(refine: Refine) -> Iterator[None]:
    """Within this context, every `fit_torch` calls `refine` with its training before the first step, and keeps no
    checkpoints.
    """
    token = REFINE.set(refine)
    try:
        yield
    finally:
        REFINE.reset(token)
