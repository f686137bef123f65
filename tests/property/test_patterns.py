"""Patterns: what Python's `re` matches, DuckDB matches, or the pattern is refused."""

from __future__ import annotations

import re
import warnings

import duckdb
import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given, settings

from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import quote_text
from mainspring.data.patterns import ANYWHERE, START, WHOLE, to_re2

PYTHON = {WHOLE: re.fullmatch, START: re.match, ANYWHERE: re.search}
SIGNS = ["a", "b", "B", "_", "-", "]", "[", "^", "{", "}", "1", "٣", "é", "\n", " ", "\u00a0", "½", "漢", "'", ".", "$"]
ATOMS = [
    "a", "b", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab]", "[^a]", r"[\d_]", r"[^\w]", r"[\s-]", "[]a]",
    "[^]a]", "[a-b[]", r"\.", r"\n", r"\x61", r"\u00e9", "é", "漢", "'", "{", "a{,2}", "x{y}", r"\-", r"\$", " ", "-",
    "[.$^|(]", r"[\]\\]",
]  # fmt: skip

atoms = st.sampled_from(ATOMS)


def more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map("({})".format),
        inner.map("(?:{})".format),
        inner.map("(?P<n>{})".format),
        st.tuples(
            inner.map("(?:{})".format), st.sampled_from(["*", "+", "?", "*?", "+?", "{2}", "{1,}", "{0,3}?"])
        ).map("".join),
    )


patterns = st.tuples(
    st.sampled_from(["", "(?i)", "(?s)", "^", r"\A"]),
    st.recursive(atoms, more, max_leaves=6),
    st.sampled_from(["", "$", r"\Z"]),
).map("".join)
texts = st.lists(st.sampled_from(SIGNS), max_size=6).map("".join)


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as connection:
        yield connection


@settings(max_examples=examples(gate=100, deep=400), deadline=None)
@example(pattern="a$", text="a\n", where=WHOLE)
@example(pattern="a$", text="a\n", where=START)
@example(pattern="a|b$", text="b\n", where=ANYWHERE)
@example(pattern=r"\d", text="٣", where=WHOLE)
@example(pattern=r"[\w]+", text="½漢é_", where=WHOLE)
@example(pattern=r"\s", text="\u00a0", where=WHOLE)
@example(pattern="a|ab", text="ab", where=WHOLE)
@given(pattern=patterns, text=texts, where=st.sampled_from([WHOLE, START, ANYWHERE]))
def test_what_python_matches_duckdb_matches(con, pattern: str, text: str, where: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            re.compile(pattern)
        except re.error:
            assume(False)
        try:
            translated = to_re2(pattern, where)
        except Invalid:
            assume(False)
        expected = PYTHON[where](pattern, text) is not None
    found = con.execute(f"SELECT regexp_matches({quote_text(text)}, {quote_text(translated)})").fetchone()
    assert found == (expected,), translated


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("a(?=b)", "(?=b..."),
        ("(?<!a)b", "(?<!..."),
        (r"(a)\1", r"\1"),
        ("(?P<x>a)(?P=x)", "(?P=..."),
        (r"\bword", r"\b"),
        (r"[\D]", r"\D between brackets"),
        ("a$b", "$ before its end"),
        ("(?m)^a", "(?m)"),
        ("a{1001}", "1,000"),
        ("a++", "gives nothing back"),
        ("(?>a)", "(?>a"),
        ("a{,}", "{,}"),
        ("a(", "is not a regular expression"),
    ],
)
def test_what_is_not_the_same_is_refused(pattern: str, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        to_re2(pattern)
    assert what in caught.value.what
    assert caught.value.fix
