"""Formulas read as they compute."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from kit.console.shop import Orders
from mainspring.core.expr import Node, as_expr
from mainspring.features.describe.wording import definition, wording


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (ms.col("delay") > 15, "delay > 15"),
        ((ms.col("a") > 1) & (ms.col("b") == "x"), 'a > 1 and b = "x"'),
        (~(ms.col("a").is_null() | ms.col("b")), "not (a is null or b)"),
        (ms.col("a") - (ms.col("b") - 1), "a − (b − 1)"),
        (-(ms.col("a") + 1), "−(a + 1)"),
        (ms.col("at") - ms.hours(2), "at − 2h"),
        (ms.col("at").hour("America/New_York"), "hour(at, America/New_York)"),
        (ms.col("a").cast(ms.Float64) / 2, "float64(a) / 2"),
        (ms.when(ms.col("a") > 0, "up", "down"), '"up" if a > 0 else "down"'),
        (ms.col("a").one_of(["x", "y"]), 'a in ["x", "y"]'),
        (ms.col("a").coalesce(0), "coalesce(a, 0)"),
        (ms.col("name").lower(), "lower(name)"),
    ],
)
def test_an_expression(expression: Node, said: str) -> None:
    assert wording(expression) == said


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ("orders_24h", "count()"),
        ("spent_7d", "sum(amount)"),
        ("status", "last(status)"),
        ("paid_share", "paid_24h / orders_24h"),
    ],
)
def test_a_feature(feature: str, said: str) -> None:
    assert definition(Orders, feature) == said


def test_one_of_several_is_told_from_the_others() -> None:
    @ms.feature_view(entity=Orders.entity, source=Orders.source)
    class Several:
        amounts = ms.last_k("amount", 2, window="1d")
        amount = ms.quantiles("amount", [0.5, 0.95], window="1d")
        status = ms.top_k("status", 1, window="1d")
        buyers = ms.distinct("email", window="1d")

    assert [definition(Several, name) for name in Several.names] == [
        "newest(amount, 1)",
        "newest(amount, 2)",
        "quantile(amount, 0.5)",
        "quantile(amount, 0.95)",
        "top(status, 1)",
        "distinct(email)",
    ]


@pytest.mark.parametrize("depth", [5, 5000])
def test_it_ends(depth: int) -> None:
    expression: Any = ms.col("a")
    for _ in range(depth):
        expression = expression + 1
    assert wording(expression).endswith(" + 1")


numbers = st.recursive(
    st.integers(1, 9) | st.sampled_from("abc"),
    lambda inner: st.tuples(st.sampled_from(("+", "-", "*", "/", "neg")), inner, inner),
    max_leaves=12,
)


@given(numbers)
def test_arithmetic_means_what_it_says(tree: Any) -> None:
    """Python's own rules of precedence read the formula as the tree it came from."""
    values = {"a": 2.5, "b": -3.0, "c": 7.0}
    formula = wording(as_expr(_expression(tree))).replace("−", "-").replace("×", "*")
    assert re.fullmatch(r"[\dabc+\-*/() ]+", formula)
    try:
        expected = _value(tree, values)
    except ZeroDivisionError:
        return
    assert eval(formula, {}, values) == pytest.approx(expected)


def _expression(tree: Any) -> Any:
    if isinstance(tree, int):
        return as_expr(tree)
    if isinstance(tree, str):
        return ms.col(tree)
    left, right = _expression(tree[1]), _expression(tree[2])
    if tree[0] == "neg":
        return -left
    return {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[tree[0]]


def _value(tree: Any, values: dict[str, float]) -> float:
    if not isinstance(tree, tuple):
        return values[tree] if isinstance(tree, str) else tree
    left, right = _value(tree[1], values), _value(tree[2], values)
    if tree[0] == "/":
        return left / right
    return {"+": left + right, "-": left - right, "*": left * right, "neg": -left}[tree[0]]
