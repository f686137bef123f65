"""Conformance suite of `IncidentStore`. Derive a test class; provide the fixtures `store`, and `elsewhere` for another
lake in the same catalog.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from mainspring.core.errors import Conflict
from mainspring.core.time import DAY
from mainspring.monitoring.incidents.model import FAILED, SENT, Cause, Incident, Outgoing, Part, Symptom
from mainspring.monitoring.incidents.ports import IncidentStore


def _incident(id: str, key: str = "source:weather", at: int = 1_000, endpoints: tuple[str, ...] = ("a",)) -> Incident:
    symptom = Symptom(
        channel="contract", endpoint="a", statistic="nulls", column="Weather.wind", first=at - 10, last=at,
        severity=2.5, value=1.0, expected=0.01, page=True, detail='All are null: "wind" \u0000',
    )  # fmt: skip
    return Incident(
        id=id, cause=Cause(kind="source", name="weather", key=key), endpoints=endpoints, channels=("contract",),
        symptoms=(symptom,), severity=2.5, page=True, opened_at=at, updated_at=at,
    )  # fmt: skip


def _closed(incident: Incident, through: int) -> Incident:
    return msgspec.structs.replace(incident, closed_at=through, closed_through=through)


def _message(id: str, incident: str = "i1", *, target: str = "ops", at: int = 5) -> Outgoing:
    return Outgoing(
        id=id, target=target, incident=incident, event="opened", level="page", made_at=at, due_at=at
    )  # fmt: skip


class IncidentStoreConformance:
    def test_an_incident_comes_back_as_it_was_with_its_revision(self, store: IncidentStore) -> None:
        [made] = store.save([_incident("i1")])
        assert made == msgspec.structs.replace(_incident("i1"), revision=1)
        assert store.get(["i2", "i1"]) == [None, made]

    def test_only_the_next_revision_is_stored(self, store: IncidentStore) -> None:
        [made] = store.save([_incident("i1")])
        [owned] = store.save([msgspec.structs.replace(made, owner="ana")])
        assert (owned.revision, store.get(["i1"])) == (2, [owned])
        with pytest.raises(Conflict):
            store.save([msgspec.structs.replace(made, owner="bob")])
        assert store.get(["i1"]) == [owned]

    def test_a_cause_has_one_open_incident(self, store: IncidentStore) -> None:
        [first] = store.save([_incident("i1")])
        with pytest.raises(Conflict):
            store.save([_incident("i2")], [_message("m")])
        assert (store.get(["i2"]), store.outgoing()) == ([None], [])
        store.save([_closed(first, 2_000)])
        store.save([_incident("i2", at=3_000)])
        assert [each.id for each in store.open()] == ["i2"]

    def test_a_conflict_of_one_stores_none(self, store: IncidentStore) -> None:
        [first] = store.save([_incident("i1")])
        store.save([first])
        with pytest.raises(Conflict):
            store.save([_incident("i2", "view:Traffic"), first], [_message("m")])
        assert (store.get(["i2"]), store.outgoing()) == ([None], [])

    def test_a_cause_passes_from_one_that_ends_to_another(self, store: IncidentStore) -> None:
        first, second = store.save([_incident("i1"), _incident("i2", "view:Weather")])
        wider = msgspec.structs.replace(second, cause=first.cause)
        store.save([wider, _closed(first, 2_000)])
        assert [(each.id, each.cause.key) for each in store.open()] == [("i2", "source:weather")]

    def test_workers_that_open_the_same_incident_at_once_open_one(self, store: IncidentStore) -> None:
        def opened(number: int) -> bool:
            try:
                store.save([_incident(f"i{number}")], [_message(f"m{number}", f"i{number}")])
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(opened, range(4))) == [False, False, False, True]
        [there] = store.open()
        assert [each.incident for each in store.outgoing()] == [there.id]

    def test_incidents_are_found_newest_first_by_endpoint_and_page(self, store: IncidentStore) -> None:
        given = [_incident(f"i{n}", f"column:{n}", n, ("a", "b") if n % 2 else ("b",)) for n in range(5)]
        store.save(given)
        assert [each.id for each in store.find()] == ["i4", "i3", "i2", "i1", "i0"]
        assert [each.id for each in store.find(endpoint="a")] == ["i3", "i1"]
        assert [each.id for each in store.find(before=(3, "i3"), limit=2)] == ["i2", "i1"]
        assert [each.id for each in store.open()] == ["i4", "i3", "i2", "i1", "i0"]

    def test_an_endpoint_that_joins_finds_its_incident(self, store: IncidentStore) -> None:
        [made] = store.save([_incident("i1")])
        store.save([msgspec.structs.replace(made, endpoints=("a", "b"))])
        assert [[each.id for each in store.find(endpoint=name)] for name in ("a", "b", "c")] == [["i1"], ["i1"], []]

    def test_closed_ones_are_found_by_the_end_of_their_evidence(self, store: IncidentStore) -> None:
        made = store.save([_incident("i1"), _incident("i2", "view:Traffic"), _incident("i3", "column:x")])
        store.save([_closed(made[0], 2_000), _closed(made[1], 3_000)])
        assert [each.id for each in store.closed(2_001)] == ["i2"]
        assert [each.id for each in store.closed(0)] == ["i2", "i1"]

    def test_another_lake_has_its_own(self, store: IncidentStore, elsewhere: IncidentStore) -> None:
        store.save([_incident("i1")], [_message("m1")])
        elsewhere.save([_incident("i2")])
        store.record([Part(endpoint="a", part="windows", ran_at=1)])
        assert [[each.id for each in of.open()] for of in (store, elsewhere)] == [["i1"], ["i2"]]
        assert (elsewhere.outgoing(), elsewhere.parts(), elsewhere.claim("ops", 9, 10, 1)) == ([], [], [])

    def test_a_message_is_claimed_once_until_it_is_due_again(self, store: IncidentStore) -> None:
        store.save([_incident("i1")], [_message("m1"), _message("m2", at=6), _message("other", target="mail")])
        [first] = store.claim("ops", 5, 100, 10)
        assert (first.id, first.attempts, first.due_at) == ("m1", 1, 100)
        assert [each.id for each in store.claim("ops", 99, 200, 10)] == ["m2"]
        [again] = store.claim("ops", 100, 300, 10)
        assert (again.id, again.attempts) == ("m1", 2)

    def test_a_settled_message_is_not_claimed_again(self, store: IncidentStore) -> None:
        store.save([_incident("i1")], [_message("m1"), _message("m2", at=6)])
        first, second = store.claim("ops", 6, 7, 10)
        sent = msgspec.structs.replace(first, state=SENT, sent_at=6, sent_as="d")
        failed = msgspec.structs.replace(second, state=FAILED, error="refused")
        store.settle([sent, failed])
        assert store.claim("ops", 1_000, 2_000, 10) == []
        assert store.outgoing() == [failed, sent]
        assert store.outgoing(states=[FAILED]) == [failed]
        assert (store.outgoing(incidents=["i2"]), store.outgoing(since=6)) == ([], [failed])

    def test_a_clock_that_went_back_delays_no_message(self, store: IncidentStore) -> None:
        store.save([_incident("i1")], [_message("m1", at=10 * DAY)])
        assert [each.id for each in store.claim("ops", DAY, DAY + 100, 10)] == ["m1"]
        assert store.claim("ops", DAY, DAY + 100, 10) == []

    def test_the_oldest_messages_are_claimed_first(self, store: IncidentStore) -> None:
        store.save([_incident("i1")], [_message(f"m{n}", at=9 - n) for n in range(4)])
        assert [each.id for each in store.claim("ops", 50, 60, 2)] == ["m3", "m2"]

    def test_parts_come_back_as_they_ran_last(self, store: IncidentStore) -> None:
        ran = Part(endpoint="a", part="windows", ran_at=1, since=1)
        failed = Part(endpoint="a", part="drift", ran_at=2, error="Damaged.")
        store.record([ran, failed])
        again = msgspec.structs.replace(ran, ran_at=3)
        store.record([again])
        store.record([])
        assert store.parts() == [failed, again]
