"""Conformance suite of prediction logs and stores. Derive a test class and give it a fixture `ledger`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from mainspring.core.errors import NotFound
from mainspring.ledger.key_sample import key_hash
from mainspring.ledger.model import (
    REQUESTED,
    SAMPLED,
    Asked,
    Assigned,
    Batch,
    Failure,
    Heading,
    KeptExplanation,
    Log,
    Prediction,
    Selection,
)
from mainspring.ledger.ports import Arrivals, PredictionLog, PredictionStore
from mainspring.ledger.recording import Recorder

HEADING = Heading(
    "late",
    "late-arrival",
    "3",
    "d" * 64,
    keys=("carrier",),
    request=("distance",),
    features=("Traffic.departures_1h", "Weather.wind"),
    statuses=("Weather.wind",),
    outputs=("probability", "classes"),
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Both sides of one ledger. `reopen` closes the log and opens another over the same place."""

    log: PredictionLog
    store: PredictionStore
    reopen: Callable[[], PredictionLog]


def prediction(number: int, *, endpoint: str = "late", at: int | None = None) -> Prediction:
    """Return a prediction with this number."""
    return Prediction(
        id=f"p{number}",
        endpoint=endpoint,
        model="late-arrival",
        version="3",
        digest="d" * 64,
        at=1_000 * number if at is None else at,
        keys={"carrier": "ÅA", "flight": number},
        request={"distance": None, "express": True},
        features={"Traffic.departures_1h": number, "Weather.wind": 0.1, "Weather.gust": None},
        statuses={"Weather.wind": "PRESENT", "Weather.gust": "MISSING"},
        outputs={"probability": number / 1024},
        latency_us=700,
        principal="key-1",
    )


def batch(first: int, *requests: int) -> Batch:
    """Return a batch of requests with these numbers of rows; its predictions are numbered from `first`."""
    numbers = range(first, first + sum(requests))
    ids = [f"p{number}" for number in numbers]
    asked = [Asked(f"key-{place}", 700, rows, f"request-{place}") for place, rows in enumerate(requests)]
    columns: list[list[Any]] = [
        ["ÅA"] * len(ids),
        [None] * len(ids),
        list(numbers),
        [0.1] * len(ids),
        ["PRESENT"] * len(ids),
        [number / 1024 for number in numbers],
        [[0.25, 0.75]] * len(ids),
    ]
    return Batch(HEADING, 1_000 * first, 1.0, ids, asked, columns)


def observed(number: int, **changes: Any) -> Prediction:
    """Return a prediction of the rollout `r1`, told from others by its number."""
    given = {"rollout": "r1", "weight": 0.25, "unit": 2**62 + number, **changes}
    return msgspec.structs.replace(prediction(number), **given)


def failure(number: int, **changes: Any) -> Failure:
    """Return a failure of the rollout `r1`, told from others by its number."""
    given = {
        "id": f"f{number}",
        "endpoint": "late",
        "model": "late-arrival",
        "version": "4",
        "digest": "e" * 64,
        "at": 1_000 * number,
        "kind": "ModelFailed",
        "status": 500,
        "latency_us": 900,
        "rollout": "r1",
        "weight": 0.75,
        "unit": number,
        "principal": "key-1",
        "request_id": f"request-{number}",
        **changes,
    }
    return Failure(**given)


def explanation(number: int, origin: str = SAMPLED, **changes: Any) -> KeptExplanation:
    """Return an explanation of `prediction(number)`."""
    made = prediction(number)
    same = {name: getattr(made, name) for name in ("id", "endpoint", "model", "version", "digest", "at")}
    told = {"origin": origin, "method": "linear", "space": "answer", "exact": True, "residual": number / 3}
    return KeptExplanation(**{**same, **told, "document": f'{{"number": {number}, "ä": 1}}', **changes})


def recorder(log: PredictionLog, policy: Log | None = None) -> Recorder:
    """Return the recorder of a version whose features include e-mail address and age of a caller."""
    return Recorder(
        log,
        endpoint="late",
        model="late-arrival",
        version="3",
        digest="d" * 64,
        keys=("carrier", "email"),
        personal=("email", "town", "Person.age"),
        policy=policy,
    )


