"""Reports of simulations."""

from __future__ import annotations

import msgspec

ON_DEMAND, SPOT = "on_demand", "spot"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A number that a simulation goes by.

    Attributes:
        how: How it was measured.
    """

    name: str
    value: float
    unit: str
    how: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A policy on machines of a kind.

    Attributes:
        executors: Least and most of a replica.
        replicas: Least and most; by their utilisation, if they differ.
        target: Utilisation that is aimed at.
        machine: `PROVIDER/REGION/INSTANCE`; empty for this machine.
        purchase: "on_demand"; "spot": it is interrupted; or a commitment, "one_year" or "three_years".
    """

    executors: tuple[int, int]
    replicas: tuple[int, int] = (1, 1)
    target: float = 0.6
    machine: str = ""
    purchase: str = ON_DEMAND

    @property
    def said(self) -> str:
        """The policy in words."""
        count = span(self.executors)
        replicas = span(self.replicas) + (f" at {self.target:.0%}" if self.replicas[0] < self.replicas[1] else "")
        return f"executors {count}" + (f", replicas {replicas}" if self.replicas != (1, 1) else "")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a candidate.

    Attributes:
        meets: Whether it answers the wanted share of requests within the deadline less the margin.
        safely: Share of requests answered within that.
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
    safely: float
    p50_ms: float | None
    p99_ms: float | None
    refused: int
    lost: int
    machine_hours: float
    executor_hours: float
    busy_hours: float
    processor_hours: float
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


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Change of a definition.

    Attributes:
        file: Within the project; `line`: of the definition.
        diff: Unified; empty if the definition says so already.
        written: Whether the file was changed.
    """

    file: str
    line: int
    diff: str
    written: bool = False


class SimulationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes, the cheapest that meets the objective first.

    Attributes:
        simulated_at: UTC epoch microseconds.
        wanted: Share of requests that has to be answered in time.
        margin: Share of the deadline that is kept free for what the prediction may be off.
        best: Index of the chosen one in `outcomes`; `None` if none meets the objective.
        measured: Numbers of the endpoint and its gateway that were measured first.
        assumed: Numbers that were not measured, in words.
        change: Of the endpoint's definition, for the chosen policy; `None` if none was asked for.
    """

    endpoint: str
    version: str
    load: str
    seconds: float
    requests: int
    deadline_ms: float
    simulated_at: int
    wanted: float
    margin: float
    outcomes: list[Outcome]
    best: int | None
    measured: list[Part]
    assumed: list[str]
    check: Checked | None = None
    change: Change | None = None

    def changing(self, change: Change | None) -> SimulationReport:
        """Return the report with a change of the definition."""
        return msgspec.structs.replace(self, change=change)


def span(pair: tuple[int, int]) -> str:
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"
