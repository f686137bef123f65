"""Number of machines of each kind that a load needs, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from mainspring.serving.sizing.roofline import Interval

MOST = 1_000  # machines


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of machine.

    Attributes:
        processes: Of the gateway: one a core.
        rate: Requests a second that all of them serve in time.
        hour: Price; `None` where it is unknown.
    """

    name: str
    processes: int
    rate: Interval
    hour: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Machines of a kind, which serve the load even while `spare` of them are lost and all are as slow as may be."""

    kind: Kind
    count: int

    @property
    def hour(self) -> float | None:
        return None if self.kind.hour is None else self.kind.hour * self.count

    def headroom(self, demand: float, lost: int = 0) -> Interval:
        """Share of the load that could come in addition while some are lost; below 0 it is missing."""
        left = (self.count - lost) / demand
        return Interval(left * self.kind.rate.low - 1, left * self.kind.rate.value - 1, left * self.kind.rate.high - 1)


def choose(kinds: Iterable[Kind], demand: float, *, spare: int = 1) -> list[Choice]:
    """Return the least number of machines of each kind that serves a load, the cheapest first.

    Kinds without a price follow, the fewest processes first; kinds of which 1,000 do not do are left out.

    Args:
        demand: Requests a second.
        spare: Machines that may be lost.
    """
    found = []
    for kind in kinds:
        if kind.rate.low * MOST >= demand:
            count = max(1, ceil(demand / kind.rate.low - 1e-9)) + spare
            if count <= MOST:
                found.append(Choice(kind, count))
    return sorted(found, key=_order)


def _order(choice: Choice) -> tuple[bool, float, int, str]:
    size = choice.count * choice.kind.processes
    return choice.hour is None, choice.hour or 0.0, size, choice.kind.name