def record_persons(by: Recorder, *numbers: int, request_id: str = "") -> list[Future[None]]:
    """Record one request with one row per number, by key."""
    rows = len(numbers)
    return by.record(
        at=1_000 * numbers[0],
        ids=[f"p{number}" for number in numbers],
        asked=[Asked("key-1", 700, rows, request_id)],
        sent={
            "email": [f"{number}@example.org" for number in numbers],
            "carrier": ["AA"] * rows,
            "distance": [1.5] * rows,
            "town": ["Nîmes"] * rows,
        },
        features={"Person.age": [40 + number for number in numbers], "Weather.wind": [0.5] * rows},
        statuses={"Person.age": ["PRESENT"] * rows},
        outputs={"probability": [0.5] * rows},
    )


def documents(table: pa.Table, column: str) -> list[dict[str, Any]]:
    """Return a column of JSON documents, decoded."""
    return [msgspec.json.decode(str(text)) for text in table[column].to_pylist()]


def settled(ledger: Ledger) -> None:
    """Wait until everything added so far can be read."""
    ledger.log.append([prediction(999_999, endpoint="settled", at=0)])


def _ids(found: Arrivals | None) -> list[str]:
    assert found is not None
    return sorted(str(each) for batch in found.batches for each in batch["id"].to_pylist())


def _observations(store: PredictionStore, after: str = "", **options: Any) -> tuple[str, list[dict[str, Any]]]:
    found = store.observations("r1", after, **options)
    assert found is not None
    rows = [row for batch in found.batches for row in batch.to_pylist()]
    return found.position, sorted(rows, key=lambda row: str(row["id"]))


