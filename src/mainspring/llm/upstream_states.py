"""Health of upstreams and their queues as they are now, as numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from mainspring.llm.failover import Candidate
from mainspring.llm.queueing import FairQueue

UP, WAITING, IN_FLIGHT = "mainspring_llm_upstream_up", "mainspring_llm_waiting_calls", "mainspring_llm_tokens_in_flight"
_UP = {"closed": 1.0, "half-open": 0.5, "open": 0.0}  # state of the circuit breaker


class UpstreamStates:
    """The upstreams of a process's language models."""

    def __init__(self) -> None:
        self._known: dict[str, Sequence[tuple[Candidate, FairQueue | None]]] = {}

    def take(self, model: str, upstreams: Sequence[tuple[Candidate, FairQueue | None]]) -> None:
        """Replace the upstreams of a language model, each with its queue if it has one."""
        self._known[model] = tuple(upstreams)

    def metrics(self, models: Collection[str]) -> Iterator[Metric]:
        """Yield the families of some language models."""
        labels = ["model", "upstream"]
        up = GaugeMetricFamily(
            UP, "Whether calls go to an upstream: 1, 0.5 while it is probed, 0 while it rests.", labels=labels
        )
        waiting = GaugeMetricFamily(WAITING, "Calls in the fair queue of an upstream.", labels=labels)
        in_flight = GaugeMetricFamily(IN_FLIGHT, "Tokens of calls under way at an upstream.", labels=labels)
        for model in sorted({*models} & self._known.keys()):
            for candidate, queue in self._known[model]:
                of = [model, candidate.name]
                up.add_metric(of, _UP[candidate.breaker.state])
                if queue is not None:
                    waiting.add_metric(of, queue.waiting)
                    in_flight.add_metric(of, queue.in_flight)
        if up.samples:
            yield from (each for each in (up, waiting, in_flight) if each.samples)
