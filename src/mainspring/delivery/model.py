"""Result of a promotion, and of its gates."""

from __future__ import annotations

import msgspec


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one gate. `short_by` is the missing amount, 0 if the gate passed.

    The three numbers are null if there is nothing to compare; `note` then gives the reason, and the gate has not
    passed. Otherwise a note tells which rows were compared.
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
    """Result of a promotion or a rollback."""

    model: str
    version: str
    previous: str | None
    promoted: bool
    results: tuple[GateResult, ...]
    revision: int = 0  # revision of the published routing table, 0 if none was published