class LedgerConformance:
    """One log and the store over it."""

    def test_a_batch_is_its_predictions(self, ledger: Ledger) -> None:
        assert ledger.log.add(batch(1, 1, 2)) is None
        settled(ledger)
        expected = Prediction(
            id="p3",
            endpoint="late",
            model="late-arrival",
            version="3",
            digest="d" * 64,
            at=1_000,
            keys={"carrier": "ÅA"},
            request={"distance": None},
            features={"Traffic.departures_1h": 3, "Weather.wind": 0.1},
            statuses={"Weather.wind": "PRESENT"},
            outputs={"probability": 3 / 1024, "classes": [0.25, 0.75]},
            latency_us=700,
            principal="key-1",
            request_id="request-1",
        )
        assert ledger.store.find("p3") == expected
        ledger.store.compact()
        assert ledger.store.find("p3") == expected
        assert ledger.store.find("p1").principal == "key-0"

    def test_batches_of_several_versions_keep_their_names(self, ledger: Ledger) -> None:
        ledger.log.add(batch(1, 1))
        other = batch(2, 1)
        other.heading = msgspec.structs.replace(HEADING, version="4", request=("weight",))
        ledger.log.add(other)
        ledger.log.add(batch(3, 2))
        settled(ledger)
        found = {each.id: (each.version, *each.request) for each in ledger.store.recent("late")}
        assert found == {
            "p1": ("3", "distance"),
            "p2": ("4", "weight"),
            "p3": ("3", "distance"),
            "p4": ("3", "distance"),
        }

    def test_who_asks_for_sync_is_told(self, ledger: Ledger) -> None:
        waiting = [ledger.log.add(batch(number, 1), sync=True) for number in range(5)]
        for each in waiting:
            assert each is not None
            assert each.result(60) is None
        assert len(ledger.store.recent("late")) == 5

    def test_personal_values_are_shown_to_statistics_and_to_who_may_see_them(self, ledger: Ledger) -> None:
        record_persons(recorder(ledger.log), 1, 2)
        settled(ledger)
        for compacted in (False, True):
            if compacted:
                ledger.store.compact()
            sealed = ledger.store.find("p2")
            assert (sealed.keys, sealed.request) == ({"carrier": "AA"}, {"distance": 1.5})
            assert sealed.features == {"Weather.wind": 0.5}
            assert sealed.personal == ("email", "town", "Person.age")
            assert b"example.org" not in sealed.sealed
            shown = ledger.store.revealed(sealed)
            assert shown.keys == {"carrier": "AA", "email": "2@example.org"}
            assert shown.request == {"distance": 1.5, "town": "Nîmes"}
            assert shown.features == {"Weather.wind": 0.5, "Person.age": 42}
            assert (shown.personal, shown.sealed) == ((), b"")
            assert ledger.store.revealed(shown) == shown
        table = ledger.store.read("late", 0, 10_000)
        assert [keys["email"] for keys in documents(table, "keys")] == ["1@example.org", "2@example.org"]
        assert documents(table, "features")[0] == {"Weather.wind": 0.5, "Person.age": 41}

    def test_personal_values_that_are_left_out_are_nowhere(self, ledger: Ledger) -> None:
        record_persons(recorder(ledger.log, Log(personal="leave out")), 1)
        settled(ledger)
        ledger.store.compact()
        found = ledger.store.revealed(ledger.store.find("p1"))
        assert found.keys == {"carrier": "AA"}
        assert found.personal == ("email", "town", "Person.age")
        assert found.sealed == b""
        assert documents(ledger.store.read("late", 0, 10_000), "keys") == [{"carrier": "AA"}]

    def test_a_subjects_predictions_are_erased_in_clear_and_encrypted_compacted_or_not(self, ledger: Ledger) -> None:
        record_persons(recorder(ledger.log), 1, 2, 3)
        record_persons(recorder(ledger.log, Log(personal="leave out")), 4)
        ledger.log.append([prediction(5), msgspec.structs.replace(prediction(6), keys={"carrier": "'); --%"})])
        ledger.log.explain([explanation(2), explanation(3)])
        settled(ledger)
        ana: dict[str, Any] = {"email": "2@example.org"}
        for subject, gone in (
            (ana, "p2"),
            ({"email": "3@example.org", "carrier": "AA"}, "p3"),
            ({"carrier": "'); --%"}, "p6"),
        ):
            assert [each.id for each in ledger.store.of_subject(subject)] == [gone]
            assert ledger.store.erase(subject, dry_run=True) == 1
            assert ledger.store.find(gone).id == gone
            assert ledger.store.erase(subject) == 1
            with pytest.raises(NotFound):
                ledger.store.find(gone)
            assert ledger.store.explanations(gone) == []
            assert ledger.store.erase(subject) == 0
        for other in ({"email": "%@example.org"}, {"email": "1@example.org", "carrier": "BB"}, {"town": "Nîmes"}):
            assert ledger.store.erase(other) == 0
        assert sorted(each.id for each in ledger.store.recent("late")) == ["p1", "p4", "p5"]
        record_persons(recorder(ledger.log), 7)
        settled(ledger)
        ledger.store.compact()
        assert ledger.store.find("p7").id == "p7"
        assert ledger.log.damaged() == 0

    def test_a_share_is_logged_with_every_prediction_and_the_rest_is_counted(self, ledger: Ledger) -> None:
        by = recorder(ledger.log, Log(share=0.5))
        for number in range(200):
            record_persons(by, number)
        settled(ledger)
        ledger.store.compact()
        table = ledger.store.read("late", 0, 10_000_000)
        assert table.num_rows + ledger.log.unlogged["late", "sampled"] == 200
        assert 60 < table.num_rows < 140
        assert set(table["share"].to_pylist()) == {0.5}
        assert ledger.store.recent("late", 1)[0].share == 0.5

    def test_a_prediction_is_found_before_and_after_compaction_as_it_was(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1), prediction(2)])
        assert ledger.store.find("p2") == prediction(2)
        assert ledger.store.compact() == 2
        assert ledger.store.find("p2") == prediction(2)

    def test_every_bundle_that_answered_is_known_before_and_after_compaction(self, ledger: Ledger) -> None:
        assert ledger.store.digests() == set()
        ledger.log.append([prediction(1), msgspec.structs.replace(prediction(2), digest="e" * 64)])
        assert ledger.store.digests() == {"d" * 64, "e" * 64}
        ledger.store.compact()
        ledger.log.append([msgspec.structs.replace(prediction(3), digest="f" * 64)])
        assert ledger.store.digests() == {"d" * 64, "e" * 64, "f" * 64}

    def test_what_was_never_logged_is_not_found(self, ledger: Ledger) -> None:
        for compacted in (False, True):
            if compacted:
                ledger.log.append([prediction(1)])
                ledger.store.compact()
            with pytest.raises(NotFound):
                ledger.store.find("p10")

    def test_each_prediction_is_compacted_once(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1)])
        assert ledger.store.compact() == 1
        ledger.log.append([prediction(2), prediction(3)])
        assert [ledger.store.compact(), ledger.store.compact()] == [2, 0]
        assert ledger.store.read("late", 0, 10_000)["id"].to_pylist() == ["p1", "p2", "p3"]

    def test_nothing_of_a_sound_log_is_damaged(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1)])
        ledger.store.compact()
        assert (ledger.log.damaged(), ledger.store.damaged()) == (0, 0)

    def test_appending_nothing_changes_nothing(self, ledger: Ledger) -> None:
        ledger.log.append([])
        assert ledger.store.compact() == 0
        assert ledger.store.recent() == []

    def test_a_closed_log_leaves_everything_to_the_next(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1)])
        ledger.log.close()
        log = ledger.reopen()
        log.append([prediction(2)])
        assert ledger.store.compact() == 2
        assert {each.id for each in ledger.store.recent()} == {"p1", "p2"}

    def test_what_waits_is_counted_until_it_is_moved(self, ledger: Ledger) -> None:
        assert ledger.store.waiting() == 0
        ledger.log.append([prediction(1), prediction(2)])
        ledger.log.append([prediction(3)])
        assert ledger.store.waiting() == 3
        assert (ledger.store.compact(), ledger.store.waiting()) == (3, 0)

    def test_reading_takes_one_endpoint_and_a_half_open_interval_in_order(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(4), prediction(2), prediction(1), prediction(3)])
        ledger.log.append([prediction(5, endpoint="other", at=2_500)])
        ledger.store.compact()
        table = ledger.store.read("late", 2_000, 4_000)
        assert table["id"].to_pylist() == ["p2", "p3"]
        assert table["score"].to_pylist() == [2 / 1024, 3 / 1024]
        assert table["latency_us"].to_pylist() == [700, 700]

    def test_reading_gives_the_same_columns_with_and_without_rows(self, ledger: Ledger) -> None:
        empty = ledger.store.read("late", 0, 1)
        ledger.log.append([prediction(1)])
        ledger.store.compact()
        assert empty.num_rows == 0
        assert empty.schema.equals(ledger.store.read("late", 0, 10_000).schema)

    def test_what_came_after_a_position_is_told_apart_from_what_was_there(self, ledger: Ledger) -> None:
        nothing = ledger.store.arrivals("late", 0)
        assert nothing is not None
        assert list(nothing.batches) == []
        ledger.log.append([prediction(1), prediction(3)])
        ledger.store.compact()
        first = ledger.store.arrivals("late", 0)
        assert first is not None
        ledger.log.append([prediction(2), prediction(4), prediction(5, endpoint="other")])
        ledger.store.compact()
        assert _ids(first) == ["p1", "p3"]
        second = ledger.store.arrivals("late", 0, after=first.position)
        assert second is not None
        assert _ids(second) == ["p2", "p4"]
        third = ledger.store.arrivals("late", 0, after=second.position)
        assert (third and third.position, _ids(third)) == (second.position, [])
        assert _ids(ledger.store.arrivals("late", 2_000, 4_000)) == ["p2", "p3"]

    def test_arrivals_have_sealed_values_in_their_places_and_the_columns_asked_for(self, ledger: Ledger) -> None:
        record_persons(recorder(ledger.log), 1, 2)
        settled(ledger)
        ledger.store.compact()
        for columns in (None, ["keys", "share"]):
            found = ledger.store.arrivals("late", 0, columns=columns)
            assert found is not None
            table = pa.concat_tables(found.batches)
            assert documents(table, "keys")[0] == {"carrier": "AA", "email": "1@example.org"}
            assert ("features" in table.column_names) is (columns is None)
        assert table["share"].to_pylist() == [1.0, 1.0]
        found = ledger.store.arrivals("late", 0, columns=["at"])
        assert found is not None
        assert [batch.column_names for batch in found.batches] == [["at"]]

    def test_arrivals_by_a_position_are_those_that_it_was_given_with(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1), prediction(3)])
        ledger.store.compact()
        first = ledger.store.arrivals("late", 0)
        assert first is not None
        ledger.log.append([prediction(2)])
        ledger.store.compact()
        again = ledger.store.arrivals("late", 0, by=first.position)
        assert (again and again.position, _ids(again)) == (first.position, ["p1", "p3"])

    def test_predictions_before_an_instant_are_removed_where_that_is_asked(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(number) for number in range(1, 6)])
        ledger.store.compact()
        assert ledger.store.tidy(replaced_before=0) == 0
        assert ledger.store.tidy(made_before=3_000, replaced_before=0) == 2
        found = ledger.store.arrivals("late", 0)
        assert found is not None
        position = found.position
        assert _ids(found) == ["p3", "p4", "p5"]
        ledger.log.append([prediction(6)])
        ledger.store.compact()
        assert _ids(ledger.store.arrivals("late", 0, after=position)) == ["p6"]

    def test_what_is_left_of_predictions_is_found_by_every_reader(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1), prediction(4), prediction(5, endpoint="other"), prediction(6)])
        ledger.store.compact()
        assert ledger.store.tidy(made_before=2_000, replaced_before=0) == 1
        assert ledger.store.find("p4") == prediction(4)
        with pytest.raises(NotFound):
            ledger.store.find("p1")
        assert ledger.store.read("late", 0, 10_000)["id"].to_pylist() == ["p4", "p6"]
        assert _ids(ledger.store.arrivals("other", 0)) == ["p5"]
        assert [each.id for each in ledger.store.recent("late")] == ["p6", "p4"]
        assert ledger.store.digests() == {"d" * 64}

    def test_recent_is_newest_first_compacted_or_not(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1), prediction(4)])
        ledger.store.compact()
        ledger.log.append([prediction(3), prediction(2, endpoint="other")])
        assert [each.id for each in ledger.store.recent(limit=3)] == ["p4", "p3", "p2"]
        assert [each.id for each in ledger.store.recent("late")] == ["p4", "p3", "p1"]
        assert ledger.store.recent(limit=0) == []
        assert ledger.store.recent("nobody") == []

    @pytest.mark.parametrize(
        ("selection", "numbers"),
        [
            (Selection(), range(1, 9)),
            (Selection(id_prefix="p3"), (3,)),
            (Selection(id_prefix="P"), ()),
            (Selection(endpoint="late", since=2_000, until=5_000), (2, 3, 4)),
            (Selection(endpoint="early"), (8,)),
            (Selection(version="4"), (7,)),
            (Selection(score_from=2 / 1024, score_to=3 / 1024), (2, 3)),
            (Selection(keys={"flight": "3"}), (3,)),
            (Selection(keys={"": "ÅA"}, status="MISSING"), range(1, 9)),
            (Selection(keys={"carrier": "3"}), ()),
            (Selection(status="EXPIRED"), ()),
        ],
    )
    def test_a_selection_gives_the_predictions_that_fulfil_all_of_it(
        self, ledger: Ledger, selection: Selection, numbers: Sequence[int]
    ) -> None:
        ledger.log.append([prediction(number) for number in range(1, 7)])
        ledger.log.append([msgspec.structs.replace(prediction(7), version="4"), prediction(8, endpoint="early")])
        assert list(ledger.store.scan(Selection())) == []
        ledger.store.compact()
        ids = {f"p{number}" for number in numbers}
        found = [each for part in ledger.store.scan(selection) for each in part]
        assert sorted(each.id for each in found) == sorted(ids)
        assert found == [ledger.store.find(each.id) for each in found]
        some = [each.id for part in ledger.store.scan(selection, {"p2", "p3", "p99"}) for each in part]
        assert sorted(some) == sorted(ids & {"p2", "p3"})
        assert sorted(ledger.store.sample(selection, 100)) == sorted(ids)
        newest = ledger.store.newest(selection)
        assert newest.predictions == sorted(found, key=lambda each: each.at, reverse=True)
        assert (newest.next, newest.searched) == (None, None)

    def test_pages_are_newest_first_and_whole_compacted_or_not(self, ledger: Ledger) -> None:
        made = [prediction(number, at=1_000 * (number // 3)) for number in range(1, 21)]  # three of an instant
        ledger.log.append(made[10:])
        ledger.store.compact()
        ledger.log.append(made[:5])
        ledger.store.compact()
        ledger.log.append(made[5:10])
        expected = [each.id for each in sorted(made, key=lambda each: (each.at, each.id), reverse=True)]
        for limit in (1, 4, 20):
            found: list[str] = []
            before = None
            while True:
                page = ledger.store.newest(Selection(endpoint="late"), limit, before)
                assert len(page.predictions) <= limit
                found += [each.id for each in page.predictions]
                before = page.next
                if before is None:
                    break
            assert found == expected
        assert ledger.store.newest(Selection(endpoint="nobody")).predictions == []

    def test_a_sample_has_its_size_and_depends_on_its_seed(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(number) for number in range(1, 101)])
        ledger.store.compact()
        selection = Selection(endpoint="late", until=51_000)
        first, again, other = (ledger.store.sample(selection, 20, seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert len(set(first)) == len(set(other)) == 20
        assert set(first) != set(other)
        assert {*first, *other} <= {f"p{number}" for number in range(1, 51)}
        assert ledger.store.sample(selection, 0) == []

    def test_a_sample_by_key_has_the_same_keys_at_any_time(self, ledger: Ledger) -> None:
        def asked(hour: int, number: int) -> Prediction:
            id_, keys = f"h{hour}n{number}", {"card": f"c{number % 40}"} if number < 60 else {}
            return msgspec.structs.replace(prediction(1), id=id_, at=1_000 * hour + number // 2, keys=keys)

        made = [[asked(hour, number) for number in range(61)] for hour in (1, 2, 3)]
        for hour in made:
            ledger.log.append(hour[::-1])
            ledger.store.compact()
        for selection in (
            Selection(since=1_000, until=2_000), Selection(since=2_000, until=3_000), Selection(),
            Selection(keys={"card": "c7"}), Selection(endpoint="nobody"),
        ):  # fmt: skip
            held = [each for hour in made for each in hour if each.keys and selection.holds(each)]
            by_card: dict[str, list[Prediction]] = {}
            for each in sorted(held, key=lambda each: (-each.at, each.id)):
                by_card.setdefault(str(each.keys["card"]), []).append(each)
            cards = sorted(by_card, key=lambda card: key_hash(f'{{"card":"{card}"}}'))
            turns = range(max(map(len, by_card.values()), default=0))
            expected = [by_card[card][turn].id for turn in turns for card in cards if turn < len(by_card[card])]
            for count in (0, 7, 40, 55, 1_000):
                assert ledger.store.sample_by_key(selection, count) == expected[:count]

    def test_a_batch_keeps_which_of_its_requests_a_rollout_assigned(self, ledger: Ledger) -> None:
        made = batch(1, 2, 1, 1)
        made.assigned = [Assigned("r1", 0.1, 2**63 - 1), None, Assigned("r1", 0.2, 7)]
        ledger.log.add(made)
        settled(ledger)
        for _ in range(2):
            found = [ledger.store.find(f"p{number}") for number in (1, 2, 3, 4)]
            assert [(each.rollout, each.weight, each.unit, each.row) for each in found] == [
                ("r1", 0.1, 2**63 - 1, 0),
                ("r1", 0.1, 2**63 - 1, 1),
                ("", 1.0, 0, 0),
                ("r1", 0.2, 7, 0),
            ]
            ledger.store.compact()

    def test_failures_are_kept_apart_from_every_reader_of_predictions(self, ledger: Ledger) -> None:
        ledger.log.fail([failure(1), failure(2, count=40, unit=0)])
        ledger.log.append([prediction(3)])
        for _ in range(2):
            assert [each.id for each in ledger.store.recent()] == ["p3"]
            assert ledger.store.digests() == {"d" * 64}
            with pytest.raises(NotFound):
                ledger.store.find("f1")
            assert ledger.store.failed("r1", ["f1", "f2", "f9"]) == {"f1", "f2"}
            assert ledger.store.failed("r2", ["f1"]) == set()
            ledger.store.compact()
        assert ledger.store.read("late", 0, 10_000)["id"].to_pylist() == ["p3"]
        assert _ids(ledger.store.arrivals("late", 0)) == ["p3"]
        assert ledger.store.failures("r1") == [failure(1), failure(2, count=40, unit=0)]
        assert ledger.store.failures("r2") == []
        assert (ledger.log.damaged(), dict(ledger.log.unlogged), dict(ledger.log.unlogged_failures)) == (0, {}, {})

    def test_a_failure_that_is_waited_for_is_there(self, ledger: Ledger) -> None:
        assert ledger.log.fail([failure(1)]) is None
        written = ledger.log.fail([failure(2), failure(3)], sync=True)
        assert written is not None
        written.result(timeout=30)
        assert ledger.store.failed("r1", ["f2", "f3"]) == {"f2", "f3"}

    def test_explanations_are_kept_apart_from_predictions_and_expire_with_them(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1), prediction(5)])
        ledger.log.explain([explanation(1), explanation(5)])
        ledger.log.explain([explanation(1, REQUESTED), explanation(6, version="4")])
        settled(ledger)
        for _ in range(2):
            assert [each.id for each in ledger.store.recent("late")] == ["p5", "p1"]
            assert ledger.store.explanations("p1") == [explanation(1, REQUESTED), explanation(1)]
            assert ledger.store.explanations("p7") == []
            ledger.store.compact()
        ledger.log.explain([explanation(5)])  # by another worker
        settled(ledger)
        ledger.store.compact()
        assert ledger.store.explained("late", "3", 0, 10_000) == [explanation(1), explanation(5)]
        assert ledger.store.explained("late", "3", 2_000, 5_000) == []
        assert _ids(ledger.store.arrivals("late", 0)) == ["p1", "p5"]
        ledger.store.tidy(made_before=3_000, replaced_before=0)
        assert ledger.store.explanations("p1") == []
        assert ledger.store.explained("late", "3", 0, 10_000) == [explanation(5)]
        assert (ledger.log.damaged(), dict(ledger.log.unlogged)) == (0, {})

    def test_observations_of_a_rollout_are_told_once_each(self, ledger: Ledger) -> None:
        assert _observations(ledger.store) == (_observations(ledger.store)[0], [])
        ledger.log.append([observed(1), observed(2, rollout="r2"), prediction(3)])
        ledger.log.fail([failure(1), failure(2, rollout="r2")])
        settled(ledger)
        ledger.store.compact()
        position, rows = _observations(ledger.store)
        assert [{**row, "at": row["at"].timestamp() * 1e6} for row in rows] == [
            {
                "id": "f1", "version": "4", "at": 1_000, "latency_us": 900, "share": 1.0, "weight": 0.75, "unit": 1,
                "row": 0, "score": None, "cached": False, "status": 500, "kind": "ModelFailed", "count": 1,
            },
            {
                "id": "p1", "version": "3", "at": 1_000, "latency_us": 700, "share": 1.0, "weight": 0.25,
                "unit": 2**62 + 1, "row": 0, "score": 1 / 1024, "cached": False, "status": 200, "kind": None,
                "count": 1,
            },
        ]  # fmt: skip
        assert _observations(ledger.store, position) == (position, [])
        ledger.log.fail([failure(4, count=9)])
        ledger.log.append([observed(5)])
        ledger.store.compact()
        later, rows = _observations(ledger.store, position)
        assert [(row["id"], row["count"]) for row in rows] == [("f4", 9), ("p5", 1)]
        assert _observations(ledger.store, later) == (later, [])
        assert len(_observations(ledger.store)[1]) == 4
        assert [row["id"] for row in _observations(ledger.store, since=4_000)[1]] == ["f4", "p5"]

    def test_observations_go_on_after_the_store_was_tidied(self, ledger: Ledger) -> None:
        ledger.log.append([observed(1), observed(4)])
        ledger.log.fail([failure(1), failure(5)])
        settled(ledger)
        ledger.store.compact()
        position, rows = _observations(ledger.store)
        assert len(rows) == 4
        ledger.log.append([observed(6)])
        ledger.store.compact()
        assert ledger.store.tidy(made_before=3_000, replaced_before=0, entries=1) >= 1
        ledger.log.append([observed(7)])
        ledger.log.fail([failure(8)])
        settled(ledger)
        ledger.store.compact()
        assert [row["id"] for row in _observations(ledger.store, position)[1]] == ["f8", "p6", "p7"]
        assert [row["id"] for row in _observations(ledger.store)[1]] == ["f5", "f8", "p4", "p6", "p7"]
        assert [each.id for each in ledger.store.failures("r1")] == ["f5", "f8"]

    def test_a_position_ahead_of_the_store_is_none(self, ledger: Ledger) -> None:
        ledger.log.append([observed(1)])
        ledger.store.compact()
        position, _ = _observations(ledger.store)
        ahead = ":".join(str(int(each) + 5) for each in position.split(":"))
        assert ledger.store.observations("r1", ahead) is None
