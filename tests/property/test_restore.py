"""Landing, correcting, committing and going back in any order, against a model that is two lists of rows a commit."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from kit.depth import examples
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Int64, String
from mainspring.core.time import ManualClock
from mainspring.data import duck
from mainspring.data.adapters.catalog import CatalogSnapshots
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.commits import commit
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, not_null
from mainspring.data.ports import LakeTables
from mainspring.data.restore import restore
from mainspring.project.catalog import memory_catalog

FACTS = Source("facts", schema={"place": String, "number": Int64}, event_time="at", checks=[not_null("number")])
KEYINGS = {"place": ("place",)}
Row = tuple[int, str, int | None]

rows = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["a", "b"]), st.sampled_from([None, 1, 2])), min_size=1, max_size=5
)
BATCHES = st.lists(rows, min_size=3, max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("land"), st.integers(0, 2)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("restore"), st.integers(0, 5)),
    ),
    min_size=1,
    max_size=12,
)


def read(lake: LakeTables, table: str) -> list[dict[str, Any]]:
    if lake.version(table) is None:
        return []
    with duck.connect() as con:
        duck.register(con, "scanned", lake.scan(table))
        query = 'SELECT * REPLACE (epoch_us(scanned."at") AS "at") FROM scanned ORDER BY _seq'
        return con.sql(query).to_arrow_table().to_pylist()


def counts(arrived: list[Row]) -> list[bool]:
    """By the rule's words: a row counts if none of its place that was visible by then ranks higher."""
    return [
        all(
            (other[0], number) <= (row[0], index)
            for number, other in enumerate(arrived)
            if other[1] == row[1] and other[0] <= row[0]
        )
        for index, row in enumerate(arrived)
    ]


def check(lake: LakeTables, held: list[int], batches: list[list[Row]]) -> set[tuple[int, Any]]:
    """Compare the tables with the batches that should be there, in the order of arrival; return (`_seq`, row) pairs."""
    good = [row for batch in held for row in batches[batch] if row[2] is not None]
    bad = [row for batch in held for row in batches[batch] if row[2] is None]
    landed = read(lake, "facts")
    assert [(row["at"], row["place"], row["number"]) for row in landed] == good
    assert [row["_record_place"] for row in landed] == counts(good)
    quarantined = []
    if lake.version("facts__quarantine") is not None:
        with duck.connect() as con:
            duck.register(con, "scanned", lake.scan("facts__quarantine"))
            quarantined = con.sql("SELECT _seq, place, number FROM scanned ORDER BY _seq").fetchall()
    assert [(place, number) for _, place, number in quarantined] == [row[1:] for row in bad]
    numbers = [row["_seq"] for row in landed] + [seq for seq, *_ in quarantined]
    assert len(set(numbers)) == len(numbers)
    pairs = {(row["_seq"], (row["_batch"], row["at"], row["place"], row["number"])) for row in landed}
    return pairs | {(seq, (place, number)) for seq, place, number in quarantined}


def live(lake: LakeTables, batches: list[list[Row]], todo: list[tuple[str, int]]) -> None:
    snapshots, locks, clock = CatalogSnapshots(memory_catalog()), MemoryLocks(), ManualClock(100)
    ingestor = Ingestor(lake, locks, clock, batch_rows=2)
    held: list[int] = []  # the batches that are there, in the order in which they came
    names: list[tuple[str, list[int]]] = []
    given_numbers: dict[int, Any] = {}
    for what, number in todo:
        if what == "land":
            records = [dict(zip(("at", "place", "number"), row, strict=True)) for row in batches[number]]
            report = ingestor.ingest(FACTS, records, keyings=KEYINGS, batch_id=f"b{number}")
            known = len(records) if number in held else 0
            assert (report.already, report.rows + report.quarantined) == (known, len(records) - known)
            if not known:
                held.append(number)
        elif what == "commit":
            clock.advance(1)
            names.append((commit(lake, snapshots, clock).id, [*held]))
        elif names:
            name, were = names[number % len(names)]
            restore(lake, snapshots, locks, clock, name)
            held = [*were]
        for seq, row in check(lake, held, batches):
            # A number that was ever a row's is no other row's.
            assert given_numbers.setdefault(seq, row) == row


@settings(max_examples=examples(gate=5, deep=40), deadline=None)
@given(batches=BATCHES, todo=steps)
def test_the_tables_are_those_of_the_model(batches: list[list[Row]], todo: list[tuple[str, int]]) -> None:
    live(MemoryLake(), batches, todo)


@settings(max_examples=examples(gate=1, deep=6), deadline=None)
@given(batches=BATCHES, todo=steps)
def test_on_delta_as_well(tmp_path_factory: Any, batches: list[list[Row]], todo: list[tuple[str, int]]) -> None:
    live(DeltaLake(tmp_path_factory.mktemp("lake")), batches, todo)
