from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from mainspring.core.errors import Invalid
from mainspring.core.expr import Call, Cast, Literal, Node, TimePart, as_expr, col, days, hours, least, when
from mainspring.core.expr.render import render
from mainspring.core.expr.types import columns_of, dtype_of
from mainspring.core.schema import DType
from mainspring.core.time import from_datetime

SCHEMA = {
    "x": DType.Float32,
    "y": DType.Float64,
    "i": DType.Int32,
    "j": DType.Int64,
    "s": DType.String,
    "b": DType.Boolean,
    "t": DType.Timestamp,
}
x, y, i, j, s, b, t = (col(name) for name in SCHEMA)


@pytest.mark.parametrize(
    ("expr", "dtype"),
    [
        (x, DType.Float32),
        (as_expr(True), DType.Boolean),
        (as_expr(1), DType.Int64),
        (x + 1, DType.Float64),
        (i + 1, DType.Int64),
        (i / 2, DType.Float64),
        (-x, DType.Float32),
        (abs(i), DType.Int64),
        (x > 15, DType.Boolean),
        (t - hours(2), DType.Timestamp),
        (hours(2) + t, DType.Timestamp),
        (t - t, DType.Duration),
        ((t - t) / hours(1), DType.Float64),
        (hours(1) * i, DType.Duration),
        (-days(1), DType.Duration),
        (t - t > days(1), DType.Boolean),
        (x.coalesce(0), DType.Float32),
        (x.coalesce(0.5), DType.Float32),
        (x.coalesce(0.1), DType.Float64),
        (i.coalesce(0), DType.Int32),
        (i.coalesce(2**31), DType.Int64),
        (i.coalesce(j), DType.Int64),
        (j.coalesce(x), DType.Float64),
        (when(b, x), DType.Float32),
        (when(b, None, s), DType.String),
        (s.length(), DType.Int32),
        (t.hour("America/New_York"), DType.Int32),
        (x.is_null(), DType.Boolean),
        (s.one_of(["a"]), DType.Boolean),
        (s.cast(DType.Float32), DType.Float32),
        (t.cast(DType.Int64).cast(DType.Timestamp), DType.Timestamp),
        (Literal(None, DType.String), DType.String),
    ],
)
def test_types_follow_the_rules(expr: Node, dtype: DType) -> None:
    assert dtype_of(expr, SCHEMA) is dtype


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        (col("nope") + 1, r"no column 'nope'.*the columns are \['b', 'i'"),
        (s + 1, r"add does not take String and Int64, in \(col\('s'\) \+ 1\)"),
        (b + b, "add does not take Boolean and Boolean"),
        (s > 1, "gt does not take String and Int64"),
        (t > 1, "gt does not take Timestamp and Int64"),
        (t + t, "add does not take Timestamp and Timestamp"),
        (hours(1) - t, "sub does not take Duration and Timestamp"),
        (hours(1) * hours(1), "mul does not take Duration and Duration"),
        (hours(1) * 1.5, "mul does not take Duration and Float64"),
        (~x, "not does not take Float32"),
        (b & 1, "and does not take Boolean and Int64"),
        (-s, "neg does not take String"),
        (x.lower(), "lower does not take Float32"),
        (s.hour(), "hour does not take String"),
        (TimePart(t, "fortnight", "UTC"), "fortnight does not take Timestamp"),
        (t.start_of("minute"), "start_of_minute does not take Timestamp"),
        (s.start_of("day"), "start_of_day does not take String"),
        (x.contains("a"), "contains does not take Float32 and String"),
        (s.replace("a", 1), "replace does not take String and String and Int64"),
        (s.sqrt(), "sqrt does not take String"),
        (t.floor(), "floor does not take Timestamp"),
        (s.is_nan(), "is_nan does not take String"),
        (s + t, "add does not take String and Timestamp"),
        (s.slice(-1), r"slice\(col\('s'\), -1\) must be cut at whole numbers"),
        (s.slice(0, True), "must be cut at whole numbers"),
        (x.slice(1), "slice does not take Float32"),
        (s.clip(1, 2), "clip does not take String"),
        (x.clip("a"), "a bound that is not a number"),
        (x.clip(col("y")), "depends on a value that is not constant"),
        (x.clip(2, 1), "its bounds in the wrong order"),
        (least(x, s), "least does not take Float32 and String"),
        (t.hour("Mars/Olympus"), "'Mars/Olympus' is not a time zone"),
        (when(x, 1, 2), "when does not take Float32"),
        (when(b, 1, "one"), "when does not take Int64 and String"),
        (when(b, None, None), "always null"),
        (x.coalesce(s), "coalesce does not take Float32 and String"),
        (x == None, "None is used where a value is required"),  # noqa: E711
        (s.one_of(["a", None]), "null never equals anything"),
        (s.one_of([1]), "one_of does not take String and Int64"),
        (s.cast(DType.Timestamp), "cast does not take String to Timestamp"),
        (x.cast(DType.String), "cast does not take Float32 to String"),
        (as_expr(2**63), "9223372036854775808 is not a Int64"),
        (Literal(1.5, DType.Int32), "1.5 is not a Int32"),
        (Literal(True, DType.Int32), "True is not a Int32"),
        (Literal(float("nan")), "nan is not a Float64"),
        (Literal(10**18, DType.Timestamp), "is not a Timestamp"),
        (as_expr("\ud800"), "is not a String"),
        (Call("explode", (x,)), "no function 'explode' of 1 arguments"),
        (Call("add", (x,)), "no function 'add' of 1 arguments"),
        (Call("one_of", ()), "no function 'one_of' of 0 arguments"),
    ],
)
def test_what_does_not_fit_is_named(expr: Any, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        dtype_of(expr, SCHEMA)


@pytest.mark.parametrize("source", list(DType))
def test_every_type_is_cast_to_itself_and_back_from_where_it_can_go(source: DType) -> None:
    assert dtype_of(Cast(Literal(None, source), source), {}) is source
    assert dtype_of(Cast(Cast(Literal(None, source), DType.Int64), source), {}) is source


def test_a_tree_too_deep_is_refused() -> None:
    deep: Any = x
    for _ in range(20_000):
        deep = -deep
    with pytest.raises(Invalid, match="nested too deeply"):
        dtype_of(deep, SCHEMA)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), [1]])
