"""Tables without some rows are those into which the rows were never ingested."""

from __future__ import annotations

import random
from typing import Any

import pytest

import mainspring as ms
from kit.depth import examples
from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import HOUR, ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.without import Remaining, Without, read, told

START = 1_700_000_000_000_000
KEYINGS = {"card": ("card",), "shop": ("shop",)}
SCHEMA = {"card": ms.String, "shop": ms.String, "payment": ms.Int64, "void": ms.Boolean}


def payments(*, versions: bool) -> ms.Source:
    named = {"id": "payment", "retracted": "void"} if versions else {}
    return ms.Source("payments", schema=SCHEMA, event_time="paid_at", recorded_time="known_at", **named)


def drawn(rng: random.Random, rows: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(rows):
        hour = rng.randrange(30)
        found.append(
            {"paid_at": START + hour * HOUR, "known_at": START + (hour + rng.randrange(9)) * HOUR,
             "card": rng.choice(["a", "b", None]), "shop": rng.choice("xyz"), "payment": rng.randrange(12),
             "void": rng.choice([None, False, True])}
        )  # fmt: skip
    return found


def landed(source: ms.Source, batches: dict[str, list[dict[str, Any]]]) -> MemoryLake:
    lake = MemoryLake()
    for name, rows in batches.items():
        Ingestor(lake, MemoryLocks(), ManualClock(START)).ingest(source, rows, keyings=KEYINGS, batch_id=name)
    return lake


def content(scan: Any) -> list[dict[str, Any]]:
    """The rows in the order of arrival, numbered by it: `_seq` itself has gaps."""
    rows = scan.rows.sort_by("_seq").to_pylist()
    place = {row["_seq"]: number for number, row in enumerate(rows)}
    for row in rows:
        row["_seq"] = place[row["_seq"]]
        if row.get("_superseded_by") is not None:
            row["_superseded_by"] = place[row["_superseded_by"]]
    return rows


@pytest.mark.parametrize("versions", [False, True])
def test_a_table_without_a_batch_is_one_that_never_got_it(versions: bool) -> None:
    source = payments(versions=versions)
    for seed in range(examples(gate=1, deep=50)):
        rng = random.Random(seed)
        batches = {name: drawn(rng, 12) for name in ("monday", "tuesday", "tuesday.2", "wednesday")}
        whole = landed(source, batches)
        without = Remaining(whole.scan, {"payments": source}, [read("payments@tuesday")])
        assert without.counts == {Without("payments", "_batch", "tuesday"): 12}
        never = landed(source, {name: rows for name, rows in batches.items() if name != "tuesday"})
        assert content(without("payments")) == content(never.scan("payments"))

        without = Remaining(whole.scan, {"payments": source}, [read("payments.shop=x"), read("payments@monday")])
        rest = {name: [row for row in rows if row["shop"] != "x"] for name, rows in batches.items() if name != "monday"}
        assert content(without("payments")) == content(landed(source, rest).scan("payments"))


def test_what_is_computed_from_rows_goes_with_them() -> None:
    parent = payments(versions=False)
    scores = ms.Source("scores", schema={"derived_from": ms.Int64, "score": ms.Int64}, event_time="at")
    lake = landed(parent, {"monday": drawn(random.Random(1), 5), "tuesday": drawn(random.Random(2), 5)})
    made = [{"at": START, "derived_from": row["_seq"], "score": 1} for row in content_of(lake)]
    Ingestor(lake, MemoryLocks(), ManualClock(START)).ingest(scores, made, keyings={}, batch_id="derived")
    without = Remaining(
        lake.scan, {"payments": parent, "scores": scores}, [read("payments@monday")],
        {"scores": ("payments", "derived_from")},
    )  # fmt: skip
    kept = {row["_seq"] for row in without("payments").rows.to_pylist()}
    assert len(kept) == 5
    assert {row["derived_from"] for row in without("scores").rows.to_pylist()} == kept


def content_of(lake: MemoryLake) -> list[dict[str, Any]]:
    rows = lake.scan("payments").rows
    assert rows is not None
    return rows.to_pylist()


def test_a_whole_source_leaves_an_empty_table_and_a_sentence() -> None:
    source = payments(versions=True)
    without = Remaining(
        landed(source, {"m": drawn(random.Random(3), 7)}).scan, {"payments": source}, [read("payments")]
    )
    assert without("payments").rows.num_rows == 0
    assert [*told(without.counts)] == ["7 rows of payments were left out: payments."]


def test_rows_that_are_not_there_are_refused() -> None:
    source = payments(versions=False)
    lake = landed(source, {"monday": drawn(random.Random(4), 5)})
    for text in ("", "payments.", "payments@", "a b", "payments.shop"):
        with pytest.raises(Invalid, match="names no rows"):
            read(text)
    for text, error, what in (
        ("refunds@monday", Invalid, "No rows are read from a source 'refunds'"),
        ("payments.colour=red", Invalid, "has no column 'colour'"),
        ("payments@mon", InvalidData, "No row is in 'payments@mon'"),
        ("payments.shop='; DROP TABLE every; --", InvalidData, "No row is in"),
    ):
        with pytest.raises(error, match=what):
            Remaining(lake.scan, {"payments": source}, [read(text)])
    assert [str(read(text)) for text in ("p@b.1", "p.c=d=e", "p")] == ["p@b.1", "p.c=d=e", "p"]
