"""Calls of tools that wait for a person."""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.core.time import DAY

Status = Literal["waiting", "approved", "denied", "used"]
STANDS_US = DAY  # from the question: how long it waits, and how long a decision holds
KEPT_US = 30 * DAY
MOST_WAITING = 100  # of a caller and a language model


class HeldCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool that a person decides.

    Attributes:
        model: The language model that asks for it.
        arguments: JSON text, its fields sorted.
        digest: Of tool and arguments.
        caller: Name in records of who asked the language model.
        status: "approved": it may be made once; "used": it was.
        asked_at, decided_at: UTC epoch microseconds.
    """

    id: str
    model: str
    tool: str
    arguments: str
    digest: str
    caller: str
    asked_at: int
    status: Status = "waiting"
    decided_at: int | None = None
    decided_by: str = ""
