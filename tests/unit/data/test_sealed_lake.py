"""Encrypted columns of the lake: what its files have, what readers have, and tables with rows of both kinds."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mainspring.core.errors import Conflict, Corrupt, Unavailable
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.arrow import INSTANT
from mainspring.data.row_sample import spread
from mainspring.data.sealed import SealedLake, fits, write_anew
from mainspring.security.data_keys import OneKey
from mainspring.security.model import DataKey

BINS: pa.DataType = pa.list_(pa.struct([("x", pa.float64()), ("n", pa.int64())]))
KINDS: dict[str, pa.DataType] = {
    "id": pa.int64(), "email": pa.string(), "born": INSTANT, "salary": pa.float64(), "bins": BINS,
}  # fmt: skip
SCHEMA = pa.schema([pa.field(name, kind) for name, kind in KINDS.items()])
PERSONAL = ("email", "born", "salary", "bins")
KEY = OneKey()
ROWS: dict[str, list[Any]] = {
    "id": [0, 1, 2, 3],
    "email": ["ana.mark@example.org", None, "", "ünï\0"],
    "born": [1_000_001, None, -1, 0],
    "salary": [61725.25, math.nan, -0.0, None],
    "bins": [[{"x": 617.25, "n": 3}, {"x": None, "n": 1}], [], None, [{"x": -math.inf, "n": None}]],
}
MARKS = (b"ana.mark", struct.pack("<d", 61725.25), b"61725", struct.pack("<d", 617.25), b"617.25")


def _table(**changed: list[Any]) -> pa.Table:
    columns = {**ROWS, **changed}
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _append(lake: Any, key: str, rows: pa.Table | None = None) -> None:
    lake.append("people", (_table() if rows is None else rows).to_batches(), SCHEMA, key=key)


def _read(lake: Any, columns: str = "*", version: int | None = None) -> pa.Table:
    with duck.session() as con:
        duck.register(con, "people", lake.scan("people", version))
        return con.sql(f"SELECT {columns} FROM people ORDER BY id").to_arrow_table()


def _emails(lake: Any, version: int | None = None) -> list[Any]:
    return _read(lake, "email", version)["email"].to_pylist()


def _found(folder: Path) -> set[bytes]:
    """Return the marks that are in a folder's files, also inside of Parquet."""
    contents = []
    for path in (each for each in folder.rglob("*") if each.is_file()):
        contents.append(path.read_bytes())
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                contents += [repr(file.read().to_pylist()).encode(), repr(file.metadata.to_dict()).encode()]
    return {mark for mark in MARKS if any(mark in content for content in contents)}


def _sealed(lake: Any, columns: tuple[str, ...] = PERSONAL) -> SealedLake:
    return SealedLake(lake, KEY, lambda _, __: columns)


def test_no_file_has_the_values_and_every_reader_has_them(tmp_path: Path) -> None:
    stored, plain = DeltaLake(tmp_path / "lake"), MemoryLake()
    lake = _sealed(stored)
    _append(lake, "one")
    _append(plain, "one")
    assert _found(tmp_path) == set()
    assert lake.scan("people").schema == lake.describe("people").schema == SCHEMA
    assert repr(_read(lake).to_pylist()) == repr(_read(plain).to_pylist())
    assert str(_read(lake, "salary")["salary"][2]) == "-0.0"
    assert spread(lake.scan("people"), ["email", "id"]).to_pylist() == _table().select(["email", "id"]).to_pylist()
    assert [each["email"].to_pylist() for each in duck.batches(lake.scan("people"))] == [ROWS["email"]]
    assert _emails(stored) == [None] * 4  # what other readers of the files have
    _append(stored, "in clear")
    assert len(_found(tmp_path)) == len(MARKS)


def test_a_column_is_opened_only_where_it_is_read(tmp_path: Path) -> None:
    _append(_sealed(DeltaLake(tmp_path)), "one")
    another = SealedLake(DeltaLake(tmp_path), OneKey(bytes(32)), lambda _, __: ())
    assert _read(another, "id")["id"].to_pylist() == ROWS["id"]
    with pytest.raises(Corrupt, match="does not open as people/email of lake"), duck.duck_errors("the lake"):
        _emails(another)