def test_only_plain_finite_constants_stand_in_an_expression(value: Any) -> None:
    with pytest.raises(Invalid, match="cannot be used in an expression"):
        x + value


def test_an_expression_has_no_truth_value() -> None:
    with pytest.raises(Invalid, match="combine conditions with &"):
        bool(x > 1)


def test_columns_are_named_once() -> None:
    assert columns_of(when(b & (x > y), x + 1, t.hour().cast(DType.Float64))) == {"b", "x", "y", "t"}
    assert columns_of(as_expr(1)) == set()


def test_expressions_are_shown_as_they_are_written() -> None:
    assert render(when(~b, -x + 1, y.coalesce(0.5))) == "when(~col('b'), (-col('x') + 1), coalesce(col('y'), 0.5))"
    assert render(s.slice(1, 2) + least(s, "x")) == "(slice(col('s'), 1, 2) + least(col('s'), 'x'))"
    assert render((t - hours(2)).hour("UTC").cast(DType.Int64)) == "(col('t') - 2h).hour('UTC').cast(Int64)"
    long: Any = x
    for _ in range(100):
        long = long + 1
    assert len(render(long)) <= 120


def test_an_aware_datetime_is_an_instant() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=1)))
    early = t < noon
    assert dtype_of(early, SCHEMA) is DType.Boolean
    assert render(early) == "(col('t') < 2026-01-31T11:00:00Z)"
    assert msgspec.json.decode(msgspec.json.encode(early), type=Node).arguments[1].value == from_datetime(noon)
    assert dtype_of(t.one_of([noon]), SCHEMA) is DType.Boolean
    with pytest.raises(Invalid, match="no UTC offset"):
        as_expr(noon.replace(tzinfo=None))
