"""Sums by bins of features and by their pairs."""

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.stats.crossings import ALL, MEASURES, Crossing, important
from mainspring.stats.reference import Reference, profile

RNG = np.random.default_rng(3)
ORIGINS = RNG.choice(["JFK", "LGA", "EWR", "BOS", "rare"], 2_000, p=[0.3, 0.3, 0.2, 0.15, 0.05]).astype(object)
HOURS = RNG.integers(0, 24, 2_000).astype(float)
NOISE = RNG.normal(size=2_000)
SCORES = 0.2 + 0.1 * (ORIGINS == "JFK") + 0.005 * HOURS + 0.02 * RNG.normal(size=2_000)
COLUMNS: dict[str, Any] = {"F.origin": ORIGINS, "F.hour": HOURS, "F.noise": NOISE}
REFERENCE = msgspec.structs.replace(profile({**COLUMNS, "p": SCORES}), crossed=("F.origin", "F.hour"))


def crossing(reference: Reference = REFERENCE, **more: Any) -> Crossing:
    return Crossing(reference, "p", **more)


def test_the_important_features_are_those_the_score_differs_by() -> None:
    assert important(REFERENCE, COLUMNS, SCORES)[:2] == ("F.origin", "F.hour")
    assert important(REFERENCE, COLUMNS, np.zeros(2_000)) == ()
    assert important(REFERENCE, COLUMNS, [None] * 2_000) == ()


def test_sums_are_those_of_the_rows_in_both_bins() -> None:
    made = crossing()
    assert made.bins[0] == ALL
    assert len(made.bins) == 1 + 4 + 4  # the rarest origin has no bin
    noise = np.where(np.arange(2_000) % 4 == 0, np.nan, NOISE)
    rows, missing, scores, squares = made.sums({**COLUMNS, "F.noise": noise, "p": SCORES}, 2_000)
    one, other = made.bins.index("F.origin=JFK"), [*made.features].index(1) + 1  # the second quarter of the hours
    edges = REFERENCE.columns["F.hour"].edges
    mine = (ORIGINS == "JFK") & (edges[15] < HOURS) & (edges[31] >= HOURS)
    z = (SCORES - REFERENCE.columns["p"].mean) / REFERENCE.columns["p"].sd
    assert rows.products[one, other] == mine.sum() == rows.products[other, one]
    assert rows.products[0, 0] == rows.rows == 2_000
    assert rows.products[one, made.bins.index("F.origin=LGA")] == 0
    np.testing.assert_allclose(missing.products[one, other], (mine & np.isnan(noise)).sum() / 3)
    np.testing.assert_allclose(scores.products[one, other], z[mine].sum())
    np.testing.assert_allclose(squares.products[one, one], (z[ORIGINS == "JFK"] ** 2).sum())


def test_sums_of_parts_add_up_whatever_holds_the_values() -> None:
    made = crossing()
    values = {**COLUMNS, "p": SCORES}
    whole = made.sums(values, 2_000)
    first = made.sums({name: column[:700] for name, column in values.items()}, 700)
    rest = made.sums({name: pa.array(list(column[700:])) for name, column in values.items()}, 1_300)
    for one, part, other in zip(whole, first, rest, strict=True):
        np.testing.assert_allclose((part + other).products, one.products, atol=1e-9)
    assert len(whole) == len(MEASURES)


def test_bad_rows_are_in_no_bin() -> None:
    made = crossing()
    hostile: dict[str, Any] = {
        "F.origin": [None, 3, "", "nobody saw this", ["x"]],
        "F.hour": [None, "late", float("nan"), True, 1e300],
        "p": [None, "high", float("inf"), float("nan"), 1e308],
    }
    rows, missing, scores, _ = made.sums(hostile, 5)
    assert rows.products[0, 0] == 5
    assert rows.products[0, 1:5].sum() == 0
    assert rows.products[0, 5:].sum() == 2  # True is 1
    assert missing.products[0, 0] == 1.5  # of two columns: both of the first row, the NaN of the third
    assert np.isfinite(scores.products).all()


def test_a_column_that_vanishes_and_no_rows_are_no_crash() -> None:
    made = crossing()
    rows = made.sums({"F.hour": HOURS[:1]}, 1)[0]
    assert rows.products[0, 0] == 1
    assert rows.products[0, 1:5].sum() == 0
    assert made.sums({}, 0)[0].products.sum() == 0
    nulls = made.sums({"F.origin": pa.nulls(3), "F.hour": pa.nulls(3), "p": pa.nulls(3)}, 3)
    assert [each.products[0, 0] for each in nulls] == [3, 3, 0, 0]


def test_hidden_features_and_old_references_have_no_segments() -> None:
    assert [name for name in crossing(hidden=["F.origin"]).bins if "origin" in name] == []
    assert not crossing(profile({**COLUMNS, "p": SCORES}))


def test_a_column_of_a_million_categories_has_four_bins() -> None:
    wild = np.array([f"c{number}" for number in range(20_000)], object)
    reference = msgspec.structs.replace(profile({"F.wild": wild, "p": np.linspace(0, 1, 20_000)}), crossed=("F.wild",))
    assert len(crossing(reference).bins) == 5


def test_totals_are_those_of_the_rows_in_each_bin_and_each_pair_of_bins() -> None:
    made = crossing()
    weights = np.stack([SCORES, np.ones(2_000)], axis=1)
    found = made.totals(COLUMNS, weights)
    assert made.names == ("F.origin", "F.hour")
    assert len(found) == 4 + 4 + 4 * 4
    late = next(name for name in found if name.startswith("F.hour=over"))
    mine = (ORIGINS == "JFK") & (REFERENCE.columns["F.hour"].edges[47] < HOURS)
    np.testing.assert_allclose(found[f"F.origin=JFK and {late}"], weights[mine].sum(axis=0))
    np.testing.assert_allclose(found["F.origin=JFK"], weights[ORIGINS == "JFK"].sum(axis=0))
    assert made.totals({"F.hour": [None]}, weights[:1]) == {}
    assert crossing(hidden=("F.origin",)).names == ("F.hour",)
