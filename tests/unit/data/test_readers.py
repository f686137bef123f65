"""What may be brought, and what is refused with one sentence that names the data, the column and the fix."""

import gzip
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest

from kit.landing import ROW, Landing, source
from mainspring.core.errors import InvalidData, NotFound
from mainspring.core.schema import Float32, Int64, String
from mainspring.core.time import DAY, FIRST_INSTANT, LAST_INSTANT, to_datetime
from mainspring.data.arrow import landed_schema
from mainspring.data.model import Source
from mainspring.data.readers import open_input

FACTS = Source("facts", schema={"name": String, "size": Int64, "share": Float32}, event_time="at")
TABLE = pa.table(
    {
        "at": pa.array([0, 1, None, 3], pa.timestamp("us", "UTC")),
        "name": ["a", "", None, 'say "ü",\nplease'],
        "size": pa.array([1, None, 3, -(2**60)], pa.int64()),
        "share": pa.array([0.1, float("nan"), None, 1e-30], pa.float32()),
    }
)
EXPECTED = [
    {"at": to_datetime(0), "name": "a", "size": 1, "share": float(np.float32(0.1))},
    {"at": to_datetime(1), "name": "", "size": None, "share": "nan"},
    {"at": to_datetime(3), "name": 'say "ü",\nplease', "size": -(2**60), "share": float(np.float32(1e-30))},
]


def write(kind: str, folder: Path) -> Path:
    path = folder / f"facts.{kind}"
    if kind == "parquet":
        pq.write_table(TABLE, path, row_group_size=2)
    elif kind == "arrow":
        with pa.ipc.new_file(path, TABLE.schema) as file:
            file.write_table(TABLE, max_chunksize=3)
    elif kind == "arrows":
        with pa.ipc.new_stream(path, TABLE.schema) as stream:
            stream.write_table(TABLE, max_chunksize=1)
    else:
        text = TABLE.set_column(0, "at", TABLE["at"].cast(pa.string()))
        with pa.output_stream(path, compression="gzip" if kind == "csv.gz" else None) as file:
            pv.write_csv(text, file, pv.WriteOptions(delimiter="\t" if kind == "tsv" else ","))
    return path


def values(landing: Landing) -> list[dict[str, object]]:
    rows = [{name: row[name] for name in landing.source.columns} for row in landing.landed()]
    return [{**row, "share": "nan"} if row["share"] != row["share"] else row for row in rows]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrows", "csv", "tsv", "csv.gz"])
def test_every_kind_of_file_lands_the_same(kind: str, tmp_path: Path) -> None:
    landing = Landing(FACTS)
    report = landing.ingest(write(kind, tmp_path))
    assert values(landing) == EXPECTED
    assert (report.rows, report.quarantined, report.reasons) == (3, 1, {"at is null": 1})


@pytest.mark.parametrize(
    "data",
    [
        lambda: TABLE,
        lambda: TABLE.to_reader(max_chunksize=1),
        TABLE.to_pylist,
        lambda: iter(TABLE.to_pylist()),
        lambda: TABLE.to_pandas(types_mapper=pd.ArrowDtype),
        lambda: TABLE.set_column(1, "name", TABLE["name"].dictionary_encode()),
        lambda: TABLE.set_column(1, "name", TABLE["name"].cast(pa.large_string())),
        lambda: TABLE.select(["size", "share", "at", "name"]),
        lambda: pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]),
    ],
)
def test_everything_in_memory_lands_the_same(data) -> None:
    landing = Landing(FACTS)
    landing.ingest(data())
    assert values(landing) == EXPECTED


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "+05:30"])
def test_an_instant_is_one_in_any_unit_and_zone(unit: str, zone: str) -> None:
    instant = datetime(2013, 11, 3, 6, 30, tzinfo=UTC)  # 01:30 in New York, the second time
    landing = Landing(Source("facts", schema={}, event_time="at"))
    column = pa.array([instant], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))
    landing.ingest(pa.table({"at": column}))
    assert landing.landed()[0]["at"] == instant


def test_below_a_microsecond_an_instant_is_rounded_down() -> None:
    landing = Landing(Source("facts", schema={}, event_time="at"))
    landing.ingest(pa.table({"at": pa.array([1_999, -1], pa.timestamp("ns", "UTC"))}))
    assert [row["at"] for row in landing.landed()] == [to_datetime(1), to_datetime(-1)]


