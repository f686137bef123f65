"""Ingestion against a brute-force oracle: which rows count, however the rows are cut into batches and versions."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import example, given, settings

from kit.depth import examples
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Float64, Int64, String
from mainspring.core.time import ManualClock, from_datetime
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source, unique
from mainspring.data.ports import LakeTables

Row = dict[str, Any]

KEYINGS = {"place": ("place",), "pair": ("place", "number")}
BARE = Source("facts", schema={"place": String, "number": Int64, "value": Float64}, event_time="happened")
RECORDED = Source(
    "facts",
    schema={"place": String, "number": Int64, "value": Float64},
    event_time="happened",
    recorded_time="recorded",
    lag=2,
)

instants = st.integers(0, 6)
rows = st.fixed_dictionaries(
    {
        "place": st.sampled_from([None, "1", "11"]),
        "number": st.sampled_from([None, 1, 11]),
        "value": st.just(0.5),
        "happened": instants,
        "recorded": instants,
    }
)
batches = st.lists(st.lists(rows, min_size=1, max_size=9), min_size=1, max_size=4)


def visible_at(row: Row, source: Source) -> int:
    recorded = row["happened"] if source.recorded_time is None else row["recorded"]
    return int(max(row["happened"], recorded + source.lag_us))


def oracle(arrived: list[Row], source: Source, keys: tuple[str, ...]) -> list[bool]:
    """Return for each row, in order of arrival, whether it counts: by the rule's words, in quadratic time."""

    def rank(index: int) -> tuple[int, int, int]:
        row = arrived[index]
        recorded = row["happened"] if source.recorded_time is None else row["recorded"]
        return row["happened"], recorded, index

    def counts(index: int) -> bool:
        row = arrived[index]
        if any(row[key] is None for key in keys):
            return False
        return all(
            rank(other) <= rank(index)
            for other in range(len(arrived))
            if all(arrived[other][key] == row[key] for key in keys)
            and visible_at(arrived[other], source) <= visible_at(row, source)
        )

    return [counts(index) for index in range(len(arrived))]


def check_version(lake: LakeTables, version: int, source: Source) -> list[Row]:
    """Compare every flag of one version with the oracle; return the rows in order of arrival."""
    scan = lake.scan("facts", version)
    if scan.rows is None:
        with duck.connect() as con:
            duck.register(con, "landed", scan)
            scan = replace(scan, rows=con.sql("SELECT * FROM landed").to_arrow_table())
    landed = scan.rows.sort_by("_seq").to_pylist()
    assert len({row["_seq"] for row in landed}) == len(landed)
    arrived = [
        {name: from_datetime(value) if name in source.times else value for name, value in row.items()} for row in landed
    ]
    for name, keys in KEYINGS.items():
        if f"_record_{name}" in (landed[0] if landed else {}):
            assert [row[f"_record_{name}"] for row in landed] == oracle(arrived, source, keys), (version, name)
    assert [from_datetime(row["_visible_at"]) for row in landed] == [visible_at(row, source) for row in arrived]
    return arrived


def only(row: Row, source: Source) -> Row:
    return {name: row[name] for name in source.columns}


def seen(happened: int, recorded: int) -> Row:
    return {"place": "1", "number": 1, "value": 0.5, "happened": happened, "recorded": recorded}


@settings(max_examples=examples(gate=6, deep=40), deadline=None)
# Of the rows there, the last before the new one decides, not the first.
@example(source=RECORDED, arriving=[[seen(0, 0), seen(2, 2)], [seen(1, 6)]], batch_rows=5, load_rows=9)
# A row that comes late shadows one there that is visible at the same instant, and one after it.
@example(source=RECORDED, arriving=[[seen(1, 4), seen(2, 5)], [seen(3, 4)]], batch_rows=1, load_rows=9)
@given(
    source=st.sampled_from([BARE, RECORDED]),
    arriving=batches,
    batch_rows=st.integers(1, 10),
    load_rows=st.integers(1, 10),
)
def test_any_split_of_any_rows_gives_the_flags_of_the_rule(
    source: Source, arriving: list[list[Row]], batch_rows: int, load_rows: int
) -> None:
    lake = MemoryLake()
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(), batch_rows, load_rows=load_rows)
    for number, batch in enumerate(arriving):
        report = ingestor.ingest(source, batch, keyings=KEYINGS, batch_id=f"batch-{number}")
        assert (report.rows, report.quarantined, report.already) == (len(batch), 0, 0)
    for version in range(report.version + 1):
        arrived = check_version(lake, version, source)
    everything = [row for batch in arriving for row in batch]
    assert [only(row, source) for row in arrived] == [only(row, source) for row in everything]


