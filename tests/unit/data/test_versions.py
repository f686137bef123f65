"""Versions of facts as they land: which are superseded when, and what a later declaration makes of a table."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.depth import examples
from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.ports import LakeTables

pytestmark = pytest.mark.slow

START = 1_700_000_000_000_000
KEYINGS = {"card": ("card",), "shop": ("shop", "till")}
SCHEMA = {"card": ms.String, "shop": ms.String, "till": ms.Int64, "payment": ms.Int64, "void": ms.Boolean}


def source(*, versions: bool = True, **changed: Any) -> ms.Source:
    named = {"id": "payment", "retracted": "void"} if versions else {}
    given = {"schema": SCHEMA, "event_time": "paid_at", "recorded_time": "known_at", **named, **changed}
    return ms.Source("payments", **given)


def payment(number: int | None, hour: int, known: int | None = None, *, card: str | None = "c1", shop: str = "s1",
            void: bool | None = None) -> dict[str, Any]:  # fmt: skip
    known = hour if known is None else known
    return {"paid_at": START + hour * HOUR, "known_at": START + known * HOUR, "card": card, "shop": shop,
            "till": 1, "payment": number, "void": void}  # fmt: skip


@dataclass
class Landed:
    lake: LakeTables

    def land(self, of: ms.Source, rows: list[dict[str, Any]]) -> Any:
        return Ingestor(self.lake, MemoryLocks(), ManualClock(START)).ingest(of, rows, keyings=KEYINGS)

    def conform(self, of: ms.Source) -> tuple[str, ...]:
        return Ingestor(self.lake, MemoryLocks(), ManualClock(START)).conform(of, KEYINGS)

    def needed(self, of: ms.Source) -> tuple[str, ...]:
        return Ingestor(self.lake, MemoryLocks(), ManualClock(START)).needed(of, KEYINGS)

    def table(self) -> list[dict[str, Any]]:
        scan = self.lake.scan("payments")
        rows = scan.rows if scan.rows is not None else pq.read_table(list(scan.files or ()))
        return sorted(rows.to_pylist(), key=lambda row: row["_seq"])


@pytest.fixture(params=["memory", "delta"])
def landed(request: pytest.FixtureRequest, tmp_path: Path) -> Landed:
    return Landed(MemoryLake() if request.param == "memory" else DeltaLake(tmp_path / "lake"))


def hours(landed: Landed) -> list[int | None]:
    found = [row["_superseded_at"] for row in landed.table()]
    return [None if at is None else int((at.timestamp() * 1_000_000 - START) // HOUR) for at in found]


def test_a_version_is_superseded_when_a_higher_one_becomes_visible(landed: Landed) -> None:
    landed.land(source(), [payment(1, 0), payment(2, 1)])
    landed.land(source(), [payment(1, 0, 5)])
    landed.land(source(), [payment(1, 0, 3)])  # recorded before the one that is there: it counts from 3 to 5
    assert hours(landed) == [3, None, None, 5]
    assert [row["_record_card"] for row in landed.table()] == [False, True, False, False]
    assert [row["_superseded_by"] is not None for row in landed.table()] == [True, False, False, True]


def test_a_retraction_counts_at_no_time(landed: Landed) -> None:
    landed.land(source(), [payment(1, 0), payment(1, 0, 2, void=True), payment(7, 4, void=True)])
    assert hours(landed) == [2, 2, 4]
    assert not any(row["_record_card"] for row in landed.table())
    landed.land(source(), [payment(1, 0, 6)])
    assert hours(landed) == [2, 2, 4, None]
    assert [row["_record_card"] for row in landed.table()] == [False, False, False, True]


def test_of_two_at_one_instant_the_later_arrival_is_the_higher(landed: Landed) -> None:
    landed.land(source(), [payment(1, 0, 3), payment(1, 0, 3)])
    assert hours(landed) == [3, None]


def test_a_row_without_its_id_is_quarantined(landed: Landed) -> None:
    report = landed.land(source(), [payment(None, 0), payment(1, 0)])
    assert (report.rows, report.quarantined) == (1, 1)
    assert report.reasons == {"payment is null, but is part of the id": 1}


def random_rows(chance: random.Random, number: int) -> list[dict[str, Any]]:
    return [
        payment(
            chance.randrange(6),
            chance.randrange(8),
            chance.randrange(8),
            card=chance.choice(["c1", "c2", None]),
            shop=chance.choice(["s1", "s2"]),
            void=chance.choice([None, False, False, True]),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=6)))
def test_in_batches_it_lands_as_at_once_and_as_declared_afterwards(seed: int) -> None:
    """What is settled batch by batch is what one pass over the whole table settles, and what it was without an id."""
    chance = random.Random(seed)
    batches = [random_rows(chance, chance.randrange(1, 6)) for _ in range(5)]
    by_batch, once, later = Landed(MemoryLake()), Landed(MemoryLake()), Landed(MemoryLake())
    plain = Landed(MemoryLake())
    for rows in batches:
        by_batch.land(source(), rows)
        plain.land(source(versions=False), rows)
        later.land(source(versions=False), rows)
    once.land(source(), [row for rows in batches for row in rows])
    assert later.conform(source()) == ("+ _superseded_at for the id payment, retracted by void",)
    assert later.needed(source()) == by_batch.needed(source()) == ()

    def settled(of: Landed, *, by: bool = True) -> list[tuple[Any, ...]]:
        names = ["_superseded_at", "_record_card", "_record_shop", *(["_superseded_by"] if by else [])]
        return [tuple(row[name] for name in names) for row in of.table()]

    assert settled(by_batch) == settled(later)
    assert settled(by_batch, by=False) == settled(once, by=False)
    assert by_batch.conform(source(versions=False)) == ("- _superseded_at: rows are no longer versions of facts",)
    assert by_batch.table() == plain.table()


def test_an_id_that_old_rows_lack_is_refused(landed: Landed) -> None:
    landed.land(source(versions=False), [payment(None, 0), payment(1, 0)])
    with pytest.raises(InvalidData, match="1 of 2 rows with a null in it") as refused:
        landed.needed(source())
    assert "ingest its data again" in (refused.value.fix or "")
    with pytest.raises(InvalidData, match="but its table lacks 'reference'"):
        landed.needed(source(schema={**SCHEMA, "reference": ms.String}, id="reference"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"id": "nothing"}, "'nothing' cannot identify a fact"),
        ({"id": ()}, "the invalid retraction column 'void'"),
        ({"id": ("payment", "payment")}, "listed twice"),
        ({"retracted": "payment"}, "the invalid retraction column 'payment'"),
        ({"schema": {**SCHEMA, "x": ms.Float64}, "id": "x"}, "a fraction"),
        ({"checks": [ms.unique("payment")]}, "versions of a fact share its id"),
    ],
)
def test_what_is_no_id_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        source(**wrong)
