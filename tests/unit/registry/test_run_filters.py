"""The filter language: MLflow's own, the short ways, and what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, MINUTE, parse_instant
from mainspring.registry.run_filters import Filter, Unreadable, parse_filter, parse_order
from mainspring.registry.searching import Column, Condition, Kind, Order

NOW = parse_instant("2026-03-01T12:00:00Z")
AUC, DEPTH = Column(Kind.METRIC, "auc"), Column(Kind.PARAM, "depth")
STATUS, STARTED = Column(Kind.ATTRIBUTE, "status"), Column(Kind.ATTRIBUTE, "started")


def read(text: str) -> Filter:
    return parse_filter(text, NOW)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("metrics.auc > 0.8", Condition(AUC, ">", 0.8)),
        ("metric.auc>=1", Condition(AUC, ">=", 1.0)),
        ("auc > .8e0", Condition(AUC, ">", 0.8)),
        ("auc < -0.5", Condition(AUC, "<", -0.5)),
        ("metrics.`val loss` != 3", Condition(Column(Kind.METRIC, "val loss"), "!=", 3.0)),
        ('metrics."val/loss" = 3', Condition(Column(Kind.METRIC, "val/loss"), "=", 3.0)),
        ("metrics.val/loss=3", Condition(Column(Kind.METRIC, "val/loss"), "=", 3.0)),
        ("params.depth = '3'", Condition(DEPTH, "=", "3")),
        ("params.depth == 3", Condition(DEPTH, "=", 3.0)),
        ("parameters.depth LIKE '%3'", Condition(DEPTH, "like", "%3")),
        ("params.depth ~ 3", Condition(DEPTH, "contains", "3")),
        ("optimizer = adam", Condition(Column(Kind.PARAM, "optimizer"), "=", "adam")),
        ('tags."mainspring.seed" = "7"', Condition(Column(Kind.TAG, "mainspring.seed"), "=", "7")),
        ("tags.mainspring.seed = '7'", Condition(Column(Kind.TAG, "mainspring.seed"), "=", "7")),
        ("tags.note is null", Condition(Column(Kind.TAG, "note"), "is null")),
        ("tags.note IS NOT NULL", Condition(Column(Kind.TAG, "note"), "is not null")),
        ("attributes.status = 'FINISHED'", Condition(STATUS, "=", "FINISHED")),
        ("status != failed", Condition(STATUS, "!=", "FAILED")),
        ("status in (failed, 'KILLED')", Condition(STATUS, "in", ("FAILED", "KILLED"))),
        ("status not in ('FAILED')", Condition(STATUS, "not in", ("FAILED",))),
        ("attributes.start_time > 1664067852747", Condition(STARTED, ">", 1664067852747000)),
        ("started >= 2026-01-31", Condition(STARTED, ">=", parse_instant("2026-01-31"))),
        ("started > 7d ago", Condition(STARTED, ">", NOW - 7 * DAY)),
        ("started > today", Condition(STARTED, ">", parse_instant("2026-03-01"))),
        ("duration > 90m", Condition(Column(Kind.ATTRIBUTE, "duration"), ">", 90 * MINUTE)),
        ("run_name ilike 'Swift%'", Condition(Column(Kind.ATTRIBUTE, "name"), "ilike", "Swift%")),
        ("experiment = late", Condition(Column(Kind.ATTRIBUTE, "model"), "=", "late")),
    ],
)
def test_a_comparison(text: str, condition: Condition) -> None:
    assert read(text) == Filter((condition,))
    assert read(str(condition)) == Filter((condition,))


def test_words_and_comparisons_in_any_order() -> None:
    found = read("swift metrics.auc > 0.8 AND params.depth = 3, 'two words' is")
    assert found.conditions == (Condition(AUC, ">", 0.8), Condition(DEPTH, "=", 3.0))
    assert found.words == ("swift", "two words", "is")
    assert read("") == read("  ") == Filter()


def test_a_name_without_a_kind_is_what_the_store_knows() -> None:
    known = {"depth": (Kind.PARAM,), "auc": (Kind.METRIC, Kind.PARAM), "note": (Kind.TAG,)}
    found = parse_filter("depth = 3 auc = 3 note = x strange = 3", NOW, lambda name: known.get(name, ()))
    assert [str(condition.column) for condition in found.conditions] == [
        "params.depth", "metrics.auc", "tags.note", "metrics.strange",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said", "at"),
    [
        ("metrics.auc >", "ends where a value", 13),
        ("metrics.auc > high", "'high' is not a number", 14),
        ("metrics.auc like '%3'", "cannot compare", 17),
        ("status = done", "No run has the status 'done'", 9),
        ("attributes.colour = 'x'", "no attribute 'colour'", 0),
        ("params.a = 'x", "A quote is not closed", 11),
        ("metrics.auc > 0.8 or params.a = 1", "does not support `or`", 18),
        ("> 3", "stands alone", 0),
        ("metrics. > 3", "A name is missing", 0),
        ("status in ()", "A list is missing", 10),
        ("metrics.auc in (1)", "needs text", 0),
        ("params.a is nothing", None, 0),
        ("started > yesterday", "not an ISO 8601 time", 10),
        ("duration > long", "not a duration", 11),
        ("a ! b", "'!' cannot be read", 2),
        ("a\x00", "invisible character", 1),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_write(text: str, said: str | None, at: int) -> None:
    if said is None:
        assert read(text).words == ("params.a", "is", "nothing")
        return
    with pytest.raises(Unreadable, match=said) as raised:
        read(text)
    assert raised.value.at == at
    assert raised.value.fix


def test_too_long() -> None:
    with pytest.raises(Unreadable, match="too long"):
        read("a" * 2001)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("started", Order(STARTED, False)),
        ("-started", Order(STARTED, True)),
        ("metrics.auc desc", Order(AUC, True)),
        ("auc ASC", Order(AUC, False)),
        ("params.depth", Order(DEPTH, False)),
        ('metrics."val loss" desc', Order(Column(Kind.METRIC, "val loss"), True)),
        ("attributes.start_time DESC", Order(STARTED, True)),
    ],
)
def test_an_order(text: str, order: Order) -> None:
    assert parse_order(text) == order


@pytest.mark.parametrize("text", ["", " ", "-", "attributes.colour", "metrics.a\x00"])
def test_no_order(text: str) -> None:
    with pytest.raises(Invalid):
        parse_order(text)


@given(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)
    | st.text("ab.=<>!~()', \"`0is nulotike", max_size=30)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read(text)
    except Unreadable as error:
        assert 0 <= error.at <= len(text)  # noqa: PT017
        return
    # What was read is written so that it is read again.
    if not any("'" in word or '"' in str(found) or "`" in str(found) for word in (*found.words, str(found))):
        assert read(str(found)) == found
