import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.stats.binning import Binning

finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1, 1),
    st.integers(-5, 5).map(float),
    st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, 1.0, float(np.nextafter(1.0, 0)), float(np.nextafter(1.0, 2))]),
)


@given(st.lists(finite, max_size=70), st.lists(finite, max_size=60))
def test_places_are_those_of_a_binary_search(edges: list[float], numbers: list[float]) -> None:
    ordered = np.sort(np.array(edges, float))
    with np.errstate(over="ignore"):
        values = np.array([*numbers, *edges, *np.nextafter(ordered, -np.inf), *np.nextafter(ordered, np.inf)])
    values = values[np.isfinite(values)]
    binning = Binning(ordered)
    assert np.array_equal(binning.places[binning(values)], np.searchsorted(ordered, values, side="left"))


@pytest.mark.parametrize("kind", ["normal", "lognormal", "pareto", "cauchy", "poisson", "decades", "far", "constant"])
def test_quantiles_of_many_distributions(kind: str) -> None:
    random = np.random.default_rng(0)
    values = {
        "normal": random.normal(size=20_000),
        "lognormal": random.lognormal(size=20_000),
        "pareto": random.pareto(1.0, 20_000),
        "cauchy": random.standard_cauchy(20_000),
        "poisson": random.poisson(3, 20_000) + 0.0,
        "decades": 10.0 ** random.uniform(-20, 20, 20_000),
        "far": 1e15 + random.normal(size=20_000),
        "constant": np.full(20_000, 0.1),
    }[kind]
    edges = np.quantile(values, np.arange(1, 64) / 64, method="inverted_cdf")
    binning = Binning(edges)
    assert np.array_equal(binning.places[binning(values)], np.searchsorted(edges, values, side="left"))
    assert (binning._passes == 0) == (kind in ("decades", "constant"))  # a constant has one distinct edge