def test_a_date_alone_is_its_midnight_in_utc() -> None:
    landing = Landing(Source("facts", schema={}, event_time="at"))
    landing.ingest(pa.table({"at": [date(2013, 7, 1)]}))
    landing.ingest([{"at": "2013-07-02"}])
    assert [row["at"] for row in landing.landed()] == [datetime(2013, 7, 1 + day, tzinfo=UTC) for day in (0, 1)]


def test_what_mappings_may_hold() -> None:
    landing = Landing()
    zone = timezone(timedelta(hours=-5))
    report = landing.ingest(
        [
            {
                **ROW,
                "at": datetime(2013, 7, 1, tzinfo=zone),
                "other": 5,
                "single": np.float32(0.1),
                "small": np.int32(7),
            },
            {**ROW, "small": "12", "big": "13.0", "flag": "no", "double": Decimal("0.5"), "extra": object()},
            {"at": "2013-07-01 00:00:00+02"},
        ]
    )
    assert (report.rows, report.quarantined) == (3, 0)
    first, second, third = landing.landed()
    assert (first["at"], first["other"], first["small"]) == (datetime(2013, 7, 1, 5, tzinfo=UTC), to_datetime(5), 7)
    assert (second["small"], second["big"], second["flag"], second["double"]) == (12, 13, False, 0.5)
    assert third["at"] == datetime(2013, 6, 30, 22, tzinfo=UTC)
    assert all(third[name] is None for name in ROW if name != "at")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("small", 1.5, "small is not an int32"),
        ("small", 2**31, "small is not an int32"),
        ("small", True, "small is not an int32"),
        ("big", "1_000", "big is not an int64"),
        ("big", "0x10", "big is not an int64"),
        ("big", float("nan"), "big is not an int64"),
        ("big", 2**63, "big is not an int64"),
        ("single", "many", "single is not a float32"),
        ("double", False, "double is not a float64"),
        ("flag", 2, "flag is not a boolean"),
        ("name", 1, "name is not a string"),
        ("at", "yesterday", "at is not a time"),
        ("at", "2013-02-30T00:00:00Z", "at is not a time"),
        ("at", "infinity", "at is not a time"),
        ("at", "epoch", "at is not a time"),
        ("other", "2013-07-01T00:00:00", "other has no UTC offset"),
        ("other", datetime(2013, 7, 1), "other has no UTC offset"),  # noqa: DTZ001
        ("other", True, "other is not a time"),
        ("other", 1.5, "other is not a time"),
    ],
)
def test_a_value_that_does_not_fit_costs_its_row_only(column: str, value: object, reason: str) -> None:
    landing = Landing()
    good = {**ROW, "other": "2013-07-01T00:00:00Z"}
    report = landing.ingest([good, {**ROW, column: value}, good])
    assert (report.rows, report.quarantined, report.reasons) == (2, 1, {reason: 1})
    (row,) = landing.quarantined()
    assert row["_reason"] == reason
    assert row[column] == str(value)
    assert [row["_seq"] for row in landing.landed()] == [0, 2]


def test_a_csv_says_null_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text('at,name,size,share\n2013-07-01,NA,,\n2013-07-01,"NA",1,NaN\n2013-07-01,"",2,1e3\n')
    landing = Landing(FACTS)
    landing.ingest(path)
    day = datetime(2013, 7, 1, tzinfo=UTC)
    assert values(landing) == [
        {"at": day, "name": "NA", "size": None, "share": None},
        {"at": day, "name": "NA", "size": 1, "share": "nan"},
        {"at": day, "name": "", "size": 2, "share": 1000.0},
    ]


def test_a_csv_says_null_in_the_words_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text('at,name,size,share\n2013-07-01,NA,N/A,null\n2013-07-01,"NA",1,\n2013-07-01,a,null,1\n')
    landing = Landing(FACTS)
    report = landing.ingest(path, nulls=["NA", "N/A"])
    assert [row["name"] for row in values(landing)] == ["NA"]
    assert report.reasons == {"share is not a float32": 1, "size is not an int64": 1}
    assert not any("ingested before" in each for each in report.warnings)


def test_a_csv_that_is_there_stays_as_it_was_read_first_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("at,name,size,share\n2013-07-01,NA,1,1\n2013-07-02,a,2,1\n")
    landing = Landing(FACTS)
    landing.ingest(path)
    report = landing.ingest(path, nulls=["NA"])
    assert (report.rows, report.already) == (0, 2)
    assert any("2 of the rows had been ingested before and keep their values" in each for each in report.warnings)
    assert [row["name"] for row in values(landing)] == ["NA", "a"]
    assert landing.ingest(path).warnings == ()


