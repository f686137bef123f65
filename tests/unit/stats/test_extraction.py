"""Callers who are unlike all others: queries of copiers are, and what honest callers do is not."""

from __future__ import annotations

import numpy as np
import pytest

from mainspring.stats.extraction import LEAST_OTHERS, LEAST_ROWS, MOST_CALLERS, Queries, distinct, likeness

CARRIERS = ("UA", "B6", "DL")


def natural(seed: int, count: int = 150, moved: float = 0.0) -> list[tuple[object, ...]]:
    """Rows of a population whose columns depend on one another, some with nothing in a column."""
    draw = np.random.default_rng(seed)
    base = draw.normal(moved, 1, count)
    numbers = np.stack([base + draw.normal(0, 0.2, count) for _ in range(5)], axis=-1)
    carriers = [CARRIERS[int(each > 0) + int(each > 1)] for each in base]
    return [
        (*row, carrier, None if place % 10 == 0 else 1.0)
        for place, (row, carrier) in enumerate(zip(numbers.tolist(), carriers, strict=True))
    ]


def evenly(seed: int, count: int = 150) -> list[tuple[object, ...]]:
    """Rows of somebody who knows each column alone."""
    draw = np.random.default_rng(seed)
    return [(*draw.uniform(-2, 2, 5).tolist(), str(draw.choice(CARRIERS)), 1.0) for _ in range(count)]


def asked(rows: list[tuple[object, ...]], classes: str | None = None) -> Queries:
    columns = list(zip(*rows, strict=True))
    said = [classes or str(row[0] > 0) for row in rows]  # type: ignore[operator]
    return Queries({f"x{place}": column for place, column in enumerate(columns)}, said)  # type: ignore[misc]


def honest(moved: float = 0.0) -> dict[str, Queries]:
    sweep = [(*row[:4], -2 + step / 40, *row[5:]) for row in natural(9, 2) for step in range(160)]
    return {
        "natural": asked(natural(1, moved=moved)),
        "retries": asked(natural(2, 80, moved) * 10),
        "sweeps": asked([*natural(3, 100, moved), *sweep]),
        "one class": asked(natural(4, 400, moved)[::3], "True"),
        "many": asked(natural(5, 2_000, moved)),
    }


@pytest.mark.parametrize("moved", [0.0, 3.0])
def test_honest_callers_are_alike_also_when_all_drift(moved: float) -> None:
    found = likeness(honest(moved))
    assert not [name for name, each in found.items() if each.unlike or each.distance is None]
    assert found["retries"].distinct <= 80
    assert found["sweeps"].distinct <= 104
    assert found["many"].distinct == 300


def test_queries_that_are_no_natural_rows_are_unlike_and_accuse_nobody_else() -> None:
    callers = honest() | {"copier": asked(evenly(6)), "second": asked(evenly(7))}
    assert {name for name, each in likeness(callers).items() if each.unlike} == {"copier", "second"}


def test_a_copier_with_natural_rows_is_like_all_others() -> None:
    assert not likeness(honest() | {"copier": asked(natural(8, 300))})["copier"].unlike


def test_few_rows_or_callers_are_not_judged() -> None:
    few = honest() | {"few": asked(evenly(6, LEAST_ROWS - 1))}
    found = likeness(few)
    assert found["few"].distance is None
    assert found["few"].distinct == LEAST_ROWS - 1
    names = list(honest())[:LEAST_OTHERS]
    assert all(each.distance is None for each in likeness({name: few[name] for name in names}).values())
    assert likeness({}) == {}
    assert likeness({"nobody": Queries({}, [])})["nobody"].distinct == 0


def test_features_that_are_missing_texts_or_constant_are_no_trouble() -> None:
    rows = {
        name: Queries({"all": [None] * 60, "same": [1.0] * 60, "odd": [float("inf"), float("nan"), *[2.0] * 58],
                       "text": [f"{name} {number}" for number in range(60)]}, ["a"] * 60)
        for name in "abcd"
    }  # fmt: skip
    assert not any(each.unlike for each in likeness(rows).values())


@pytest.mark.parametrize("outlandish", [400, 5_000])
def test_nobody_hides_behind_outlandish_rows_of_their_own(outlandish: int) -> None:
    far = [(*[1e9 * (2 + row[0])] * 5, *row[5:]) for row in evenly(8, outlandish)]  # type: ignore[operator]
    found = likeness(honest() | {"copier": asked([*evenly(6), *far])})
    assert {name for name, each in found.items() if each.unlike} == {"copier"}
    assert all(each.distinct >= LEAST_ROWS for each in found.values())


def test_of_many_callers_the_first_are_judged() -> None:
    names = [f"c{number:03}" for number in range(MOST_CALLERS + 20)][::-1]
    found = likeness({name: asked(natural(number, 60 + number % 2)) for number, name in enumerate(names)})
    assert [name for name, each in found.items() if each.distance is not None] == names[:MOST_CALLERS]


def test_rows_that_vary_an_earlier_one_in_few_features_count_once() -> None:
    rows = np.zeros((4, 6))
    rows[1, :2], rows[2, :3], rows[3] = 1, 1, 0.004
    assert distinct(rows).tolist() == [0, 2]
