"""What a promotion decided, and why."""

from __future__ import annotations

import msgspec


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate's verdict. `short_by` is how much was missing, 0 where it passed.

    The three numbers are null where there is nothing to compare; `note` then says why, and the gate has not passed.
    Beside numbers, a note says which rows they are of.
    """

    gate: str
    against: str  # "baseline", "champion 3", "limit"
    value: float | None
    needed: float | None
    passed: bool
    short_by: float | None
    note: str = ""

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "not passed"
        if self.value is None or self.needed is None:
            return f"{self.gate} against {self.against}: {verdict}: {self.note}"
        short = f", short by {self.short_by:.4g}" if self.short_by else ""
        rows = f" ({self.note})" if self.note else ""
        return f"{self.gate} against {self.against}: {self.value:.4f}, needs {self.needed:.4f}: {verdict}{short}{rows}"


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of asking for a version to go live, or of taking one back."""

    model: str
    version: str
    previous: str | None
    promoted: bool
    results: tuple[GateResult, ...]
    revision: int = 0  # of the routing table that was published, 0 where none was
