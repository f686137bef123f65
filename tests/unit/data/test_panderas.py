"""Schemas of pandera: what they pass lands and what they fail does not, or they are refused by name."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pandera.polars as pp
import polars as pl
import pytest

from kit.landing import Landing
from mainspring.core.errors import Invalid
from mainspring.core.schema import Boolean, Float32, Float64, Int32, Int64, String, Timestamp
from mainspring.data.model import Check, Source

pytestmark = pytest.mark.slow

COLUMNS = {"text": String, "number": Int64, "value": Float64, "flag": Boolean}
FRAME = pd.DataFrame(
    {
        "at": pd.to_datetime(range(9), utc=True).as_unit("us"),
        "text": ["a", "ab", "abc", "b1", None, "", "zz", "é", "ab"],
        "number": [0, 1, 2, 3, 4, 5, 6, 7, 8],
        "value": [0.0, -1.0, 0.5, 1.0, 2.0, None, 0.25, 9.0, 1.5],
        "flag": [True, False] * 4 + [True],
    }
)
CHECKS: dict[str, list[Any]] = {
    "value": [
        pa.Check.ge(0), pa.Check.gt(0), pa.Check.le(1), pa.Check.lt(1), pa.Check.eq(1.5), pa.Check.ne(0.5),
        pa.Check.in_range(0, 1), pa.Check.in_range(0, 1, include_min=False, include_max=False),
        pa.Check.isin([0.0, 1.0]), pa.Check.notin([0.0, 1.0]),
    ],
    "number": [pa.Check.between(2, 5), pa.Check.isin({1, 2}), pa.Check.ge(4)],
    "text": [
        pa.Check.str_matches("a|b[0-9]$"), pa.Check.str_contains("b"), pa.Check.str_startswith("ab"),
        pa.Check.str_endswith("b"), pa.Check.str_length(1, 2), pa.Check.str_length(max_value=1),
        pa.Check.isin(["a", "ab"]), pa.Check.str_matches(re.compile(r"\w\w")),
    ],
}  # fmt: skip
KINDS = {"value": float, "number": "int64", "text": str}
EACH = [(column, check) for column, checks in CHECKS.items() for check in checks]


def source(*schemas: Any, columns: dict[str, Any] | None = None, **more: Any) -> Source:
    return Source("facts", schema=columns or COLUMNS, event_time="at", checks=schemas, **more)


def failing(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> set[int]:
    """Return the places of the rows that pandera itself finds wrong."""
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        return {int(place) for place in errors.failure_cases["index"]}
    return set()


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize(("column", "check"), EACH, ids=[f"{column} {check.error}" for column, check in EACH])
def test_pandera_and_the_table_agree_row_by_row(column: str, check: Any, nullable: bool) -> None:
    schema = pa.DataFrameSchema({column: pa.Column(KINDS[column], check, nullable=nullable)})
    landing = Landing(source(schema))
    landing.ingest(FRAME)
    quarantined = {int(row["number"]) for row in landing.quarantined()}
    assert quarantined == failing(schema, FRAME)
    assert 0 < len(quarantined) < len(FRAME)


def test_a_whole_schema() -> None:
    schema = pa.DataFrameSchema(
        {
            "at": pa.Column("datetime64[us, UTC]"),
            "number": pa.Column(int, pa.Check.lt(8), unique=True),
            "^(text|flag)$": pa.Column(None, regex=True, nullable=True),
            "unheard_of": pa.Column(int, required=False),
        },
        unique=["text", "flag"],
    )
    declared = source(schema)
    assert declared.checks == (
        Check("not_null", ("at",)),
        Check("not_null", ("number",)),
        Check("unique", ("number",)),
        Check("in_range", ("number",), high=8, high_open=True),
        Check("unique", ("text", "flag")),
    )
    landing = Landing(declared)
    again = pd.concat([FRAME, FRAME.assign(number=[9, 0, 1, 2, 3, 4, 5, 6, 7])])
    report = landing.ingest(again)
    assert report.rows == 8
    assert report.reasons == {"fails number in [-inf, 8)": 2, "fails unique(number)": 8, "fails unique(text, flag)": 6}


class Facts(pa.DataFrameModel):
    text: str = pa.Field(str_length={"max_value": 2}, nullable=True)
    value: float = pa.Field(ge=0, nullable=True)


class Odd(pa.DataFrameModel):
    text: str

    @pa.check("text")
    def is_odd(cls, series: Any) -> Any:
        return series == "odd"


def test_a_model_is_a_schema() -> None:
    assert source(Facts).checks == (
        Check("length", ("text",), high=2),
        Check("in_range", ("value",), low=0),
    )
    with pytest.raises(Invalid, match=r"the check .*is_odd.* of column 'text'"):
        source(Odd)


def test_a_schema_of_polars_is_a_schema() -> None:
    schema = pp.DataFrameSchema(
        {
            "text": pp.Column(pl.String, pp.Check.str_matches("a"), nullable=True),
            "number": pp.Column(pl.Int64, [pp.Check.ge(0), pp.Check.isin([1, 2])]),
            "at": pp.Column(pl.Datetime("us", "UTC")),
        }
    )
    kinds = [(check.kind, check.columns) for check in source(schema).checks]
    assert kinds == [
        ("begins_with_match", ("text",)),
        ("not_null", ("number",)),
        ("in_range", ("number",)),
        ("one_of", ("number",)),
        ("not_null", ("at",)),
    ]


def test_it_stands_beside_our_own_checks() -> None:
    declared = source(Check("not_null", ("text",)), pa.DataFrameSchema({"flag": pa.Column(bool)}))
    assert declared.checks == (Check("not_null", ("text",)), Check("not_null", ("flag",)))


def test_a_column_that_may_not_be_null_may_not_be_nan() -> None:
    landing = Landing(source(pa.DataFrameSchema({"value": pa.Column(float)})))
    landing.ingest([{"at": 0, "value": value, "number": 0, "text": "", "flag": True} for value in (1.0, float("nan"))])
    assert len(landing.landed()) == 1


def column(kind: Any = None, *checks: Any, **more: Any) -> pa.DataFrameSchema:
    return pa.DataFrameSchema({"number": pa.Column(kind, list(checks), **more)})


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (column(None, pa.Check(lambda series: series > 1, name="larger")), "the check larger of column 'number'"),
        (column(None, pa.Check(lambda series: series > 1, name="isin")), "the check isin of column 'number'"),
        (column(None, pa.Check.unique_values_eq([1])), "the check unique_values_eq([1]) of column 'number'"),
        (column(None, pa.Check.ge(1, raise_warning=True)), "only warns"),
        (column(None, pa.Check.ge("a")), "'a' is not a number"),
        (column(str), "column 'number' is string"),
        (column("int32"), "column 'number' is int32, but the source declares int64"),
        (column(None, default=3), "the default 3"),
        (column(None, parsers=pa.Parser(lambda series: series)), "column 'number' has parsers"),
        (pa.DataFrameSchema({"nothing": pa.Column(int)}), "a column 'nothing', which the source lacks"),
        (pa.DataFrameSchema({"number": pa.Column(int)}, strict=True), "it is strict, but lacks the columns"),
        (pa.DataFrameSchema({"number": pa.Column(int)}, ordered=True), "an order of columns"),
        (pa.DataFrameSchema({"number": pa.Column(int)}, index=pa.Index(int)), "an index"),
        (pa.DataFrameSchema(checks=pa.Check(lambda frame: True, name="whole")), "the check whole of the whole frame"),
        (pa.DataFrameSchema(unique=["nothing"]), "rows differ in ['nothing']"),
        (pa.DataFrameSchema({"at": pa.Column("datetime64[ns]")}), "which has no time zone"),
        (pa.DataFrameSchema({"text": pa.Column(str, pa.Check.str_matches(r"(a)\1"))}), r"has \1"),
        (pa.DataFrameSchema({"text": pa.Column(str, pa.Check.str_matches(re.compile("a", re.I)))}), "its flags"),
        (pa.DataFrameSchema({"text": pa.Column(None, pa.Check.ge(1))}), "text is a string"),
        (pa.Check.ge(1), "as a check"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(schema: Any, said: str) -> None:
    with pytest.raises(Invalid, match=re.escape(said)) as caught:
        source(schema)
    assert caught.value.fix


def test_types_may_differ_where_pandera_would_coerce() -> None:
    columns = {"small": Int32, "single": Float32, "when": Timestamp}
    schema = pa.DataFrameSchema(
        {"small": pa.Column("int64", nullable=True), "single": pa.Column(float, nullable=True)}, coerce=True
    )
    with pytest.raises(Invalid, match="declares int32"):
        source(schema, columns=columns)
    schema = pa.DataFrameSchema({"small": pa.Column("int64", coerce=True, nullable=True)})
    assert source(schema, columns=columns).checks == ()


def test_nulls_fail_where_they_are_compared() -> None:
    schema = pa.DataFrameSchema({"text": pa.Column(str, pa.Check.isin(["a"], ignore_na=False), nullable=True)})
    assert [check.kind for check in source(schema).checks] == ["one_of", "not_null"]


def test_pandera_is_not_needed_where_it_is_not_used() -> None:
    code = (
        "import sys; sys.modules['pandera'] = None\n"
        "import mainspring as ms\n"
        "ms.Source('facts', schema={'x': ms.String}, event_time='at', checks=[ms.not_null('x')])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_instants_of_pandas_are_instants() -> None:
    assert FRAME["at"][0] == datetime(1970, 1, 1, tzinfo=UTC)
