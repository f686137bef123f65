"""An observation never sees its own row; where a declaration makes it, the training says which column is repeated."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import pytest

import mainspring as ms
from kit.bakery import Bakery, late_model, order, orders, outcomes, shop
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock, from_datetime
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.features.online import OnlineReader
from mainspring.training.sets.assemble import labelled_observations, training_set
from mainspring.training.sets.leakage import find_leaks


@ms.feature_view(entity=shop, source=orders)
class Before:
    """A view of the very source that the observations come from."""

    weight = ms.last("weight")
    kind = ms.last("kind", window="30d")
    orders = ms.count(window="1h")


def model(at: Any) -> Any:
    observed = ms.Observations(orders, keys=[order, shop], at=at)
    return late_model(observations=observed, features=[Before], baseline=[], label=outcomes.late, gates=[])


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Bakery:
    made = Bakery(tmp_path_factory.mktemp("bakery"))
    made.ingest()
    keyings = {"order": ("order",), "shop": ("shop",)}
    Ingestor(made.lake, MemoryLocks(), made.clock).conform(orders, keyings)
    return made


def test_the_row_of_an_observation_is_not_among_its_features(bakery: Bakery) -> None:
    honest = model(ms.col("placed_at"))
    table, left_out = labelled_observations(honest, bakery.lake.scan, since=None, until=None)
    own = pc.equal(table["Before.weight"], table["weight"])
    assert pc.sum(own).as_py() < len(table) / 100
    made, _ = training_set(honest, table, left_out)
    assert made.own == {}


def test_training_and_serving_see_the_same_row(bakery: Bakery) -> None:
    """At the instant of each of some orders, before it could have landed: what training saw is what is served."""
    table, _ = labelled_observations(model(ms.col("placed_at")), bakery.lake.scan, since=None, until=None)
    store, clock = MemoryOnlineStore(), ManualClock()
    for row in table.slice(500, 5).to_pylist():
        clock.set(from_datetime(row["_at"]))
        materialiser = Materialiser(bakery.lake.scan, store, clock)
        materialiser.run(Before)  # type: ignore[arg-type]
        materialiser.close()
        served = OnlineReader([Before], store).read({"shop": [row["shop"]]}, clock.now())  # type: ignore[list-item]
        assert {name: values[0] for name, values in served.features.items()} == {
            name: row[name] for name in served.features
        }


def test_a_feature_that_repeats_its_own_row_is_found(bakery: Bakery) -> None:
    late = model(ms.col("placed_at") + ms.minutes(1))
    table, left_out = labelled_observations(late, bakery.lake.scan, since=None, until=None)
    made, _ = training_set(late, table, left_out)
    assert made.own == {"Before.weight": "weight", "Before.kind": "kind"}
    found = {each.id: each for each in find_leaks(made)}
    assert {name for name, each in found.items() if each.severe} >= {"own-row:Before.weight", "own-row:Before.kind"}
    assert "the observation's own 'weight'" in found["own-row:Before.weight"].evidence
