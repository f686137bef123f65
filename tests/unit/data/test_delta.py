"""What only a folder of Delta tables can suffer: damage, a full disk, odd paths, writers that no lock keeps apart."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from kit.landing import source
from mainspring.core.errors import Corrupt, Invalid, StorageFull
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltaplaces import FOLLOWED, FolderPlace
from mainspring.data.conformance import SCHEMA, A, B, C, read, table, together
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Erased, Source

pytestmark = pytest.mark.slow


def append(lake: DeltaLake, *rows: tuple[object, ...], key: str) -> int | None:
    return lake.append("flights", table(*rows).to_batches(), SCHEMA, key=key)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts}


@contextmanager
def full_disk(at_bytes: int) -> Iterator[None]:
    """Let no file grow over a size: what is written beyond fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def big(rows: int, start: int = 0) -> pa.Table:
    # Values that do not compress, so that the file is as long as it looks.
    mixed = [number * 0x9E3779B97F4A7C15 % 2**62 for number in range(start, start + rows)]
    return pa.table({"_seq": pa.array(range(start, start + rows), pa.int64()), "mixed": mixed})


def test_a_full_disk_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    first = big(10)
    lake.append("facts", first.to_batches(), first.schema, key="one")
    before = files(tmp_path)
    second = big(200_000, 10)
    with full_disk(500_000), pytest.raises(StorageFull, match=r"No space left for .*facts"):
        lake.append("facts", second.to_batches(), second.schema, key="two")
    changes = pa.table({"_seq": [0], "mixed": [1]})
    with full_disk(500_000), pytest.raises(StorageFull):
        lake.rewrite("facts", second, changes, "_seq", key="two")
    assert files(tmp_path) == before
    assert lake.version("facts") == 0
    assert not lake.has("facts", "two")
    assert lake.append("facts", second.to_batches(), second.schema, key="two") == 1


