"""What a promotion decided, and why."""

from __future__ import annotations

import msgspec


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate's verdict. `short_by` is how much was missing, 0 where it passed."""

    gate: str
    against: str  # "baseline", "champion 3", "limit"
    value: float
    needed: float
    passed: bool
    short_by: float


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of asking for a version to go live."""

    model: str
    version: str
    previous: str | None
    promoted: bool
    results: tuple[GateResult, ...]
