"""The lake in an S3 bucket (moto's server), against the suite of every lake, and what only a bucket has."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from mainspring.core.errors import Corrupt, Invalid, NotFound, Unavailable
from mainspring.core.settings import Url
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltaobjects import open_object_lake
from mainspring.data.conformance import SCHEMA, A, B, LakeTablesConformance, read, table


@pytest.fixture
def lake(s3_url: Url, tmp_path: Path) -> DeltaLake:
    return open_object_lake(s3_url, tmp_path / "cache")


class TestObjectLake(LakeTablesConformance):
    @pytest.fixture
    def lake(self, s3_url: Url, tmp_path: Path) -> DeltaLake:
        return open_object_lake(s3_url, tmp_path / "cache")


def append(lake: DeltaLake, *rows: tuple[object, ...], key: str) -> int | None:
    return lake.append("flights", table(*rows).to_batches(), SCHEMA, key=key)


def test_another_machine_sees_what_was_written(lake: DeltaLake, s3_url: Url, tmp_path: Path) -> None:
    append(lake, A, key="one")
    other = open_object_lake(s3_url, tmp_path / "another machine")
    assert read(other, "flights") == read(lake, "flights")
    append(other, B, key="two")
    assert lake.has("flights", "two")
    assert read(other, "flights") == read(lake, "flights")


def test_a_key_lands_once_whoever_of_two_machines_is_first(s3_url: Url, tmp_path: Path) -> None:
    machines = [open_object_lake(s3_url, tmp_path / name) for name in ("one", "two")]
    append(machines[0], A, key="before")
    both, landed = threading.Barrier(2), []

    def write(lake: DeltaLake) -> None:
        for number in range(5):
            both.wait()
            landed.append(append(lake, B, key=f"key {number}"))

    threads = [threading.Thread(target=write, args=(lake,)) for lake in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(version is not None for version in landed) == 5
    assert machines[0].describe("flights").rows == 6


def test_a_file_is_fetched_once_and_again_when_it_is_gone(lake: DeltaLake) -> None:
    append(lake, A, key="one")
    (file,) = lake.scan("flights").files or ()
    rows, written = read(lake, "flights"), Path(file).stat().st_ino
    assert Path((lake.scan("flights").files or ("",))[0]).stat().st_ino == written
    Path(file).unlink()
    assert read(lake, "flights") == rows


def test_a_file_that_the_bucket_has_lost_is_named(lake: DeltaLake, s3_url: Url, tmp_path: Path) -> None:
    append(lake, A, key="one")
    lake.place.remove("flights", lake.place.lying("flights"))
    other = open_object_lake(s3_url, tmp_path / "another machine")
    with pytest.raises(Corrupt, match=r"lacks its file s3://.*parquet"):
        other.scan("flights")


def test_what_does_not_answer_is_said_and_what_is_not_there(s3_url: Url, tmp_path: Path) -> None:
    bucket, _, rest = s3_url.text.removeprefix("s3://").partition("/")
    gone = open_object_lake(Url(f"s3://no{bucket}/{rest}"), tmp_path)
    with pytest.raises(NotFound, match="no bucket"):
        gone.version("flights")
    with pytest.raises(NotFound, match="no bucket"):
        gone.tables()
    silent = open_object_lake(Url("s3://bucket/x?endpoint=http://127.0.0.1:9&region=us-east-1"), tmp_path)
    with pytest.raises(Unavailable, match="s3://bucket/x"):
        silent.tables()


@pytest.mark.parametrize("address", ["s3://", "s3://b/p?secret=1", "s3://b/p?endpoint=http://minio.example.org:9000"])
def test_an_address_that_cannot_be_used_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        open_object_lake(Url(address), tmp_path)


def test_rows_that_are_null_throughout(lake: DeltaLake) -> None:
    rows = pa.table({"x": pa.array([None, None], pa.int64())})
    lake.append("nulls", rows.to_batches(), rows.schema, key="one")
    assert lake.describe("nulls").rows == 2
