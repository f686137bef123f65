"""Pages of the newest predictions over many files: those that cannot hold any are not read, and a page is bounded."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mainspring.data.model import TableScan
from mainspring.ledger.adapters.newest import NewestFirst
from mainspring.ledger.columns import to_batch
from mainspring.ledger.conformance import prediction
from mainspring.ledger.model import Selection
from mainspring.ledger.ports import Cursor

FILES, ROWS = 6, 20


@pytest.fixture
def scan(tmp_path: Path) -> TableScan:
    """Six files of twenty predictions, each later than the one before; the last three are by version 4."""
    files = []
    for file in range(FILES):
        made = [prediction(file * ROWS + row) for row in range(ROWS)]
        if file >= 3:
            made = [msgspec.structs.replace(each, version="4") for each in made]
        path = tmp_path / f"{file}.parquet"
        pq.write_table(pa.Table.from_batches([to_batch(made)]), path)
        files.append(str(path))
    return TableScan(0, files=tuple(files))


def ids(page: object) -> list[int]:
    return [int(each.id[1:]) for each in page.predictions]  # type: ignore[attr-defined]


def test_files_that_cannot_hold_any_are_not_read(scan: TableScan) -> None:
    newest = NewestFirst()
    assert scan.files is not None
    newest.page(scan, Selection(), 5, None)
    for place in (0, 1, 3, 4, 5):  # their statistics are known: what is not read is not missed
        Path(scan.files[place]).unlink()
    assert ids(newest.page(scan, Selection(version="3"), 5, None)) == [59, 58, 57, 56, 55]
    assert ids(newest.page(scan, Selection(score_to=45 / 1024, score_from=44 / 1024), 5, None)) == [45, 44]
    assert ids(newest.page(scan, Selection(until=45_000), 3, None)) == [44, 43, 42]
    assert newest.page(scan, Selection(endpoint="nobody"), 5, None).predictions == []


def test_a_page_looks_at_a_bounded_number_of_rows_and_the_next_goes_on(scan: TableScan) -> None:
    newest, wanted = NewestFirst(), Selection(keys={"flight": "7"})
    before: Cursor | None = None
    found: list[int] = []
    searched: list[int | None] = []
    while True:
        page = newest.page(scan, wanted, 5, before, most_rows=2 * ROWS)
        found += ids(page)
        searched.append(page.searched)
        before = page.next
        if before is None:
            break
    assert found == [7]
    assert searched == [79_000, 39_000, None]


def test_rows_of_overlapping_files_are_in_order(tmp_path: Path) -> None:
    files = []
    for file in range(3):
        path = tmp_path / f"{file}.parquet"
        made = [prediction(number) for number in range(file, 60, 3)]
        pq.write_table(pa.Table.from_batches([to_batch(made)]), path)
        files.append(str(path))
    page = NewestFirst().page(TableScan(0, files=tuple(files)), Selection(), 25, None)
    assert ids(page) == list(range(59, 34, -1))
