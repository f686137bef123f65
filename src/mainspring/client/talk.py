"""Sans-I/O conversation of a client with a server: steps that a transport executes.

A talk is a generator. It yields a `Send` or a `Pause`, receives the outcome, and returns the result. So the same talk
runs over a blocking transport and over an event loop.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar


@dataclass(frozen=True, slots=True)
class Send:
    """Step: send this request, and wait up to `timeout_s` for the whole response."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Step: wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Response of the server. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Loss(Enum):
    """Reason why a request got no response."""

    UNSENT = "the server could not be reached"
    LATE = "the server did not respond in time"
    BROKEN = "the connection broke before the response"
    DISTRUSTED = "the server's certificate is not trusted"
    UNKNOWN = "the server requires a client certificate that it trusts"


@dataclass(frozen=True, slots=True)
class Lost:
    """Outcome of a `Send` without a response."""

    loss: Loss
    why: str


Heard = Answer | Lost | None  # outcome of a Send; None after a Pause
T = TypeVar("T")
Talk = Generator[Send | Pause, Heard, T]


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """End of the talk, with its result."""

    result: T


def go_on(talk: Talk[T], heard: Heard = None) -> Send | Pause | Done[T]:
    """Return the next step of a talk, given the outcome of the one before; raises as the talk raises."""
    try:
        return talk.send(heard)
    except StopIteration as end:
        return Done(end.value)
