"""Conformance suite of stores of baselines. Derive a test class and give it a fixture `baselines`."""

from __future__ import annotations

from mainspring.serving.model import Baseline, Point
from mainspring.serving.ports import Baselines


def measured(endpoint: str, at: int) -> Baseline:
    """Return a measurement of an endpoint, made at an instant."""
    tried = Point(offered=100.0, answered=99.5, in_time=0.995, refused=0.0, p50_us=800.0, p99_us=2100.5)
    return Baseline(
        endpoint=endpoint,
        model="late-arrival",
        version="3",
        digest="ab" * 32,
        measured_at=at,
        asked_by="keys",
        rows=1,
        deadline_us=50_000,
        workers=1,
        capacity=100.0,
        alone_p50_us=420.0,
        alone_p99_us=900.0,
        points=(tried,),
        stages_us={"queue": 12.0},
        batch_rows=1.5,
        machine="two cores",
    )


class BaselinesConformance:
    """An empty store."""

    def test_nothing_is_known_at_first(self, baselines: Baselines) -> None:
        assert list(baselines.newest("a")) == []

    def test_what_is_kept_comes_back_whole(self, baselines: Baselines) -> None:
        baselines.add(measured("a", 1_700_000_000_000_000))
        assert list(baselines.newest("a")) == [measured("a", 1_700_000_000_000_000)]

    def test_the_newest_come_first_and_are_the_endpoints_own(self, baselines: Baselines) -> None:
        for at in (3, 1, 2):
            baselines.add(measured("a", at))
            baselines.add(measured("b", at + 10))
        assert [each.measured_at for each in baselines.newest("a", 2)] == [3, 2]
        assert [each.endpoint for each in baselines.newest("b", 9)] == ["b", "b", "b"]
