"""Reports of simulations."""

from __future__ import annotations

import msgspec

from mainspring.operations.simulation.measuring import Part


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on machines of a kind.

    Attributes:
        executors: Least and most of a replica.
        replicas: Least and most; by their utilisation, if they differ.
        target: Utilisation that is aimed at.
        machine: `PROVIDER/REGION/INSTANCE`; empty for this machine.
    """

    executors: tuple[int, int]
    replicas: tuple[int, int] = (1, 1)
    target: float = 0.6
    machine: str = ""

    @property
    def said(self) -> str:
        """The policy in words."""
        count = span(self.executors)
        replicas = span(self.replicas) + (f" at {self.target:.0%}" if self.replicas[0] < self.replicas[1] else "")
        return f"executors {count}" + (f", replicas {replicas}" if self.replicas != (1, 1) else "")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a candidate.

    Attributes:
        meets: Whether it answers the asked share of requests in time.
        goodput: Requests a second that are answered in time; `in_time`: their share.
        machine_hours: Of all replicas; `executor_hours`: of loaded executors.
        hour, month: Price at this load; `None` if it is unknown.
        curve: Executors over time, at up to 60 points of equal distance: the most in each.
    """

    candidate: Candidate
    policy: str
    machine: str
    meets: bool
    goodput: float
    in_time: float
    p50_ms: float | None
    p99_ms: float | None
    refused: int
    lost: int
    machine_hours: float
    executor_hours: float
    busy_hours: float
    hour: float | None
    month: float | None
    currency: str
    curve: list[int]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A simulation beside a run of the same requests against a real gateway on this machine.

    Attributes:
        errors: By how much the prediction is off, as a share of what was measured.
    """

    seconds: float
    predicted: dict[str, float]
    measured: dict[str, float]
    errors: dict[str, float]


class SimulationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes, the cheapest that meets the objective first.

    Attributes:
        wanted: Share of requests that has to be answered in time.
        best: Index of the chosen one in `outcomes`; `None` if none meets the objective.
        measured: Numbers of the endpoint and its gateway that were measured first.
        assumed: Numbers that were not measured, in words.
    """

    endpoint: str
    version: str
    load: str
    seconds: float
    requests: int
    deadline_ms: float
    wanted: float
    outcomes: list[Outcome]
    best: int | None
    measured: list[Part]
    assumed: list[str]
    check: Checked | None = None


def span(pair: tuple[int, int]) -> str:
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"
