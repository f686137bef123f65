"""Numbers of answers and of searches for Prometheus. Labels are chains and collections, which are declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from mainspring.core.time import SECOND
from mainspring.serving.plane.metrics import Histogram

_ANSWER_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_SEARCH_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class AnswerMetrics:
    """Numbers of one gateway process."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, str]] = Counter()
        self._searches: Counter[tuple[str, str]] = Counter()
        self._answer_s: dict[str, Histogram] = {}
        self._search_s: dict[str, Histogram] = {}

    def answered(self, answers: str, outcome: str, took_us: int) -> None:
        """Count an answer of a chain: "found", why nothing was, "failed", or "left" by its caller."""
        self._answers[answers, outcome] += 1
        self._answer_s.setdefault(answers, Histogram(_ANSWER_S)).observe(took_us / SECOND)

    def searched(self, collection: str, outcome: str, took_us: int) -> None:
        """Count a search: "answered", "failed" or "left"."""
        self._searches[collection, outcome] += 1
        self._search_s.setdefault(collection, Histogram(_SEARCH_S)).observe(took_us / SECOND)

    def metrics(self) -> Iterator[Metric]:
        """Yield the families for Prometheus."""
        for name, label, says, counted, times in (
            ("answers", "answers", "Answers of chains", self._answers, self._answer_s),
            ("searches", "collection", "Searches in collections", self._searches, self._search_s),
        ):
            if not counted:
                continue
            total = CounterMetricFamily(f"mainspring_{name}", f"{says}, by outcome.", labels=[label, "outcome"])
            for of, number in counted.items():
                total.add_metric([*of], float(number))
            yield total
            took = HistogramMetricFamily(f"mainspring_{name}_seconds", f"{says}: their time.", labels=[label])
            for each, histogram in times.items():
                took.add_metric([each], *histogram.cumulative())
            yield took
