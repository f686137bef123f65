"""The example's features know nothing that could not be known: none alone tells how the flight will arrive.

Two hours ahead an honest model has an AUC near 0.74. A flight's own delay, known only later, lifts it over 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import mainspring as ms
from kit.depth import deep
from kit.later import later
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, ManualClock, parse_instant
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features import offline
from mainspring.features.declaring import feature_view
from mainspring.features.model import FeatureGroup
from mainspring.project.definitions.loading import load_definitions, load_function
from mainspring.project.definitions.model import Definitions
from mainspring.project.settings import load_settings
from mainspring.stats.metrics import auc
from mainspring.training.sets.assemble import labelled_observations, training_set
from mainspring.training.sets.leakage import find_leaks
from mainspring.training.sets.training_set import TrainingSet

later("sklearn")
EXAMPLE = Path(__file__).parents[2] / "examples" / "flights"
SINCE, UNTIL = parse_instant("2013-01-08T05:00:00Z"), parse_instant("2013-02-05T05:00:00Z")
LIMIT = 0.85
ROWS = 12_000

pytestmark = deep


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return load_definitions(load_settings(EXAMPLE, environment={}))


@pytest.fixture(scope="module")
def lake(definitions: Definitions) -> MemoryLake:
    """January's flights and weather, landed."""
    settings = load_settings(EXAMPLE, environment={})
    lake = MemoryLake()
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(UNTIL + DAY))
    for name, source in definitions.sources.items():
        rows = load_function(settings, f"flights.data:{name}")()
        happened = rows[source.event_time].cast(pa.int64())
        rows = rows.filter(pc.less(happened, UNTIL + DAY))
        ingestor.ingest(source, rows, keyings={**definitions.keyings(name), "flight": ("flight",)} if "flight" in
                        source.columns else definitions.keyings(name))  # fmt: skip
    return lake


def read(
    definitions: Definitions, lake: MemoryLake, groups: Sequence[FeatureGroup], later: int = 0
) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return each feature's values, `later` µs after predictions are made, and whether the flights came late."""
    model = definitions.model("late-arrival")
    observed = offline.observe(model.observations, lake.scan, since=SINCE, until=UNTIL)
    chosen = np.sort(np.random.default_rng(3).choice(observed.num_rows, ROWS, replace=False))
    observed = observed.take(pa.array(chosen))
    at = pc.add(observed["_at"].cast(pa.int64()), later).cast(pa.timestamp("us", tz="UTC"))
    observed = observed.set_column(observed.column_names.index("_at"), "_at", at)
    known = offline.point_in_time(observed, groups, lake.scan, schema=model.observations.source.columns)
    landed = pa.table(lake.scan("arrivals").rows)
    late = dict(zip(landed["flight"].to_pylist(), landed["late"].to_pylist(), strict=True))
    label = np.array([late.get(flight) for flight in known["flight"].to_pylist()], dtype=object)
    there = np.array([each is not None for each in label])
    values = {name: numbers(known[name], there) for group in groups for name in group.columns}
    return values, label[there].astype(bool)


def numbers(column: Any, there: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if pa.types.is_string(column.type):
        column = column.combine_chunks().dictionary_encode().indices
    values = np.array([np.nan if each is None else float(each) for each in column.to_pylist()])
    return values[there]


def honest(columns: Sequence[np.ndarray[Any, Any]], late: np.ndarray[Any, Any]) -> float:
    """Return the AUC, on the later half, of trees that saw these columns and the earlier half."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    X, half = np.column_stack(columns), len(late) // 2
    trees = HistGradientBoostingClassifier(max_iter=25, max_leaf_nodes=15, random_state=0)
    score = trees.fit(X[:half], late[:half]).predict_proba(X[half:])[:, 1]
    return float(auc(late[half:], score))


def test_no_feature_alone_and_not_all_together_know_the_future(definitions: Definitions, lake: MemoryLake) -> None:
    model = definitions.model("late-arrival")
    values, late = read(definitions, lake, model.features)
    assert len(late) > ROWS * 0.9
    assert 0.1 < late.mean() < 0.5
    alone = {name: honest([column], late) for name, column in values.items()}
    assert {name: score for name, score in alone.items() if not 0.35 < score < LIMIT} == {}
    assert 0.6 < honest(list(values.values()), late) < LIMIT


def test_the_guard_sees_what_leaks(definitions: Definitions, lake: MemoryLake) -> None:
    """A flight's own departure, read after it left instead of two hours before its schedule."""
    own = feature_view(entity=definitions.entities["flight"], source=definitions.sources["departures"])(
        type("OwnDeparture", (), {"delay": ms.last("dep_delay")})
    )
    before, late = read(definitions, lake, [own])
    assert np.isnan(before["OwnDeparture.delay"]).mean() > 0.99
    after, _ = read(definitions, lake, [own], later=12 * HOUR)
    assert honest([after["OwnDeparture.delay"]], late) > LIMIT


def as_set(
    definitions: Definitions, lake: MemoryLake, extra: Sequence[FeatureGroup] = (), later: int = 0
) -> TrainingSet:
    """Return the example's training set, with more features, read `later` µs after predictions are made."""
    model = definitions.model("late-arrival")
    observations = replace(model.observations, at=model.observations.at + ms.hours(later // HOUR))
    model = replace(model, features=(*model.features, *extra), columns=(), observations=observations, holdout=0.2)
    table, left_out = labelled_observations(model, lake.scan, since=SINCE, until=UNTIL)
    return training_set(model, table, left_out)[0]


def test_the_checks_before_a_training_find_nothing_severe_in_the_example(
    definitions: Definitions, lake: MemoryLake
) -> None:
    assert [each for each in find_leaks(as_set(definitions, lake)) if each.severe] == []


def test_and_they_catch_the_delay_on_arrival(definitions: Definitions, lake: MemoryLake) -> None:
    own = feature_view(entity=definitions.entities["flight"], source=definitions.sources["arrivals"])(
        type("OwnArrival", (), {"arr_delay": ms.last("arr_delay")})
    )
    found = find_leaks(as_set(definitions, lake, [own], later=48 * HOUR))
    assert [each.id for each in found if each.severe] == ["shadow:OwnArrival.arr_delay"]
