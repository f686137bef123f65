"""What is measured of a server over HTTP: what 64 callers get, each asking again when it is answered, and one alone.

Throughput is also told per second of processor, of all of a server's processes: that is what holds where a machine does
other things meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mainspring.serving.load.generator import Load
from report import Case
from starting import processor_s
from turns import best

CONNECTIONS = 64
WARM_UP_S = 1.0
MORE = ("per_second", "per_busy_second")  # of which more is better
# By the name of its column: bare Granian is the floor, the other has cases of its own.
FLOORS = {"floor": "granian", "asyncio and httptools": "httptools"}


@dataclass(frozen=True)
class Measured:
    """Requests a second by 64 callers, the same per second of processor, p99 there, p50 of one caller alone, µs."""

    per_second: float | None = None
    per_busy_second: float | None = None
    p99_us: float | None = None
    alone_us: float | None = None
    note: str = ""


def timed(load: Callable[[int, float], Load], seconds: float) -> Measured:
    """Return what comes of a load by so many callers for so many seconds."""
    load(CONNECTIONS, WARM_UP_S)
    busy = processor_s()
    many = load(CONNECTIONS, seconds)
    busy = processor_s() - busy
    load(1, WARM_UP_S / 2)
    alone = load(1, seconds)
    failed = {status: count for status, count in many.statuses.items() if not 200 <= status < 400}
    return Measured(
        per_second=round(many.per_second) or None,
        per_busy_second=round(many.answered / busy) or None if busy else None,
        p99_us=many.quantile_us(0.99),
        alone_us=alone.quantile_us(0.5),
        note=f"of {many.asked} requests {failed} by status failed" if failed else "",
    )


def cases(what: str, turns: Mapping[str, Sequence[Measured]]) -> list[Case]:
    """Return the cases of what was asked: ours, the floors of `FLOORS`, and peers by name."""
    sides = {name: best(each, MORE) for name, each in turns.items()}
    peers = {name: each for name, each in sides.items() if name not in ("ours", *FLOORS)}
    notes = {name: each.note for name, each in sides.items() if each.note}

    def case(title: str, unit: str, figure: str, floor: str) -> Case:
        others = {name: getattr(each, figure) for name, each in peers.items()} if floor == "floor" else {}
        return Case(
            title, unit, getattr(sides["ours"], figure), getattr(sides[floor], figure), others,
            notes if figure == "per_second" else {}, more_is_better=figure in MORE,
        )  # fmt: skip

    bare, harder = FLOORS
    return [
        case(f"{what}, {CONNECTIONS} connections", "requests/s", "per_second", bare),
        case(f"{what}, per second of processor", "requests", "per_busy_second", bare),
        case(f"{what}, {CONNECTIONS} connections, p99", "µs", "p99_us", bare),
        case(f"{what}, one connection, p50", "µs", "alone_us", bare),
        case(f"{what}, {CONNECTIONS} connections, against bare {harder}", "requests/s", "per_second", harder),
        case(f"{what}, per second of processor, against bare {harder}", "requests", "per_busy_second", harder),
        case(f"{what}, one connection, p50, against bare {harder}", "µs", "alone_us", harder),
    ]