@pytest.mark.parametrize("as_text", [False, True])
def test_an_instant_beyond_the_years_goes_to_the_quarantine(as_text: bool, tmp_path: Path) -> None:
    landing = Landing(Source("facts", schema={"name": String}, event_time="at", recorded_time="known", lag="1d"))
    kind = pa.timestamp("us", "UTC")
    first, last = FIRST_INSTANT, LAST_INSTANT
    at = pa.array([first - 1, first, last, last + 1, 0, 0], kind)
    known = pa.array([0, 0, 0, 0, last - DAY, last - DAY + 1], kind)
    rows = pa.table({"at": at, "known": known, "name": list("abcdef")})
    if as_text:
        rows = duckdb.sql("SELECT COLUMNS(*)::VARCHAR FROM rows").to_arrow_table()
    report = landing.ingest(rows)
    assert [row["name"] for row in landing.landed()] == ["b", "c", "e"]
    assert report.reasons == {
        "at is not in the years 1 to 9999": 2,
        "known and the lag are beyond the year 9999": 1,
    }


def test_rows_that_differ_in_nanoseconds_are_two_batches() -> None:
    landing = Landing(Source("facts", schema={"name": String}, event_time="at"))
    for nanoseconds, landed in ((1_000, 1), (1_001, 1), (1_001, 0)):
        report = landing.ingest(pa.table({"at": pa.array([nanoseconds], pa.timestamp("ns", "UTC")), "name": ["a"]}))
        assert report.rows == landed
        told = [warning for warning in report.warnings if "fractions of a microsecond" in warning]
        assert len(told) == nanoseconds % 1_000


def test_a_line_that_is_no_row_is_quarantined_with_its_text(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("at,name,size,share\n2013-07-01,a,1,1\n2013-07-01,a,1\n2013-07-01,a,1,1,1\n2013-07-01,b,1,1\n")
    landing = Landing(FACTS)
    report = landing.ingest(path)
    assert (report.rows, report.quarantined) == (2, 2)
    assert report.reasons == {"a line has 3 fields, not 4": 1, "a line has 5 fields, not 4": 1}
    assert [row["_reason"] for row in landing.quarantined()] == [
        "a line has 3 fields, not 4: 2013-07-01,a,1",
        "a line has 5 fields, not 4: 2013-07-01,a,1,1,1",
    ]


def test_columns_that_are_not_declared_are_left_out_and_told(tmp_path: Path) -> None:
    landing = Landing(FACTS, now=DAY)
    pq.write_table(
        TABLE.append_column("_seq", [[1, 2, 3, 4]]).append_column("x", TABLE["name"]), tmp_path / "f.parquet"
    )
    report = landing.ingest(tmp_path / "f.parquet")
    assert report.warnings == (
        f"{tmp_path}/f.parquet has columns that source 'facts' does not declare; they were ignored: _seq, x.",
    )
    assert landing.lake.scan("facts").schema.names == landed_schema(FACTS, {}).names


def refusal(data: object, declared: Source = FACTS) -> InvalidData:
    landing = Landing(declared)
    with pytest.raises(InvalidData) as caught:
        landing.ingest(data)
    assert landing.lake.tables() == []
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no file .*nothing\.csv"):
        open_input(tmp_path / "nothing.csv", FACTS)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert f"{tmp_path} cannot be read: Is a directory" in refusal(tmp_path).what


@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrows"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_damaged_file_is_named(kind: str, keep: float, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert str(path) in refusal(path).what


def test_a_csv_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_bytes(b"at,name,size,share\n2013-07-01,\xff\xfe,1,1\n")
    assert f"{path} cannot be read" in refusal(path).what
    path.write_bytes(b"")
    assert f"{path} cannot be read" in refusal(path).what
    gz = tmp_path / "facts.csv.gz"
    gz.write_bytes(gzip.compress(b"at,name,size,share\n" + b"2013-07-01,a,1,1\n" * 1000)[:60])
    assert f"{gz} cannot be read" in refusal(gz).what


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.xlsx"
    path.write_bytes(b"PK\x03\x04")
    assert "neither Parquet, nor Arrow, nor CSV" in refusal(path).what


@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrows", "csv"])
def test_a_missing_column_is_named(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    declared = Source("facts", schema={"name": String, "sise": Int64}, event_time="at")
    error = refusal(path, declared)
    assert error.what == (
        f"In {path} the column 'sise' of source 'facts' is missing; there are ['at', 'name', 'share', 'size']."
    )


def test_a_missing_column_of_mappings_is_named() -> None:
    what = refusal([{"at": 1, "name": "a"}]).what
    assert what == "In the rows the column 'size' of source 'facts' is missing; there are ['at', 'name']."


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("size", pa.array([[1]], pa.list_(pa.int64()))),
        ("size", pa.array([True])),
        ("name", pa.array([1])),
        ("at", pa.array([1])),
        ("share", pa.array([0], pa.timestamp("us", "UTC"))),
        ("name", pa.array([b"x"])),
    ],
)
def test_a_column_of_another_type_is_named(column: str, kind: pa.Array, tmp_path: Path) -> None:
    table = TABLE.slice(0, 1)
    table = table.set_column(table.column_names.index(column), column, kind)
    pq.write_table(table, tmp_path / "f.parquet")
    what = refusal(tmp_path / "f.parquet").what
    came = "list<" if pa.types.is_list(kind.type) else f"{kind.type}, "
    assert what.startswith(f"Column {column!r} of {tmp_path}/f.parquet is {came}")
    assert what.endswith(f"but the source declares {FACTS.columns[column].value}.")