@settings(max_examples=examples(gate=2, deep=10), deadline=None)
# An entity's last row before a late one lies far back.
@example(
    source=RECORDED,
    arriving=[[seen(0, 0)], [seen(9, 9)], [seen(1, 10**14)], [seen(10**14, 5)]],
    many_rows=1,
    load_rows=9,
)
@given(
    source=st.sampled_from([BARE, RECORDED]),
    arriving=batches,
    many_rows=st.sampled_from([1, 6, 500]),
    load_rows=st.integers(1, 10),
)
def test_heads_that_are_kept_in_the_lake_give_the_same_flags(
    source: Source, arriving: list[list[Row]], many_rows: int, load_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        versions = []
        for number, batch in enumerate(arriving):
            # As by a command each time: what is known of the table is read anew.
            ingestor = Ingestor(
                DeltaLake(Path(folder)), MemoryLocks(), ManualClock(), many_rows=many_rows, load_rows=load_rows
            )
            report = ingestor.ingest(source, batch, keyings=KEYINGS, batch_id=f"batch-{number}")
            versions.append(report.version)
        lake = DeltaLake(Path(folder))
        check_version(lake, report.version, source)
        first = arriving[0]
        lake.restore(source.name, versions[0])
        then = [dict(row, happened=row["happened"] // 2) for batch in arriving for row in batch]
        ingestor = Ingestor(lake, MemoryLocks(), ManualClock(), many_rows=many_rows, load_rows=load_rows)
        report = ingestor.ingest(source, then, keyings=KEYINGS, batch_id="then")
        assert len(check_version(lake, report.version, source)) == len(first) + len(then)


@settings(max_examples=examples(gate=3, deep=20), deadline=None)
@given(source=st.sampled_from([BARE, RECORDED]), first=batches, then=batches)
def test_a_keying_that_comes_later_has_the_flags_it_would_have_had(
    source: Source, first: list[list[Row]], then: list[list[Row]]
) -> None:
    lake = MemoryLake()
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock())
    for number, batch in enumerate(first):
        ingestor.ingest(source, batch, keyings={"place": ("place",)}, batch_id=f"first-{number}")
    assert ingestor.conform(source, KEYINGS) == ("+ _record_pair for place, number",)
    assert ingestor.conform(source, KEYINGS) == ()
    for number, batch in enumerate(then):
        # The table keeps the flags it has, whoever asks for them.
        report = ingestor.ingest(source, batch, keyings={}, batch_id=f"then-{number}")
    for version in range(report.version + 1):
        check_version(lake, version, source)


@settings(max_examples=examples(gate=4, deep=25), deadline=None)
@given(arriving=batches, batch_rows=st.integers(1, 10), load_rows=st.integers(1, 10))
def test_of_rows_that_must_differ_the_first_stays(arriving: list[list[Row]], batch_rows: int, load_rows: int) -> None:
    checks = [unique("place", "number"), unique("happened", "number")]
    source = Source("facts", schema=BARE.schema, event_time="happened", checks=checks)
    lake = MemoryLake()
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(), batch_rows, load_rows=load_rows)
    kept: list[Row] = []
    for number, batch in enumerate(arriving):
        before = len(kept)
        for row in batch:
            clashes = [
                [all(row[name] is not None and row[name] == other[name] for name in check.columns) for other in kept]
                for check in checks
            ]
            if not any(map(any, clashes)):
                kept.append(row)
        report = ingestor.ingest(source, batch, keyings=KEYINGS, batch_id=f"batch-{number}")
        assert (report.rows, report.quarantined) == (len(kept) - before, len(batch) - (len(kept) - before))
    assert [only(row, source) for row in check_version(lake, report.version, source)] == [
        only(row, source) for row in kept
    ]
