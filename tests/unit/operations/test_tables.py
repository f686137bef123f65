from __future__ import annotations

from pathlib import Path

import pytest

from kit.console.shop import KEYINGS, NOW, landed, orders, rows
from mainspring.core.errors import Corrupt
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock, parse_instant
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import DatasetCommit, TableScan
from mainspring.operations.data.tables import changes_of, extent, newest, quarantine_reasons


@pytest.fixture(params=["memory", "delta"])
def lake(request, tmp_path):
    return MemoryLake() if request.param == "memory" else DeltaLake(tmp_path)


def test_rows_files_and_bytes(tmp_path) -> None:
    data = rows(50)
    lake = landed(data, DeltaLake(tmp_path))
    good = [row for row in data if row["amount"] is not None]
    found = extent(lake.scan("orders"))
    size = sum(file.stat().st_size for file in (tmp_path / "orders").rglob("*.parquet"))
    assert (found.rows, found.files) == (len(good), 1)
    assert 0 < found.size <= size
    assert extent(landed(data).scan("orders")).size is None


def test_the_newest_event(lake) -> None:
    data = rows(50)
    good = [parse_instant(row["ordered_at"]) for row in data if row["amount"] is not None]
    assert newest(landed(data, lake).scan("orders"), "ordered_at") == max(good)


def test_a_damaged_file_is_named(tmp_path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(Corrupt, match=r"A file of the lake cannot be read"):
        extent(TableScan(0, files=(str(tmp_path / "x.parquet"),)))


def test_why_rows_failed(lake) -> None:
    base = rows(1)[0] | {"amount": 5.0, "status": "new"}
    bad = [
        base | {"amount": None},
        base | {"amount": None, "status": "stolen"},
        base | {"amount": 5000.0},
        base | {"ordered_at": None},
        base | {"amount": "plenty", "email": "fails ana@example.org; fails bob@example.org"},
    ]
    landed([base, *bad], lake)
    assert quarantine_reasons(lake, orders) == {
        "fails not_null(amount)": 2,
        "amount is not a float64": 1,
        "fails amount in [-1000, 1000]": 1,
        f"fails {orders.checks[2]}": 1,
        "ordered_at is null": 1,
    }


def test_what_only_one_row_has_is_no_reason(tmp_path: Path, lake) -> None:
    """A line that is not a row is told with its own text, which may hold anything."""
    header = ",".join(rows(1)[0])
    good = ",".join(str(value) for value in rows(1)[0].values())
    file = tmp_path / "orders.csv"
    file.write_text(f"{header}\n{good}\nana@example.org; ana is not a person,1,2\n")
    Ingestor(lake, MemoryLocks(), ManualClock(NOW)).ingest(orders, file, keyings=KEYINGS)
    found = quarantine_reasons(lake, orders)
    assert sum(found.values()) >= 1
    assert "ana" not in str(found)


def test_no_quarantine_no_reasons(lake) -> None:
    assert quarantine_reasons(lake, orders) == {}


def commit(name: str, parent: str | None, **versions: int) -> DatasetCommit:
    return DatasetCommit(name, versions, parent, "", 0)


def test_the_commits_that_changed_a_table() -> None:
    log = [
        commit("d", "c", orders=4),
        commit("c", "b", orders=2, other=1),
        commit("b", "a", orders=2),
        commit("a", None, other=0),
    ]
    changes = [(change.commit.id, change.before, change.after) for change in changes_of("orders", log)]
    assert changes == [("d", 2, 4), ("b", None, 2)]
    assert [change.commit.id for change in changes_of("other", log)] == ["c", "a"]
    assert changes_of("orders", log[:1]) == []  # its parent is not there to compare with