def test_a_csv_column_without_one_value_that_fits_is_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("at,name,size,share\n2013-07-01,1,UA,1\n2013-07-01,2,,1\n2013-07-01,3,AA,1\n")
    assert refusal(path).what == f"Column 'size' of {path} contains no value that is an int64: the first is 'UA'."


@pytest.mark.parametrize(
    "data",
    [
        pa.table({**{name: TABLE[name] for name in TABLE.column_names}, "at": TABLE["at"].cast(pa.timestamp("us"))}),
        [{"at": datetime(2013, 7, 1), "name": "a", "size": 1, "share": 1}],  # noqa: DTZ001
        [{"at": "2013-07-01 05:00", "name": "a", "size": 1, "share": 1}],
    ],
)
def test_times_without_an_offset_are_refused(data: object) -> None:
    assert refusal(data).what.startswith("Column 'at' of the rows has times without a UTC offset")


def test_a_csv_with_times_without_an_offset_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("at,name,size,share\n2013-07-01 05:00:00,a,1,1\n2013-07-01T05:00:00,a,1,1\n")
    error = refusal(path)
    assert error.what == f"Column 'at' of {path} has times without a UTC offset, so they are not instants."
    assert "2013-07-01T00:00:00Z" in str(error.fix)


@pytest.mark.parametrize("data", [5, {"at": [1]}, [1, 2]])
def test_what_is_no_data_is_refused(data: object) -> None:
    refusal(data)


def test_totals_are_known_where_they_can_be(tmp_path: Path) -> None:
    assert open_input(write("parquet", tmp_path), FACTS).total == 4
    assert open_input(TABLE, FACTS).total == 4
    assert open_input(TABLE.to_pylist(), FACTS).total == 4
    assert open_input(write("csv", tmp_path), FACTS).total is None
    assert open_input(iter([]), FACTS).total is None
    assert source().columns.keys() == ROW.keys()


@pytest.mark.parametrize("group", [1, 7, 100, 1000])
def test_a_parquet_file_is_read_in_order_whatever_its_row_groups(tmp_path: Path, group: int) -> None:
    whole = pa.table({"at": pa.array(range(250), pa.timestamp("us", "UTC")), "size": range(250)})
    pq.write_table(whole, tmp_path / "facts.parquet", row_group_size=group)
    sizes = Source("sizes", schema={"size": Int64}, event_time="at")
    opened = open_input(tmp_path / "facts.parquet", sizes, 100)
    pieces = list(opened.pieces)
    assert pa.concat_tables(pieces)["size"].to_pylist() == list(range(250))
    assert max(map(len, pieces)) <= 100
    assert len(pieces) <= 6
    assert opened.total == 250


def test_what_was_read_of_a_parquet_file_is_not_kept(tmp_path: Path) -> None:
    rows, groups = 10_000, 20
    size = np.random.default_rng(0).integers(0, 2**62, rows * groups)  # nothing to compress
    path = tmp_path / "facts.parquet"
    pq.write_table(pa.table({"at": pa.array(size, pa.timestamp("us", "UTC")), "size": size}), path, row_group_size=rows)
    before = pa.total_allocated_bytes()
    opened = open_input(path, Source("sizes", schema={"size": Int64}, event_time="at"), rows)
    held = [pa.total_allocated_bytes() - before for _ in opened.pieces]
    assert len(held) == groups
    assert max(held) < path.stat().st_size / 2
