"""Incidents are ranked by how far their symptoms move the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.console import flights
from kit.models import COLUMNS, lightgbm_bundle, training_data
from kit.worlds import prediction
from mainspring.core.time import HOUR, MINUTE
from mainspring.monitoring.incidents.model import Cause, Incident, Symptom
from mainspring.monitoring.signals import CONTRACT
from mainspring.operations.ranking import effect
from mainspring.operations.watching import rank
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import Bundles, seal
from mainspring.stats.reference import profile

ROWS = 400
NAMES = [each.name for each in COLUMNS]
NUMBERS = [0, 1, 5]  # places of the columns of floats
Fault = Callable[[Any], Any]


def incident(*columns: str) -> Incident:
    symptoms = tuple(
        Symptom(
            channel=CONTRACT, endpoint="late", statistic="nulls", column=column, first=flights.NOW - HOUR,
            last=flights.NOW, severity=2.0,
        )
        for column in columns
    )  # fmt: skip
    return Incident(
        id="i", cause=Cause(kind="feature", name="x", key="x"), endpoints=("late",), channels=(CONTRACT,),
        symptoms=symptoms, severity=2.0, page=False, opened_at=flights.NOW, updated_at=flights.NOW,
    )  # fmt: skip


def world(faults: dict[int, Fault], *, task: str = "binary") -> flights.Project:
    """Return a project whose endpoint had predictions with faults in columns, by place."""
    matrix, _ = training_data(ROWS, seed=3)
    whole, _ = training_data()
    project = flights.Project(definitions=flights.definitions("late"))
    reference = profile({name: whole[:, place] for place, name in enumerate(NAMES)})
    made = lightgbm_bundle(task, columns=True)
    bundle = seal(made.manifest, {**made.files, "reference.json": msgspec.json.encode(reference)}, project.signing_key)
    project.bundles.save(bundle)
    columns = {name: _column(matrix[:, place], place, faults.get(place)) for place, name in enumerate(NAMES)}
    project.predictions.append(
        [
            prediction(
                row, flights.NOW - MINUTE, digest=bundle.digest, features={name: columns[name][row] for name in NAMES}
            )
            for row in range(ROWS)
        ]
    )
    project.predictions.compact()
    return project


def _column(values: Any, place: int, fault: Fault | None) -> Sequence[Any]:
    if place not in NUMBERS:
        return [None] * ROWS
    given = [None if np.isnan(each) else float(each) for each in values]
    return given if fault is None else [fault(each) for each in given]


def null(_: Any) -> None:
    return None


def test_a_column_that_matters_outranks_one_that_does_not() -> None:
    both = world({0: null, 5: null})
    strong, weak = (effect(both, incident(NAMES[place])) for place in (0, 5))
    assert strong is not None
    assert weak is not None
    assert strong > 5 * weak
    assert strong > 0.05


def test_columns_that_did_not_move_have_hardly_an_effect() -> None:
    found = effect(world({}), incident(NAMES[0], NAMES[5]))
    assert found is not None
    assert found < 0.06


def test_the_same_sample_gives_the_same_effect() -> None:
    project = world({0: lambda value: 0.0})
    assert effect(project, incident(NAMES[0])) == effect(project, incident(NAMES[0]))


def test_several_classes_have_one_effect_of_at_most_one() -> None:
    found = effect(world({0: null}, task="multiclass"), incident(NAMES[0]))
    assert found is not None
    assert 0.02 < found < 1.0


@pytest.mark.parametrize("columns", [(), ("probability",), ("Other.x",)])
def test_an_incident_of_no_input_has_no_effect_that_is_known(columns: tuple[str, ...]) -> None:
    assert effect(world({}), incident(*columns)) is None


def test_a_pass_stores_the_effect_and_goes_on_where_it_is_unknown() -> None:
    project = world({0: null})
    [known] = project.incidents.save([incident(NAMES[0])])
    lost = msgspec.structs.replace(incident(NAMES[5]), id="j", cause=Cause(kind="feature", name="y", key="y"))
    rank(project, [known])
    found = project.incidents.get(["i"])[0]
    assert found is not None
    assert (found.rank or 0) > 0.05
    [other] = project.having(bundles=Bundles(MemoryBlobs(), b"")).incidents.save([lost])
    rank(project.having(bundles=Bundles(MemoryBlobs(), b"")), [other])
    assert project.incidents.get(["j"])[0] == other


def test_an_endpoint_without_predictions_has_none() -> None:
    assert effect(flights.Project(definitions=flights.definitions("late")), incident(NAMES[0])) is None
