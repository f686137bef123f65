"""What do our summaries cost and how far off are they? Counts of bins and the smallest hashes, against KLL and HLL.

Ours are made in SQL and merged in Python, as the engine does; the sketches of `datasketches` are updated with NumPy
arrays where they take them, else value by value. A quantile's error is relative to the true value, as a model sees it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import datasketches
import duckdb
import numpy as np
import pyarrow as pa

from mainspring.features.state import sketches, sql
from mainspring.features.state.blobs import as_stored
from report import Case, report

SHARES = (0.1, 0.5, 0.9, 0.99)
TILES = 24
HLL = {"HLL 10": 10, "HLL 12": 12}  # its standard error is 1.04 / sqrt(2**k): 3.3 % and 1.6 %
DISTRIBUTIONS: Mapping[str, Callable[[np.random.Generator, int], Any]] = {
    "uniform 0 to 1": lambda rng, n: rng.random(n),
    "delays: normal, mean 10, deviation 40": lambda rng, n: rng.normal(10, 40, n),
    "prices: lognormal, sigma 2": lambda rng, n: rng.lognormal(3, 2, n),
    "sizes: Pareto, alpha 1": lambda rng, n: rng.pareto(1, n) + 1,
    "counts: Poisson, mean 30": lambda rng, n: rng.poisson(30, n).astype(float),
    "far from zero: 1e9 and a deviation of 1e6": lambda rng, n: rng.normal(1e9, 1e6, n),
}


def best(action: Callable[[], Any], rounds: int = 5) -> float:
    """Return the shortest time of an action, seconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return min(times)


def percent(errors: list[float]) -> float:
    return round(100 * math.sqrt(sum(error * error for error in errors) / len(errors)), 3)


class Engine:
    """Summaries made by SQL."""

    def __init__(self) -> None:
        self.con = duckdb.connect()
        self.con.execute("SET threads = 1")

    def load(self, values: Any, tiles: int = 1) -> None:
        starts = np.arange(len(values)) % tiles
        self.con.register("facts", pa.table({"start": starts, "m0": pa.array(values)}))

    def query(self, part: str) -> str:
        return f"SELECT {part}_0 FROM ({sql.from_rows([(0, part)], 'facts', 'TRUE', 'start')})"

    def states(self, part: str) -> list[Any]:
        return as_stored(part, [value for (value,) in self.con.execute(self.query(part)).fetchall()])


def hll(values: list[str], bits: int) -> Any:
    made = datasketches.hll_sketch(bits, datasketches.HLL_8)
    for value in values:
        made.update(value)
    return made


def kll(values: Any) -> Any:
    made = datasketches.kll_doubles_sketch(200)
    made.update(values)
    return made


def distinct_errors(engine: Engine, repeats: int) -> Iterator[Case]:
    for n in (100, 1_000, 10_000, 100_000):
        ours: list[float] = []
        peers: dict[str, list[float]] = {name: [] for name in HLL}
        for repeat in range(repeats):
            values = [f"{repeat}-{number}" for number in range(n)]
            engine.load(values)
            ours.append(sketches.distinct(sketches.merge_hashes(engine.states("hashes"), [])) / n - 1)
            for name, bits in HLL.items():
                peers[name].append(hll(values, bits).get_estimate() / n - 1)
        found: dict[str, float | None] = {name: percent(errors) for name, errors in peers.items()}
        yield Case(f"distinct, {n:,} values: error", "%", percent(ours), None, found)


def distinct_costs(engine: Engine) -> Iterator[Case]:
    for a_tile in (50, 10_000):
        values = [f"user {number}" for number in range(a_tile * TILES)]
        engine.load(values, TILES)
        states = engine.states("hashes")
        peers = {name: [hll(values[tile::TILES], bits) for tile in range(TILES)] for name, bits in HLL.items()}

        def union(of: list[Any], bits: int) -> float:
            merged = datasketches.hll_union(bits)
            for state in of:
                merged.update(state)
            return float(merged.get_estimate())

        sizes = {name: float(len(each[0].serialize_compact())) for name, each in peers.items()}
        named = f"distinct, {a_tile:,} a tile"
        yield Case(f"{named}: state of a tile", "bytes", float(len(states[0])), None, sizes)
        yield Case(
            f"{named}: read of {TILES} tiles",
            "us",
            round(best(lambda states=states: sketches.distinct(sketches.merge_hashes(states, [])), 30) * 1e6, 1),
            None,
            {name: round(best(partial(union, each, HLL[name]), 30) * 1e6, 1) for name, each in peers.items()},
        )
    seconds = best(lambda: engine.con.execute(engine.query("hashes")).fetchall(), 3)
    yield Case(
        "distinct: making tiles",
        "values/s",
        round(len(values) / seconds),
        None,
        {name: round(len(values) / best(partial(hll, values, bits), 3)) for name, bits in HLL.items()},
        {"HLL": "takes one value at a call"},
        more_is_better=True,
    )


def quantile_errors(engine: Engine, n: int) -> Iterator[Case]:
    rng = np.random.default_rng(7)
    for name, draw in DISTRIBUTIONS.items():
        ours, theirs = [], []
        for _ in range(20):
            values = draw(rng, n)
            engine.load(values)
            bins = sketches.merge_bins(engine.states("bins"), [])
            peer = kll(values)
            for share in SHARES:
                true = float(np.quantile(values, share, method="inverted_cdf"))
                ours.append((sketches.quantile(bins, share) or 0) / true - 1)
                theirs.append(peer.get_quantile(share) / true - 1)
        yield Case(f"quantiles of {name}: error", "%", percent(ours), None, {"KLL 200": percent(theirs)})


def quantile_costs(engine: Engine) -> Iterator[Case]:
    rng = np.random.default_rng(7)
    for a_tile in (50, 10_000):
        values = rng.normal(10, 40, a_tile * TILES)
        engine.load(values, TILES)
        states = engine.states("bins")
        peers = [kll(values[tile::TILES]) for tile in range(TILES)]

        def merged(of: list[Any]) -> float:
            together = datasketches.kll_doubles_sketch(200)
            for state in of:
                together.merge(state)
            return float(together.get_quantile(0.5))

        size = float(len(peers[0].serialize()))
        yield Case(f"quantiles, {a_tile:,} a tile: state", "bytes", float(len(states[0])), None, {"KLL 200": size})
        yield Case(
            f"quantiles, {a_tile:,} a tile: read of {TILES} tiles",
            "us",
            round(best(lambda states=states: sketches.quantile(sketches.merge_bins(states, []), 0.5), 30) * 1e6, 1),
            None,
            {"KLL 200": round(best(lambda peers=peers: merged(peers), 30) * 1e6, 1)},
        )
    values = rng.normal(10, 40, 1_000_000)
    engine.load(values, TILES)
    seconds = best(lambda: engine.con.execute(engine.query("bins")).fetchall(), 3)
    yield Case(
        "quantiles: making tiles",
        "values/s",
        round(len(values) / seconds),
        None,
        {"KLL 200": round(len(values) / best(lambda: kll(values), 3))},
        more_is_better=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--values", type=int, default=100_000)
    arguments = parser.parse_args()
    engine = Engine()
    report(
        "sketches",
        [
            *distinct_errors(engine, arguments.repeats),
            *distinct_costs(engine),
            *quantile_errors(engine, arguments.values),
            *quantile_costs(engine),
        ],
    )


if __name__ == "__main__":
    main()
