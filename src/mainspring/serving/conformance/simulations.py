"""Conformance suite of stores of simulations. Derive a test class and give it a fixture `simulations`."""

from __future__ import annotations

from mainspring.serving.ports import Simulations
from mainspring.serving.simulation_report import Candidate, Outcome, SimulationReport


def simulated(endpoint: str, at: int, *policies: tuple[tuple[int, int], float, float]) -> SimulationReport:
    """Return a report of a simulation at an instant.

    Args:
        policies: Executors, p99 (ms) and price of a month of each; by default there is one.
    """
    outcomes = [
        Outcome(
            candidate=Candidate(executors=executors), policy=f"executors {executors}", machine="this machine",
            meets=p99 < 50, goodput=99.0, in_time=0.999, safely=0.998, p50_ms=p99 / 4, p99_ms=p99, refused=1, lost=0,
            machine_hours=1.0, executor_hours=float(executors[1]), busy_hours=0.5, processor_hours=0.6,
            hour=month / 730, month=month, currency="EUR", curve=[executors[0], executors[1]],
        )
        for executors, p99, month in policies or (((1, 2), 20.0, 73.0),)
    ]  # fmt: skip
    return SimulationReport(
        endpoint=endpoint, version="3", load="100/s for 1h", seconds=3600.0, requests=360_000, deadline_ms=50.0,
        simulated_at=at, wanted=0.99, margin=0.2, outcomes=outcomes, best=0 if outcomes[0].meets else None, measured=[],
        assumed=["a core of other machines does 1 times the work of one here"],
    )  # fmt: skip


class SimulationsConformance:
    """An empty store."""

    def test_nothing_is_known_at_first(self, simulations: Simulations) -> None:
        assert simulations.last("a") is None

    def test_the_last_one_of_each_endpoint_is_kept(self, simulations: Simulations) -> None:
        for at in (3, 1):
            simulations.put(simulated("a", at))
            simulations.put(simulated("b", at + 10))
        assert simulations.last("a") == simulated("a", 1)
        assert simulations.last("b") == simulated("b", 11)
