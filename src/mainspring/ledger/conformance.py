"""What every prediction log and store must do. Derive a test class and give it a fixture `ledger`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mainspring.core.errors import NotFound
from mainspring.ledger.model import Prediction
from mainspring.ledger.ports import PredictionLog, PredictionStore


@dataclass(frozen=True, slots=True)
class Ledger:
    """Both sides of one ledger. `reopen` closes the log and opens another over the same place."""

    log: PredictionLog
    store: PredictionStore
    reopen: Callable[[], PredictionLog]


def prediction(number: int, *, endpoint: str = "late", at: int | None = None) -> Prediction:
    """Return a prediction that is told from others by its number."""
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


class LedgerConformance:
    """One log and the store over it."""

    def test_a_prediction_is_found_before_and_after_compaction_as_it_was(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1), prediction(2)])
        assert ledger.store.find("p2") == prediction(2)
        assert ledger.store.compact() == 2
        assert ledger.store.find("p2") == prediction(2)

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

    def test_recent_is_newest_first_compacted_or_not(self, ledger: Ledger) -> None:
        ledger.log.append([prediction(1), prediction(4)])
        ledger.store.compact()
        ledger.log.append([prediction(3), prediction(2, endpoint="other")])
        assert [each.id for each in ledger.store.recent(limit=3)] == ["p4", "p3", "p2"]
        assert [each.id for each in ledger.store.recent("late")] == ["p4", "p3", "p1"]
        assert ledger.store.recent(limit=0) == []
        assert ledger.store.recent("nobody") == []
