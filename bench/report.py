"""What every benchmark prints: a table for people, and as the last line one JSON object for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True)
class Case:
    """One measured case.

    A peer that cannot run here is null, with the reason under its name in `notes`; so is a floor that does not exist.

    Attributes:
        paired: How good ours is against "floor" and peers, by pairs of turns; without it, by the figures.
    """

    case: str
    unit: str
    ours: float | None
    floor: float | None = None
    peers: Mapping[str, float | None] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    more_is_better: bool = False
    paired: Mapping[str, float] = field(default_factory=dict)

    @property
    def vs_floor(self) -> float | None:
        """How good ours is against the floor: 1 is equal, more is better."""
        return self.paired.get("floor") or self._ratio(self.floor)

    @property
    def vs_best_peer(self) -> float | None:
        measured = [(value, name) for name, value in self.peers.items() if value is not None]
        if not measured:
            return None
        value, name = max(measured) if self.more_is_better else min(measured)
        return self.paired.get(name) or self._ratio(value)

    def _ratio(self, other: float | None) -> float | None:
        if self.ours is None or other is None or not self.ours or not other:
            return None
        return round(self.ours / other if self.more_is_better else other / self.ours, 3)

    def document(self) -> dict[str, object]:
        return {
            "case": self.case,
            "unit": self.unit,
            "ours": self.ours,
            "floor": self.floor,
            "peers": dict(self.peers),
            "vs_floor": self.vs_floor,
            "vs_best_peer": self.vs_best_peer,
            "notes": dict(self.notes),
        }


def report(name: str, cases: Sequence[Case], *, table: bool = True) -> None:
    """Print the table, unless it is not wanted, and, as the last line, the JSON object."""
    if table:
        _print_table(name, cases)
    print(json.dumps({"name": name, "results": [case.document() for case in cases]}))


def _print_table(name: str, cases: Sequence[Case]) -> None:
    table = Table(title=name, box=box.SIMPLE_HEAD, title_justify="left")
    peers = list(dict.fromkeys(peer for case in cases for peer in case.peers))
    for heading in ("case", "unit", "ours", "floor", *peers, "vs floor", "vs best peer"):
        table.add_column(heading, justify="left" if heading in ("case", "unit") else "right")
    for case in cases:
        figures = (case.ours, case.floor, *(case.peers.get(peer) for peer in peers), case.vs_floor, case.vs_best_peer)
        table.add_row(escape(case.case), case.unit, *(_figure(figure) for figure in figures))
    console = Console(width=max(100, 24 + 14 * (len(peers) + 6)))
    console.print(table)
    reasons = {f"{who}: {why}" for case in cases for who, why in case.notes.items()}
    for reason in sorted(reasons):
        console.print(f"  {reason}", highlight=False, markup=False)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