def test_a_full_disk_at_the_first_write_leaves_no_table(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    rows = big(200_000)
    with full_disk(500_000), pytest.raises(StorageFull):
        lake.append("facts", rows.to_batches(), rows.schema, key="one")
    assert lake.tables() == []
    assert files(tmp_path) == set()
    assert lake.append("facts", rows.to_batches(), rows.schema, key="one") == 0


def test_an_ingestion_that_fills_the_disk_resumes_when_there_is_room(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(), batch_rows=40_000)
    declared = Source("facts", schema={"mixed": source().schema["big"]}, event_time="at")
    rows = big(80_000)
    data = pa.table({"at": rows["_seq"].cast(pa.timestamp("us", "UTC")), "mixed": rows["mixed"]})
    # The first version of 20,000 rows fits, a later one with 60,000 does not.
    ingestor.ingest(declared, data.slice(0, 100), keyings={}, batch_id="small")
    with full_disk(300_000), pytest.raises(StorageFull):
        ingestor.ingest(declared, data, keyings={}, batch_id="big")
    assert read_count(lake) == 100
    report = ingestor.ingest(declared, data, keyings={}, batch_id="big")
    assert (report.rows, report.already) == (80_000, 0)
    assert read_count(lake) == 80_100


def test_what_is_larger_than_the_room_is_not_begun(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    # A table of one column many times over, which is much larger than what it takes to hold it.
    column = pa.chunked_array([pa.nulls(1 << 20, pa.int64())] * 512)
    names = [f"x{number}" for number in range(1 << 10)]
    wide = pa.table([column] * len(names), names=names)
    assert wide.nbytes > 4 << 40
    with pytest.raises(StorageFull, match=r"\d+ MiB are needed, \d+ MiB are free"):
        lake.rewrite("facts", wide, wide, "x0", key="one")
    assert lake.tables() == []


def read_count(lake: DeltaLake) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in lake.scan("facts").files or ())


def test_a_damaged_log_is_corrupt_and_one_clear_line(tmp_path: Path) -> None:
    append(DeltaLake(tmp_path), A, key="one")
    append(DeltaLake(tmp_path), B, key="two")
    log = tmp_path / "flights" / "_delta_log" / f"{1:020d}.json"
    log.write_text(log.read_text()[:100])
    with pytest.raises(Corrupt, match="flights") as caught:
        DeltaLake(tmp_path).scan("flights")
    assert "\n" not in caught.value.what
    assert "doctor" in str(caught.value.fix)


def test_a_lost_file_is_corrupt(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    append(lake, A, key="one")
    (name,) = lake.scan("flights").files or ()
    Path(name).unlink()
    with pytest.raises(Corrupt, match="lacks its file"):
        lake.scan("flights")


def test_a_damaged_file_is_corrupt(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    append(lake, A, key="one")
    (name,) = lake.scan("flights").files or ()
    Path(name).write_bytes(b"PAR1" + b"\0" * 100)
    with pytest.raises(Corrupt, match="cannot be read"):
        read(lake, "flights")


def test_other_things_in_the_folder_are_no_tables(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path / "lake")
    assert lake.tables() == []
    append(lake, A, key="one")
    for name in (".hidden", "-x", "a b", "empty"):
        (tmp_path / "lake" / name / "_delta_log").mkdir(parents=True)
    (tmp_path / "lake" / ".hidden" / "_delta_log" / f"{0:020d}.json").touch()
    (tmp_path / "lake" / "a b" / "_delta_log" / f"{0:020d}.json").touch()
    (tmp_path / "lake" / "notes.txt").touch()
    assert lake.tables() == ["flights"]
    assert lake.version("empty") is None


@pytest.mark.parametrize("name", ["a[b]", "a|b", "a^b", "a\\b", "100%25"])
def test_a_folder_that_delta_cannot_address_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="Tables cannot be stored in"):
        DeltaLake(tmp_path / name)


@pytest.mark.parametrize("name", ["a b", "100%", "é", "a#b?c", "a*b", "a'b\"c", "a{b}", "a+b&c=d"])
def test_any_other_folder_will_do(name: str, tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path / name)
    append(lake, A, key="one")
    lake.rewrite("flights", table(B), pa.table({"_seq": [0], "select": ["new"]}), "_seq", key="two")
    assert [row[2] for row in read(lake, "flights")] == ["new", "b"]
    assert read(lake, "flights", 0) == [A]


def test_a_lake_sees_what_another_wrote(tmp_path: Path) -> None:
    one, other = DeltaLake(tmp_path), DeltaLake(tmp_path)
    append(one, A, key="one")
    assert read(other, "flights") == [A]
    append(one, B, key="two")
    assert other.has("flights", "two")
    assert read(other, "flights") == [A, B]
    assert append(other, B, key="two") is None
    assert append(other, C, key="three") == 2
    assert read(one, "flights") == [A, B, C]


def test_writers_that_no_lock_keeps_apart_still_write_once(tmp_path: Path) -> None:
    """Where a file system has no locks, Delta's transactions alone decide."""
    for round_number in range(5):
        lakes = [DeltaLake(tmp_path, MemoryLocks()) for _ in range(4)]
        if round_number == 0:
            append(lakes[0], A, key="made")
        key = f"round {round_number}"
        versions = together(lambda number, lakes=lakes, key=key: append(lakes[number], B, key=key))
        assert versions.count(None) == 3
    assert len(read(DeltaLake(tmp_path), "flights")) == 6


def test_many_small_files_become_few(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    for number in range(70):
        append(lake, (number, 0.0, "x", 0, True), key=f"{number}")
    assert len(lake.scan("flights").files or ()) < 64
    assert [row[0] for row in read(lake, "flights")] == list(range(70))
    assert [row[0] for row in read(lake, "flights", 50)] == list(range(51))
    assert all(lake.has("flights", f"{number}") for number in range(70))
    assert append(lake, A, key="69") is None


class WatchedPlace(FolderPlace):
    """A folder that notes which log entries are read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entries: list[str] = []

    def read(self, table: str, name: str) -> bytes:
        self.entries.append(name)
        return super().read(table, name)


def test_small_files_are_merged_without_large_ones_and_a_vacuum_reads_only_new_entries(tmp_path: Path) -> None:
    place = WatchedPlace(tmp_path)
    lake = DeltaLake(place)
    lake.append("facts", big(200_000).to_batches(), big(1).schema, key="large")
    (large,) = lake.scan("facts").files or ()
    for number in range(64):
        lake.append("facts", big(1, 200_000 + number).to_batches(), big(1).schema, key=f"{number}")
    there = lake.scan("facts").files or ()
    assert large in there
    assert len(there) < 5
    assert lake.vacuum("facts", [], replaced_before=0) == 0
    place.entries.clear()
    lake.append("facts", big(1, 300_000).to_batches(), big(1).schema, key="one more")
    assert lake.vacuum("facts", [], replaced_before=0) == 0
    assert len(set(place.entries)) < 5
    assert lake.vacuum("facts", [], replaced_before=2**62) == 64


class CountedTable(DeltaTable):
    """A table that notes each question whose answer takes as long as the table has files."""

    asked: list[str]

    def file_uris(self, *args: Any, **kwargs: Any) -> list[str]:
        self.asked.append("files")
        return super().file_uris(*args, **kwargs)

    def count(self) -> int:
        self.asked.append("rows")
        return super().count()


class CountedLake(DeltaLake):
    """A lake of such tables."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[str] = []

    def _at(self, table: str, version: int | None = None) -> DeltaTable:
        at = CountedTable(self._address(table), version=version)
        at.asked = self.asked
        return at


def test_looks_at_a_table_list_no_folder_and_ask_once_for_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(DeltaLake(tmp_path), A, key="one")
    lake = CountedLake(tmp_path)
    lake.version("flights")
    listed: list[Any] = []
    scandir = os.scandir

    def counted(path: Any = ".") -> Any:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    for number in range(3):
        append(lake, B, key=f"{number}")
        lake.asked.clear()
        for _ in range(5):
            assert lake.describe("flights").rows == number + 2
            assert len(lake.scan("flights").files or ()) == number + 2
            assert lake.has("flights", f"{number}")
            assert lake.marks("flights", ["offset"]) == {}
        assert lake.asked == ["rows"]  # the write had asked for the files
    assert listed == []


def test_deletion_vectors_and_expiry_are_off(tmp_path: Path) -> None:
    append(DeltaLake(tmp_path), A, key="one")
    log = (tmp_path / "flights" / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
    (metadata,) = [json.loads(line)["metaData"] for line in log if "metaData" in line]
    assert metadata["configuration"] == {
        "delta.enableDeletionVectors": "false",
        "delta.enableExpiredLogCleanup": "false",
        "delta.deletedFileRetentionDuration": "interval 1 hours",
    }


def test_no_byte_of_an_erased_row_is_left_in_files_or_log(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    secret = "zz-7f3e9c21"  # the largest of its column, so that the log has it as a bound
    for number in range(3):
        append(lake, (number, 0.0, secret, 1_000, True), (number + 10, 0.0, "b", 0, True), key=f"{number}")
    lake.erase("flights", {"select": ["b"]}, dry_run=True)
    with_checkpoint = DeltaTable(str(tmp_path / "flights"))
    with_checkpoint.create_checkpoint()
    append(lake, (20, 0.0, secret, 0, True), key="3")
    reader = DeltaLake(tmp_path)
    assert len(read(reader, "flights")) == 7
    assert found_in(tmp_path, secret)
    assert lake.erase("flights", {"select": [secret]}).rows == 4
    assert found_in(tmp_path, secret) == set()
    assert [row[0] for row in read(reader, "flights")] == [10, 11, 12]
    assert [lake.describe("flights", version).rows for version in range(4)] == [2, 4, 6, 7]
    lake.erase("flights", {"select": ["b"]})  # its checkpoint takes the place of the one that the reader knows
    assert reader.describe("flights").rows == 0
    append(lake, *((number, 0.0, "c", 0, True) for number in range(4)), key="4")
    assert len(read(reader, "flights")) == len(read(DeltaLake(tmp_path), "flights")) == 4
    assert lake.damage("flights") == []


def test_what_an_interrupted_erasure_left_is_found_again(tmp_path: Path) -> None:
    lake = DeltaLake(tmp_path)
    secret = "zz-7f3e9c21"
    append(lake, (0, 0.0, secret, 0, True), (1, 0.0, "b", 0, True), key="0")
    DeltaTable(str(tmp_path / "flights")).delete(f"\"select\" = '{secret}'")  # killed before anything was removed
    (tmp_path / "flights" / "part-torn.parquet").write_bytes(b"PAR1" + secret.encode())
    assert lake.erase("flights", {"select": [secret]}) == Erased(0, 3)
    assert found_in(tmp_path, secret) == set()
    append(lake, (2, 0.0, secret, 0, True), key="1")
    lake.replace("flights", table(B).to_batches(), SCHEMA, key="2")
    lake.vacuum("flights", [])  # its bounds in the log stay
    assert found_in(tmp_path, secret)
    assert lake.erase("flights", {"select": [secret]}) == Erased(0, 1)
    assert found_in(tmp_path, secret) == set()


def found_in(folder: Path, text: str) -> set[str]:
    """Return the files with a text, also in a column of Parquet."""
    found = set()
    for path in files(folder):
        rows = repr(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" and "torn" not in path.name else ""
        if text.encode() in path.read_bytes() or text in rows:
            found.add(path.name)
    return found


@pytest.mark.parametrize(("held", "keep"), [(0, []), (2, [2]), (2, []), (6, [2, 6])])
def test_who_holds_a_version_that_the_log_has_lost_sees_the_newest(tmp_path: Path, held: int, keep: list[int]) -> None:
    writer, reader = DeltaLake(tmp_path), DeltaLake(tmp_path)
    for number in range(12):
        append(writer, A, key=f"{number}")
        if number in (4, 9):
            DeltaTable(tmp_path / "flights").create_checkpoint()
        if number == held:
            assert reader.version("flights") == held
            assert reader.has("flights", "0")
    assert writer.shorten("flights", 1, replaced_before=2**62, keep=keep) > 0
    assert reader.version("flights") == 11
    assert reader.has("flights", "10")
    assert not reader.has("flights", "never")
    assert {*keep, 9, 10, 11} <= {*writer.readable("flights", range(12))}
    writer.shorten("flights", 1, replaced_before=2**62)
    assert not any(name.endswith(FOLLOWED) for name in writer.place.log("flights"))
