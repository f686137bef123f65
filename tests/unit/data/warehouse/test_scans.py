"""A statement that would read too much is refused before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from mainspring.core.settings import Url
from mainspring.data.adapters.warehouse_duckdb import DuckdbWarehouse
from mainspring.data.warehouse.ports import Estimate, UnloadedFile
from mainspring.data.warehouse.scans import BoundedWarehouse, TooMuchToRead

NUMBERS = "SELECT * FROM numbers"


class Told(DuckdbWarehouse):
    """A file of DuckDB that says how much a statement would read: 100 bytes, or nothing."""

    ran = 0
    says: int | None = 100

    def estimate(self, statement: str) -> Estimate | None:
        return None if self.says is None else Estimate(self.says)

    @contextmanager
    def read(self, statement: str) -> Iterator[pa.RecordBatchReader]:
        self.ran += 1
        with super().read(statement) as rows:
            yield rows

    def unload(self, statement: str, to: Url) -> list[UnloadedFile]:
        self.ran += 1
        return super().unload(statement, to)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with duckdb.connect(str(tmp_path / "w")) as con:
        con.execute("CREATE TABLE numbers AS FROM range(3)")
    warehouse = Told(tmp_path / "w")
    yield warehouse
    warehouse.close()


def test_more_than_the_limit_does_not_run(told: Told, tmp_path: Path) -> None:
    bounded = BoundedWarehouse(told, 99)
    with pytest.raises(TooMuchToRead, match=r"would read 100 bytes .* max_scan is 99"), bounded.read(NUMBERS):
        pass
    with pytest.raises(TooMuchToRead):
        bounded.unload(NUMBERS, Url(f"file://{tmp_path}/out"))
    assert told.ran == 0
    assert bounded.estimate(NUMBERS) == Estimate(100)


@pytest.mark.parametrize("says", [100, None])
def test_what_is_within_it_or_unknown_runs(told: Told, tmp_path: Path, says: int | None) -> None:
    told.says = says
    bounded = BoundedWarehouse(told, 100)
    with bounded.read(NUMBERS) as rows:
        assert rows.read_all().num_rows == 3
    (file,) = bounded.unload(NUMBERS, Url(f"file://{tmp_path}/out"))
    assert (file.rows, bounded.dialect) == (3, "duckdb")
    assert list(bounded.columns("numbers")) == ["range"]
    rows = pa.table({"n": [1]})
    with bounded.loaded(rows.to_batches(), rows.schema) as name, bounded.read(f"SELECT * FROM {name}") as found:
        assert found.read_all().equals(rows)
    bounded.close()
    assert bounded.ping().startswith("DuckDB")
