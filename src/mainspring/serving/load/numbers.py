"""Counts that gateway processes keep of one endpoint, read back from Prometheus' text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

_Key = TypeVar("_Key", str, float)


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram. `buckets`: upper bound -> how many are at most that."""

    total: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict)

    @property
    def count(self) -> float:
        return max(self.buckets.values(), default=0.0)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return a quantile, interpolated within its bucket as Prometheus does; of the last, the bound below it."""
        wanted, below, low = share * self.count, 0.0, 0.0
        if not self.count:
            return None
        for bound, upto in sorted(self.buckets.items()):
            if upto >= wanted and upto > below:
                return low if bound == float("inf") else low + (bound - low) * (wanted - below) / (upto - below)
            below, low = upto, bound
        return low

    def since(self, before: Distribution) -> Distribution:
        grown = {bound: upto - before.buckets.get(bound, 0.0) for bound, upto in self.buckets.items()}
        return Distribution(self.total - before.total, grown)


@dataclass(frozen=True, slots=True)
class EndpointNumbers:
    """Counts since the processes started, over all of them. Times in seconds."""

    requests: Mapping[str, float]  # by HTTP status
    rejections: Mapping[str, float]  # by cause
    stages: Mapping[str, Distribution]
    batch_rows: Distribution

    @property
    def asked(self) -> float:
        return sum(self.requests.values())

    def since(self, before: EndpointNumbers) -> EndpointNumbers:
        """Return what was counted after `before`."""
        return EndpointNumbers(
            {status: count - before.requests.get(status, 0.0) for status, count in self.requests.items()},
            {cause: count - before.rejections.get(cause, 0.0) for cause, count in self.rejections.items()},
            {stage: each.since(before.stages.get(stage, Distribution())) for stage, each in self.stages.items()},
            self.batch_rows.since(before.batch_rows),
        )


def read_numbers(text: str, endpoint: str) -> EndpointNumbers:
    """Return an endpoint's numbers from a scrape, added up over whatever else labels them: processes, versions."""
    requests: dict[str, float] = {}
    rejections: dict[str, float] = {}
    totals: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("endpoint") != endpoint or (not sample.value and not labels.get("le")):
                continue
            if sample.name == "mainspring_requests_total":
                _add(requests, labels["status"], sample.value)
            elif sample.name == "mainspring_rejections_total":
                _add(rejections, labels["cause"], sample.value)
            elif family.name in ("mainspring_stage_seconds", "mainspring_batch_rows"):
                name = labels.get("stage", "")
                if sample.name.endswith("_sum"):
                    _add(totals, name, sample.value)
                elif sample.name.endswith("_bucket"):
                    _add(buckets.setdefault(name, {}), float(labels["le"]), sample.value)
    found = {name: Distribution(totals.get(name, 0.0), each) for name, each in buckets.items()}
    batch_rows = found.pop("", Distribution())
    return EndpointNumbers(requests, rejections, found, batch_rows)


def _add(counts: dict[_Key, float], key: _Key, value: float) -> None:
    counts[key] = counts.get(key, 0.0) + value
