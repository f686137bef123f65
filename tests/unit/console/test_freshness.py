import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit.console.flights import NOW, Project, declared
from mainspring.console.endpoints.freshness import freshness
from mainspring.core.errors import Corrupt
from mainspring.core.schema import Float32
from mainspring.core.time import HOUR, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.model import Source, TableScan, fresh

quotes = Source("quotes", schema={"price": Float32}, event_time="seen_at", checks=[fresh("1h")])
INSTANT = pa.timestamp("us", tz="UTC")


def rows(*times: int) -> pa.Table:
    return pa.table({"seen_at": pa.array(times, INSTANT), "price": pa.array([1.0] * len(times), pa.float32())})


def found(lake, now: int = NOW):
    project = Project(definitions=declared(sources={"quotes": quotes}), lake=lake, clock=ManualClock(now))
    (row,) = freshness(project, "", now)
    return row


@pytest.fixture(params=["memory", "delta"])
def lake(request, tmp_path):
    return MemoryLake() if request.param == "memory" else DeltaLake(tmp_path)


def test_the_newest_event_of_all_files_counts(lake) -> None:
    for key, times in (("a", (NOW - 5, NOW - 30)), ("b", (NOW - 9,)), ("c", (NOW - 7, NOW - 800))):
        table = rows(*times)
        lake.append("quotes", table.to_batches(), table.schema, key=key)
    row = found(lake)
    assert (row.name, row.kind, row.newest, row.rows, row.late) == ("quotes", "source", NOW - 5, 5, False)


def test_it_is_late_once_it_is_older_than_its_check_allows(lake) -> None:
    table = rows(NOW)
    lake.append("quotes", table.to_batches(), table.schema, key="a")
    assert found(lake, NOW + HOUR).late is False
    assert found(lake, NOW + HOUR + 1).late is True


def test_no_table_yet(lake) -> None:
    row = found(lake)
    assert (row.newest, row.rows, row.late) == (None, None, True)


def test_a_file_without_statistics_has_rows_and_no_newest(tmp_path) -> None:
    pq.write_table(rows(NOW), tmp_path / "x.parquet", write_statistics=False)

    class Files(MemoryLake):
        def scan(self, table, version=None):
            return TableScan(0, files=(str(tmp_path / "x.parquet"),))

    row = found(Files())
    assert (row.newest, row.rows) == (None, 1)


def test_a_damaged_table_is_named() -> None:
    class Damaged(MemoryLake):
        def scan(self, table, version=None):
            raise Corrupt("The log of quotes is damaged.")

    row = found(Damaged())
    assert (row.late, row.problem) == (True, "The log of quotes is damaged.")
