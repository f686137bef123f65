"""Result of a promotion, and of its gates."""

from __future__ import annotations

import msgspec

from mainspring.training.gate_kinds import Gate

ROUNDING = 1e-12  # of sums computed in different orders


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one gate. `short_by` is the missing amount, 0 if the gate passed.

    The three numbers are null if there is nothing to compare; `note` then gives the reason, and the gate has not
    passed. Otherwise a note tells which rows were compared. `short_by` is also null if the measured value would pass,
    but some slices have insufficient data.
    """

    gate: str
    against: str  # "baseline", "champion 3", "limit"
    value: float | None
    needed: float | None
    passed: bool
    short_by: float | None
    note: str = ""
    interval: tuple[float, float] | None = None  # of the value; for a difference, as if the other side were exact
    sure: float | None = None  # probability with which each end of the interval holds
    slice: str = ""  # the worst slice, whose value this is: "carrier=AA"
    rows: int | None = None  # held-out rows behind the value, if they were scored for the gate
    waived: str = ""  # who lets the version go live although the gate did not pass, until when and why

    @property
    def allows(self) -> bool:
        """True if the gate does not hold the version back: it passed, or it is waived."""
        return self.passed or bool(self.waived)

    def __str__(self) -> str:
        verdict = "passed" if self.passed else f"not passed, waived by {self.waived}" if self.waived else "not passed"
        against = f"{self.gate} against {self.against}{f' on {self.slice}' if self.slice else ''}"
        if self.value is None or self.needed is None:
            return f"{against}: {verdict}: {self.note}"
        around = "" if self.interval is None else f" ({self.interval[0]:.4f} to {self.interval[1]:.4f})"
        short = f", short by {self.short_by:.4g}" if self.short_by else ""
        rows = f" ({self.note})" if self.note else ""
        return f"{against}: {self.value:.4f}{around}, needs {self.needed:.4f}: {verdict}{short}{rows}"


def nothing(gate: Gate, against: str, note: str, fix: str | None = None) -> GateResult:
    """Return the result of a gate that has nothing to compare."""
    note = f"{note} Fix: {fix}" if fix else note
    return GateResult(gate=str(gate), against=against, value=None, needed=None, passed=False, short_by=None, note=note)


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a promotion or a rollback."""

    model: str
    version: str
    previous: str | None
    promoted: bool
    results: tuple[GateResult, ...]
    revision: int = 0  # revision of the published routing table, 0 if none was published


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of a version's gates for a promotion, and whether it went live."""

    model: str
    version: str
    champion: str | None  # the version that was champion then
    promoted: bool
    results: tuple[GateResult, ...]
    actor: str
    at: int  # UTC epoch microseconds
