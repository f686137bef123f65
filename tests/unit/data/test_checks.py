"""Rules beyond the first ones, each against what Python says of the same values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.landing import Landing
from mainspring.core.errors import Invalid
from mainspring.core.schema import Float64, Int64, String
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT
from mainspring.data.model import Check, Source, in_range, length, matches, none_of, not_null
from mainspring.data.quality import certainly_pass, row_rules

TEXTS = ["", "a", "ab", "abc", "abcd", "é", "👨‍👩‍👧", "A1", "a1\n", "1a", "'", "٣"]
NUMBERS = [-1, 0, 1, 2, 3, 10]


@pytest.mark.parametrize(
    ("check", "passes"),
    [
        (matches("x", r"[a-z]\d"), lambda text: re.fullmatch(r"[a-z]\d", text)),
        (matches("x", r"a.*|\d"), lambda text: re.fullmatch(r"a.*|\d", text)),
        (Check("begins_with_match", ("x",), pattern="a|1"), lambda text: re.match("a|1", text)),
        (Check("contains_match", ("x",), pattern="b$"), lambda text: re.search("b$", text)),
        (length("x", 1, 3), lambda text: 1 <= len(text) <= 3),
        (length("x", high=2), lambda text: len(text) <= 2),
        (length("x", 5, 5), lambda text: len(text) == 5),
        (Check("starts_with", ("x",), values=("ab",)), lambda text: text.startswith("ab")),
        (Check("ends_with", ("x",), values=("'",)), lambda text: text.endswith("'")),
        (none_of("x", ["a", "'"]), lambda text: text not in ("a", "'")),
        (none_of("x", []), lambda _: True),
    ],
)
def test_text(check: Check, passes: Callable[[str], Any]) -> None:
    landing = Landing(Source("facts", schema={"x": String}, event_time="at", checks=[check]))
    landing.ingest([{"at": 0, "x": text} for text in [*TEXTS, None]])
    assert [row["x"] for row in landing.landed()] == [text for text in TEXTS if passes(text)] + [None]
    failed = landing.quarantined()
    assert {row["_reason"] for row in failed} == ({f"fails {check}"} if failed else set())


@pytest.mark.parametrize(
    ("check", "passes"),
    [
        (Check("in_range", ("x",), low=0, low_open=True), lambda number: number > 0),
        (Check("in_range", ("x",), high=2, high_open=True), lambda number: number < 2),
        (Check("in_range", ("x",), low=0, high=2, low_open=True), lambda number: 0 < number <= 2),
        (none_of("x", [1, 10]), lambda number: number not in (1, 10)),
    ],
)
@pytest.mark.parametrize("dtype", [Int64, Float64])
def test_numbers(check: Check, passes: Callable[[int], Any], dtype: Any) -> None:
    landing = Landing(Source("facts", schema={"x": dtype}, event_time="at", checks=[check]))
    landing.ingest([{"at": 0, "x": number} for number in [*NUMBERS, None]])
    assert [row["x"] for row in landing.landed()] == [number for number in NUMBERS if passes(number)] + [None]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (matches("x", "("), "is not a regular expression"),
        (matches("x", r"(a)\1"), r"has \1"),
        (matches("n", "a"), "n is a int64"),
        (length("n", 1), "n is a int64"),
        (none_of("n", ["a"]), "which 'a' is not"),
        (none_of("y", ["a"]), "no column 'y'"),
        ("x > 3", "has 'x > 3' as a check"),
    ],
)
def test_what_cannot_be_kept_is_refused_when_declared(check: Any, said: str) -> None:
    with pytest.raises(Invalid, match=re.escape(said)):
        Source("facts", schema={"x": String, "n": Int64}, event_time="at", checks=[check])


def test_how_checks_are_written() -> None:
    written = [
        str(check)
        for check in (
            Check("in_range", ("x",), low=0, high_open=True, high=3),
            length("x", 1),
            matches("x", "a+"),
            Check("starts_with", ("x",), values=("a",)),
            none_of("x", ["a", 1.5, True]),
        )
    ]
    assert written == [
        "x in [0, 3)",
        "length(x) in [1, inf]",
        "x matches 'a+'",
        "x starts with 'a'",
        'x none of "a", 1.5, true',
    ]


BOUNDS = st.none() | st.sampled_from([-2.0, 0.0, 1.5, 2.0**53])
INSTANTS = st.sampled_from([None, 0, FIRST_INSTANT - 1, FIRST_INSTANT, LAST_INSTANT, LAST_INSTANT + 1])


@given(
    st.lists(st.tuples(
        st.none() | st.floats(width=32), st.none() | st.sampled_from([-3, 0, 2, 2**53, 2**53 + 1]), INSTANTS
    ), max_size=3),
    BOUNDS, BOUNDS, st.booleans(), st.sampled_from(["a", "b"]), st.booleans(),
)  # fmt: skip
@example([(1.0, 2, 0)], 0.0, 2.0**53, False, "a", True)
@example([(float("nan"), 2, 0)], None, None, False, "a", True)
def test_rows_that_certainly_pass_fail_no_rule(
    values: list[tuple[Any, ...]], low: Any, high: Any, is_open: bool, column: str, is_present: bool
) -> None:
    checks = [in_range(column, low, high), *([not_null("b")] if is_present else [])]
    if is_open:
        checks.append(Check("in_range", (column,), low=0.0, low_open=True))
    source = Source("facts", schema={"a": Float64, "b": Int64}, event_time="at", checks=checks)
    a, b, at = ([row[place] for row in values] for place in range(3))
    instants = pa.array(at, pa.int64()).view(pa.timestamp("us", "UTC"))
    rows = pa.table({"a": pa.array(a, pa.float64()), "b": pa.array(b, pa.int64()), "at": instants})
    with duckdb.connect() as con:
        con.register("facts", rows)
        fails = [f'coalesce(NOT epoch_us("at") BETWEEN {FIRST_INSTANT} AND {LAST_INSTANT}, false)']
        fails += [condition for _, condition, _ in row_rules(source)]
        (failing,) = con.sql(f"SELECT count(*) FROM facts WHERE {' OR '.join(fails)}").fetchall()[0]
    if is_open:
        assert not certainly_pass(rows, source)
    else:  # of ranges and nulls the extremes tell all
        assert certainly_pass(rows, source) == (failing == 0)
