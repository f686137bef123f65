"""Values of right-sizing: the machines that an endpoint needs."""

from __future__ import annotations

import msgspec


class Bounds(msgspec.Struct, frozen=True):
    """A number between bounds."""

    low: float
    value: float
    high: float


class SizeChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Machines of a kind.

    Attributes:
        processes: Of the gateway on each: a core has one.
        count: Machines, so that the load is served with one of them lost (with `spare` of them), were they all as slow
            as the interval allows.
        hour, month: Price of all; null where it is unknown.
        rate: Requests a second that a machine serves in time.
        p99_ms: At the load, on all of them.
        headroom: Share of the load that all could serve in addition; `headroom_lost` with one of them lost.
        unknown: What was not measured, in words.
    """

    machine: str
    processes: int
    count: int
    currency: str
    hour: float | None
    month: float | None
    rate: Bounds
    p99_ms: Bounds
    headroom: float
    headroom_lost: float
    unknown: list[str]


class SizeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Machines that an endpoint needs, the cheapest first.

    Attributes:
        demand: Requests a second; `of` says from where.
        capacity: Highest load in the load test here, of one process on one core.
        simulated: The same by simulation: predictions rest on the middle of both.
        int8: Requests a second of that process with products of 8 bits, predicted; null where that is unknown, and
            `not_int8` says why.
        assumed: What was not measured, in words.
    """

    endpoint: str
    version: str
    demand: float
    of: str
    deadline_ms: float
    spare: int
    capacity: float
    simulated: float
    tested: str
    operations: int | None
    int8: Bounds | None
    not_int8: str
    choices: list[SizeChoice]
    left_out: list[str]
    assumed: list[str]
    warnings: list[str]
