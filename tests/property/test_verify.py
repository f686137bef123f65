"""Verification says nothing of data that is read right, and finds what was planted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from kit.histories import History, histories, lake_table
from kit.oracle import Row
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock
from mainspring.data.model import TableScan
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.declaring import feature_view, request_features
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.model import EntityState, FeatureView, Mark, Observations
from mainspring.features.state.blobs import State, decode, encode
from mainspring.features.verify import Verification, Verifier, verify_computed
from mainspring.features.verify.chosen import Bounds

START = 1_700_000_000_000_000
NOW = START + 30 * DAY


class Cases:
    """How many values were compared; printed at the end of the run."""

    online = 0
    recomputed = 0


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nverify: {Cases.online} random values, {Cases.recomputed} by brute force too, without a difference")


@settings(
    deadline=None,
    max_examples=examples(gate=3, deep=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(history=histories(), seed=st.integers(0, 2**31), sample=st.integers(1, 40))
def test_what_is_read_right_has_no_mismatch(history: History, seed: int, sample: int) -> None:
    if all(None in row.key for row in history.rows):
        return
    table = lake_table(history, history.rows, 0)
    found = Verifier(history.view, table, MemoryOnlineStore, seed=seed).run(sample, MemoryOnlineStore(), history.base)
    assert found.mismatches == ()
    assert found.pairs == sample
    assert found.online == sample * len(history.view.names)
    assert found.recomputed == found.online
    assert any("has no values of the view" in note for note in found.notes)
    Cases.online += found.online
    Cases.recomputed += found.recomputed


city = ms.Entity("city", keys={"city": ms.String})
rain = ms.Source("rain", schema={"city": ms.String, "mm": ms.Float32}, event_time="fell_at", recorded_time="told_at")


@feature_view(entity=city, source=rain)
class Rain:
    newest = ms.last("mm", ttl="2d")
    showers_6h = ms.count(window="6h")
    most_6h = ms.max("mm", window="6h")
    share = ms.col("most_6h") / ms.col("showers_6h")


VIEW: FeatureView = Rain  # type: ignore[assignment]


def rows() -> list[Row]:
    """Rows of three cities, every 90 minutes; every seventh is told of a day late, so that it does not count."""
    found = []
    for number in range(300):
        event = START + number * 90 * MINUTE
        told = event + (26 * HOUR if number % 7 == 3 else 0)
        values = {"mm": float(number % 11)}
        found.append(Row(("Bergen" if number % 3 else "Oslo",), event, told, number, values))
    return found


def scan_of(facts: list[Row]) -> TableScan:
    from kit.oracle import record_setting

    counting = {row.seq for key in {row.key for row in facts}
                for row in record_setting([row for row in facts if row.key == key], 0)}  # fmt: skip
    instant = pa.timestamp("us", tz="UTC")
    table = pa.table(
        {
            "fell_at": pa.array([row.event for row in facts], instant),
            "told_at": pa.array([row.recorded for row in facts], instant),
            "city": pa.array([row.key[0] for row in facts], pa.string()),
            "mm": pa.array([row.values["mm"] for row in facts], pa.float32()),
            "_visible_at": pa.array([row.visible(0) for row in facts], instant),
            "_seq": pa.array([row.seq for row in facts], pa.int64()),
            "_record_city": pa.array([row.seq in counting for row in facts], pa.bool_()),
        }
    )
    return TableScan(0, rows=table, schema=table.schema)


@dataclass(frozen=True)
class Filled:
    scan: TableScan
    live: MemoryOnlineStore

    def verify(self, scan: TableScan | None = None, sample: int = 120, **options: Any) -> Verification:
        return Verifier(VIEW, scan or self.scan, MemoryOnlineStore, seed=1, **options).run(sample, self.live, NOW)


@pytest.fixture
def filled() -> Filled:
    """The view in a store, filled at NOW; all rows are in the past but those of the last hours count."""
    store = MemoryOnlineStore()
    late = [replace(row, event=row.event + 11 * DAY, recorded=row.recorded + 11 * DAY) for row in rows()]
    facts = [*rows(), *(replace(row, seq=row.seq + 300) for row in late)]
    scan = scan_of(facts)
    materialiser = Materialiser(lambda _: scan, store, ManualClock(NOW))
    materialiser.run(VIEW, horizon=HOUR)
    materialiser.close()
    return Filled(scan, store)


def test_the_live_store_is_compared_as_it_is_now(filled: Filled) -> None:
    found = filled.verify()
    assert (found.mismatches, found.live, found.behind, found.notes) == ((), 2 * 4, 0, ())


def test_a_state_that_was_changed_is_found(filled: Filled) -> None:
    place = (slot(VIEW), encode_key(("Oslo",)))
    [held] = filled.live.read([place])
    assert held is not None
    state: State = decode(held.payload, slot(VIEW))
    state.lasts.values[0] = [99.0 for _ in state.lasts.values[0]]
    state.lasts.event[-1] = NOW
    filled.live.write(place[0], [(place[1], EntityState(held.position, encode(state), held.landed))])

    found = filled.verify()

    [mismatch] = found.mismatches
    assert (mismatch.feature, mismatch.entity, mismatch.at, mismatch.store) == (
        "Rain.newest",
        {"city": "Oslo"},
        NOW,
        "live",
    )
    assert mismatch.online == 99.0
    assert mismatch.offline == mismatch.recomputed != 99.0


def test_a_damaged_state_is_found_and_named(filled: Filled) -> None:
    place = (slot(VIEW), encode_key(("Bergen",)))
    [held] = filled.live.read([place])
    assert held is not None
    filled.live.write(place[0], [(place[1], EntityState(held.position, held.payload[:-3], held.landed))])

    found = filled.verify()

    assert {mismatch.entity["city"] for mismatch in found.mismatches} == {"Bergen"}
    assert all(
        "cannot be read: The online store contains a damaged state" in mismatch.online for mismatch in found.mismatches
    )
    assert found.live == 2 * 4


@pytest.mark.parametrize("flag", [True, False])
def test_a_wrong_flag_in_the_lake_is_found(filled: Filled, flag: bool) -> None:
    """The two reads agree with each other: only the brute-force one knows better."""
    table = filled.scan.rows
    assert table is not None
    place = table.schema.get_field_index("_record_city")
    wrong = pc.if_else(pc.equal(table["city"], "Oslo"), flag, table["_record_city"])
    planted = replace(filled.scan, rows=table.set_column(place, "_record_city", wrong))

    found = filled.verify(planted)

    own = [mismatch for mismatch in found.mismatches if mismatch.store == "own"]
    assert own
    assert {mismatch.entity["city"] for mismatch in own} == {"Oslo"}
    assert all(mismatch.was_recomputed for mismatch in own)
    assert any(mismatch.feature == "Rain.newest" and mismatch.offline != mismatch.recomputed for mismatch in own)
    if flag:
        assert all(mismatch.offline == mismatch.online for mismatch in own)


def test_a_wrong_visible_time_in_the_lake_is_found(filled: Filled) -> None:
    table = filled.scan.rows
    assert table is not None
    place = table.schema.get_field_index("_visible_at")
    found = filled.verify(
        replace(filled.scan, rows=table.set_column(place, "_visible_at", table["fell_at"])), sample=300
    )
    assert {mismatch.feature for mismatch in found.mismatches} >= {"Rain.showers_6h", "Rain.newest"}


def test_entities_that_the_live_store_is_behind_of_are_counted_and_left_out(filled: Filled) -> None:
    table = filled.scan.rows
    assert table is not None
    newer = scan_of([Row(("Oslo",), NOW - MINUTE, NOW - MINUTE, 10_000, {"mm": 50.0})]).rows
    found = filled.verify(replace(filled.scan, rows=pa.concat_tables([table, newer])))
    assert (found.behind, found.live, found.mismatches) == (1, 4, ())


def test_the_same_seed_compares_the_same(filled: Filled) -> None:
    assert msgspec.to_builtins(filled.verify()) == msgspec.to_builtins(filled.verify())


def test_a_store_that_moves_is_not_compared() -> None:
    class Moving(MemoryOnlineStore):
        marks = 0

        def mark(self, view: str) -> Mark | None:
            self.marks += 1
            return Mark(NOW + self.marks, 600, 599, NOW + self.marks)

    found = Filled(scan_of(rows()), Moving()).verify()
    assert (found.live, found.mismatches) == (0, ())
    assert "was being filled all the time" in found.notes[0]


def test_work_is_bounded(filled: Filled) -> None:
    found = filled.verify(bounds=Bounds(entities=1, rows=500, recomputed=3))
    assert (found.entities, found.recomputed) == (1, 3 * 4)
    with pytest.raises(Invalid, match="Each city has at least 200 rows") as refused:
        filled.verify(bounds=Bounds(rows=50))
    assert refused.value.fix == "allow more: --rows 200."


def test_nothing_landed_is_said(filled: Filled) -> None:
    with pytest.raises(NotFound, match="'rain' has no rows of any city yet"):
        filled.verify(scan_of([]))


def test_on_demand_features_are_compared_on_observations() -> None:
    @request_features
    class Asked:
        wet = ms.col("mm") > 2.5
        per_shower = ms.col("mm") / VIEW["showers_6h"]

    seen = Observations(rain, keys=[city], at=ms.col("fell_at"))
    found = verify_computed(Asked, seen, lambda _: scan_of(rows()), 100, 3)  # type: ignore[arg-type]
    assert (found.online, found.recomputed, found.mismatches) == (200, 200, ())
    assert found.pairs == 100
