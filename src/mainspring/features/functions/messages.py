"""Messages between a process that needs a feature function and the child that runs it."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.features.functions.model import FeatureFunction


class Load(msgspec.Struct, frozen=True, array_like=True):
    function: FeatureFunction


class Loaded(msgspec.Struct, frozen=True, array_like=True):
    error: str = ""


class Call(msgspec.Struct, frozen=True, array_like=True):
    """Rows, as lists by column or as an Arrow stream; instants in lists are UTC epoch microseconds."""

    rows: int
    lists: dict[str, list[Any]] | None = None
    stream: bytes | None = None


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Outputs in the form of the call, null where the function failed.

    Attributes:
        failures: Row -> why the function failed for it.
        seconds: Duration of the function.
        error: Why there are no outputs.
    """

    lists: dict[str, list[Any]] | None = None
    stream: bytes | None = None
    failures: dict[int, str] = {}
    seconds: float = 0.0
    error: str = ""
