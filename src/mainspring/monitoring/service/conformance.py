"""Conformance suite of `ServiceStore`. Derive a test class and provide the fixture `service`."""

from __future__ import annotations

from mainspring.core.time import HOUR, MINUTE
from mainspring.monitoring.service.ports import ServiceStore
from mainspring.monitoring.service.readings import Reading, State
from mainspring.monitoring.service.samples import Sample


def _sample(subject: str, start: int, end: int, **counts: float) -> Sample:
    return Sample(subject=subject, start=start, end=end, observed_us=end - start, counts=counts, peaks={"rows": 3.0})


class ServiceStoreConformance:
    def test_an_unknown_place_has_no_state_and_no_samples(self, service: ServiceStore) -> None:
        assert service.state("here") is None
        assert service.samples(0, 10**18) == []

    def test_state_and_samples_come_back_as_they_were(self, service: ServiceStore) -> None:
        state = State(20, {0: Reading(5, {"flights": {"requests 200": 3.0}}, {"flights": {"waiting_rows": 1.0}})})
        samples = [_sample("flights", 10, 20, a=1.5), _sample("view Recent", 10, 20, b=2.0)]
        service.save("here", samples, state)
        assert service.state("here") == state
        assert service.samples(0, 100) == samples
        service.save("here", [], State(30))
        assert service.state("here") == State(30)
        assert service.state("there") is None

    def test_samples_overlap_the_time_and_come_oldest_first_of_all_places(self, service: ServiceStore) -> None:
        service.save("here", [_sample("a", 10, 20), _sample("a", 20, 30)], State(30))
        service.save("there", [_sample("a", 5, 15)], State(15))
        assert [sample.start for sample in service.samples(0, 100)] == [5, 10, 20]
        assert [sample.start for sample in service.samples(15, 20)] == [10]
        assert [sample.start for sample in service.samples(14, 21)] == [5, 10, 20]

    def test_samples_are_of_the_asked_subjects(self, service: ServiceStore) -> None:
        service.save("here", [_sample(name, 10, 20) for name in ("a", "b", "view a")], State(30))
        assert [sample.subject for sample in service.samples(0, 100, {"a", "view a"})] == ["a", "view a"]
        assert service.samples(0, 100, ()) == []

    def test_the_same_interval_adds_to_the_earlier_one(self, service: ServiceStore) -> None:
        """Such as after the clock went back: no count may be lost."""
        for count in (1.0, 2.0):
            service.save("here", [_sample("a", 10, 20, rows=count), _sample("b", 10, 20)], State(20))
        first, _ = service.samples(0, 100)
        assert first.counts == {"rows": 3.0}

    def test_compaction_merges_by_hour_and_keeps_every_count(self, service: ServiceStore) -> None:
        minutes = [_sample("a", start, start + MINUTE, rows=1.0) for start in range(0, 4 * HOUR, MINUTE)]
        service.save("here", minutes, State(1))
        service.save("there", minutes[:2], State(1))
        for _ in range(2):  # the second time there is nothing left to do
            service.compact(merge_before=2 * HOUR + MINUTE, delete_before=0)
            found = service.samples(0, 10 * HOUR)
            assert [sample.counts["rows"] for sample in found if sample.end - sample.start > MINUTE] == [2, 60, 60]
            assert sum(sample.counts["rows"] for sample in found) == 242
            assert sum(sample.observed_us for sample in found) == 242 * MINUTE
            assert len(found) == 3 + 120

    def test_compaction_deletes_what_is_older(self, service: ServiceStore) -> None:
        service.save("here", [_sample("a", 10, 20), _sample("a", 20, 30), _sample("b", 5, 20)], State(30))
        service.compact(merge_before=0, delete_before=20)
        assert [(sample.subject, sample.start) for sample in service.samples(0, 100)] == [("a", 20)]
        assert service.state("here") == State(30)
