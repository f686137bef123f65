"""A look at a training instead of the training itself: at its module, rows and settings, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainspring.training.loop.loop import Loop

Look = Callable[["Loop"], None]


class Looked(BaseException):
    """A training was looked at, and does not go on. No `Exception`, so that a training function does not handle it."""


LOOK: ContextVar[Look | None] = ContextVar("look", default=None)


@contextmanager
def instead_of_training(look: Look) -> Iterator[None]:
    """Within this context, the first `fit_torch` calls `look` with its training and ends the context."""
    token = LOOK.set(look)
    try:
        yield
    except Looked:
        pass
    finally:
        LOOK.reset(token)
