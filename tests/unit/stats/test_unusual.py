"""Unusual rows: the share of usual rows that is taken for unusual, and what is found, against the definition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.stats.unusual import Detector, Scoring, calibrated, fit, least_share

ROWS = 1_999


def table(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """Return two features that nearly repeat each other, a skewed one, a text, a constant and one with nulls."""
    first = rng.normal(50, 10, rows)
    gone = rng.random(rows) < 0.3
    return {
        "hours": first,
        "minutes": 60 * first + rng.normal(0, 5, rows),
        "amount": rng.lognormal(3, 1, rows),
        "shop": np.array(["bakery", "grocer", "florist"], object)[rng.integers(0, 3, rows)],
        "constant": np.full(rows, 7.0),
        "sometimes": np.where(gone, None, rng.normal(0, 1, rows)),
    }


def fitted(seed: int = 0, rows: int = ROWS) -> Scoring:
    rng = np.random.default_rng(seed)
    found = fit(table(rng, 5_000))
    assert found is not None
    return calibrated(found, table(rng, rows))


def row(columns: Mapping[str, Any], place: int = 0, **changed: Any) -> dict[str, list[Any]]:
    """Return one row of a table as a request has it: lists."""
    return {name: [changed.get(name, column[place])] for name, column in columns.items()}


@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.001, 0.0015, 0.01, 0.1]), rows=st.integers(1, 1_500))
@settings(max_examples=examples(gate=10, deep=200), deadline=None)
def test_a_row_is_unusual_exactly_if_its_conformal_p_value_is_at_most_the_share(
    seed: int, share: float, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    scoring = fit(table(rng, 500))
    assert scoring is not None
    others = table(rng, rows)
    kept, of_others = Detector(calibrated(scoring, others), share), Detector(scoring).scores(others, rows)
    asked = table(rng, 300)
    p = [
        [(1 + np.sum(known >= each)) / (rows + 1) for each in of_asked]
        for known, of_asked in zip(of_others, Detector(scoring).scores(asked, 300), strict=True)
    ]
    wanted = {place for place, both in enumerate(zip(*p, strict=True)) if min(both) <= share / 2 + 1e-12}
    assert set(kept.unusual(asked, 300)) == wanted


def test_usual_rows_are_taken_for_unusual_as_seldom_as_promised() -> None:
    found = [
        len(Detector(fitted(seed), 0.01).unusual(table(np.random.default_rng(1_000 + seed), 2_000), 2_000)) / 2_000
        for seed in range(12)
    ]
    # The share of one calibration varies by sqrt(share / rows), which is 0.3 %; values beyond all before are rarer.
    assert 0.003 < np.mean(found) < 0.01 + 4 * 0.0032 / math.sqrt(12)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"amount": 1e9}, "amount"),
        ({"amount": -500.0}, "amount"),
        ({"hours": math.inf}, "hours"),
        ({"hours": 70.0, "minutes": 1_800.0}, None),  # each within its range, and never together
        ({"shop": "casino"}, "shop"),
        ({"shop": None}, "shop"),
        ({"amount": None}, "amount"),
        ({"constant": 8.0}, "constant"),
    ],
)
def test_what_never_occurred_is_found_and_named(changed: dict[str, Any], named: str | None) -> None:
    detector, columns = Detector(fitted()), table(np.random.default_rng(9), 1)
    assert detector.unusual(row(columns), 1) == {}
    [(place, feature)] = detector.unusual(row(columns, **changed), 1).items()
    assert place == 0
    assert feature in ({"hours", "minutes"} if named is None else {named})


def test_what_is_often_null_may_be() -> None:
    columns = table(np.random.default_rng(9), 1)
    assert Detector(fitted()).unusual(row(columns, sometimes=None), 1) == {}
    assert Detector(fitted()).unusual(row(columns, sometimes=math.nan), 1) == {}


def test_too_few_calibration_rows_for_a_share_find_nothing() -> None:
    scoring = fitted(rows=49)
    assert least_share(scoring) == pytest.approx(0.04)
    far = row(table(np.random.default_rng(9), 1), amount=1e9)
    assert Detector(scoring, 0.001).unusual(far, 1) == {}
    assert Detector(scoring, 0.04).unusual(far, 1) == {0: "amount"}
    assert Detector(msgspec.structs.replace(scoring, highest=(b"", b""), rows=0), 0.1).unusual(far, 1) == {}


def test_it_survives_being_written_and_columns_that_repeat_each_other() -> None:
    rng = np.random.default_rng(3)
    same = rng.normal(size=400)
    columns = {"a": same, "b": same, "c": 2 * same, "flag": same > 0}
    scoring = fit(columns)
    assert scoring is not None
    content = msgspec.json.encode(calibrated(scoring, columns))
    again = msgspec.json.decode(content, type=Scoring)
    assert Detector(again, 0.01).unusual({"a": [0.1], "b": [0.1], "c": [0.2], "flag": [True]}, 1) == {}
    assert set(Detector(again, 0.01).unusual({"a": [1.0], "b": [-1.0], "c": [2.0], "flag": [True]}, 1)) == {0}


def test_each_of_many_rows_is_named_as_it_would_be_alone() -> None:
    detector, columns = Detector(fitted()), table(np.random.default_rng(9), 300)
    columns["minutes"][::3] -= 400.0  # within its range, and never with these hours
    columns["amount"][::7] = 1e9
    found = detector.unusual(columns, 300)
    assert set(found) >= {*range(0, 300, 3), *range(0, 300, 7)}
    assert all(detector.unusual(row(columns, place), 1) == {0: name} for place, name in found.items())


def test_values_as_large_as_numbers_go_are_none_that_breaks_it() -> None:
    far = np.array([1.7e308, -1.7e308, *np.linspace(0, 1, 98)])
    scoring = calibrated(fit({"x": far}) or fitted(), {"x": far})
    again = msgspec.json.decode(msgspec.json.encode(scoring), type=Scoring)
    for value in (math.inf, 1.7e308, 0.5):
        alone, together = Detector(again, 0.1).scores({"x": [value]}, 1)
        assert np.isfinite([*alone, *together]).all()


def test_there_is_none_without_rows_or_columns_that_it_knows() -> None:
    assert fit({}) is None
    assert fit({"a": []}) is None
    assert fit({"image": [b"png", b"gif"]}) is None