def test_batches_open_what_is_asked_for_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "session", partial(duck.session, threads=1))  # each more reads ahead as much
    lake, count = _sealed(DeltaLake(tmp_path), ("email", "salary")), 300_000
    rows = pa.table({"id": range(count), "email": ["a"] * count, "salary": pa.nulls(count, pa.float64())})
    lake.append("people", rows.to_batches(), rows.schema, key="one")
    scan, opened = lake.scan("people"), {"email": 0, "salary": 0}

    def counting(name: str) -> Any:
        def count_and_open(sealed: Any) -> Any:
            opened[name] += len(sealed)
            return scan.opens[name](sealed)

        return count_and_open

    counted = replace(scan, opens={name: counting(name) for name in opened})
    assert sum(len(each) for each in duck.batches(counted, ["id"], "id >= 10")) == count - 10
    assert opened == {"email": 0, "salary": 0}
    assert [each["email"].to_pylist() for each in duck.batches(counted, ["email"], "id < 3")] == [["a"] * 3]
    assert opened == {"email": 3, "salary": 0}
    batches = duck.batches(counted, ["id", "email"])
    next(batches)
    assert opened["email"] < count // 2
    assert sum(len(each) for each in batches) < count
    assert opened == {"email": count + 3, "salary": 0}


def test_rows_of_both_kinds_are_one_table_and_old_versions_are_as_they_were(tmp_path: Path) -> None:
    stored = DeltaLake(tmp_path / "lake")
    lake, off = _sealed(stored), _sealed(stored, ())
    _append(off, "before")
    _append(lake, "after", _table(id=[4, 5, 6, 7]))
    _append(off, "off again", _table(id=[8, 9, 10, 11]))
    for reader in (lake, off):
        assert _emails(reader) == ROWS["email"] * 3
        assert _emails(reader, 0) == ROWS["email"]
    lake.restore("people", 0)
    assert _emails(lake) == ROWS["email"]
    lake.restore("people", 2)
    assert not fits(stored.scan("people"), PERSONAL)
    assert not fits(stored.scan("people"), ())
    write_anew(lake, "people")
    assert fits(stored.scan("people"), PERSONAL)
    assert len(_found(tmp_path)) == len(MARKS)  # in older versions
    lake.forget("people")
    assert _found(tmp_path) == set()
    assert _emails(off) == ROWS["email"] * 3
    write_anew(off, "people")
    assert fits(stored.scan("people"), ())
    assert stored.scan("people").schema == SCHEMA


def test_changes_of_rows_are_encrypted_too(tmp_path: Path) -> None:
    lake = _sealed(DeltaLake(tmp_path))
    _append(lake, "one", _table(email=["a", "b", "c", "d"]))
    changes = pa.table({"id": [1, 2], "email": ["ana.mark@example.org", None]})
    lake.rewrite("people", _table(id=[4, 5, 6, 7]), changes, "id", key="two")
    assert _emails(lake) == ["a", "ana.mark@example.org", "c", "d", *ROWS["email"]]
    assert _found(tmp_path) == set()


def test_nobody_erases_by_a_column_that_is_encrypted_in_some_rows(tmp_path: Path) -> None:
    stored = DeltaLake(tmp_path)
    lake, now_a_key = _sealed(stored), _sealed(stored, ())
    _append(lake, "one")
    for reader in (lake, now_a_key):
        with pytest.raises(Conflict, match="encrypted") as refused:
            reader.erase("people", {"email": ["ana.mark@example.org"]})
        assert "encryption rewrite people" in str(refused.value.fix)
    write_anew(now_a_key, "people")
    assert now_a_key.erase("people", {"email": ["ana.mark@example.org"]}).rows == 1


def test_a_value_is_of_its_table_and_column(tmp_path: Path) -> None:
    stored = DeltaLake(tmp_path)
    _append(_sealed(stored), "one")
    rows = pq.read_table((stored.scan("people").files or ())[0])
    moved = rows.set_column(rows.column_names.index("_sealed_born"), "_sealed_born", rows["_sealed_email"])
    stored.append("people", moved.to_batches(), moved.schema, key="moved")
    with pytest.raises(Corrupt, match="people/born"), duck.duck_errors("the lake"):
        _read(_sealed(stored), "born")


def test_a_key_that_cannot_be_had_is_noticed_before_anything_is_read_or_written(tmp_path: Path) -> None:
    class Away(OneKey):
        def newest(self, purpose: str) -> DataKey:
            raise Unavailable(f"The key service does not answer for {purpose}.")

    stored = DeltaLake(tmp_path)
    _append(_sealed(stored), "one")
    lake = SealedLake(stored, Away(), lambda _, __: PERSONAL)
    with pytest.raises(Unavailable):
        lake.scan("people")
    with pytest.raises(Unavailable):
        _append(lake, "two")
    assert stored.version("people") == 0
