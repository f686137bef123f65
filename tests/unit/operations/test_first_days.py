"""A new model is judged from its first days on, by the days of training that its bundle carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.console import flights
from mainspring.core.schema import DType
from mainspring.core.time import DAY, HOUR, ManualClock
from mainspring.monitoring.adapters.memory import MemorySketches
from mainspring.monitoring.hours import HourSketch
from mainspring.monitoring.signals import CONTRACT, JOINT, SURPRISE
from mainspring.operations.distributions import Kept, judged
from mainspring.operations.watching import CHANNELS, watch
from mainspring.registry.bundles import seal
from mainspring.registry.model import Input, Manifest
from mainspring.stats.reference import Reference, profile
from mainspring.stats.sketch_history import Day, pack
from mainspring.stats.sketches import Ruler

ENDPOINT = "late-arrival"
COLUMNS = ("Weather.wind", "Weather.visibility", "Weather.pressure", "OriginTraffic.departures_1h")
TRAINED, LIVE = 60, 8
FIRST = 15_000
NOW = (FIRST + TRAINED + LIVE) * DAY + HOUR

Rows = dict[str, Any]


def rows_of(day: int, count: int = 300) -> Rows:
    rng = np.random.default_rng([3, day])
    wind = rng.weibull(2, count) * 11 + rng.normal()
    visibility = 12 - wind / 4 + rng.normal(size=count)
    values = wind, visibility, rng.normal(1018, 7, count), rng.poisson(19, count)
    return dict(zip(COLUMNS, values, strict=True))


def null(rows: Rows, *names: str) -> Rows:
    return {**rows, **{name: np.full(len(rows[name]), np.nan) for name in names}}


@pytest.fixture(scope="module")
def reference() -> Reference:
    days = range(FIRST, FIRST + TRAINED)
    found = profile({name: np.concatenate([rows_of(day)[name] for day in days]) for name in COLUMNS})
    ruler = Ruler(found, COLUMNS)
    history = [Day(day * DAY, (day + 1) * DAY, *ruler.measure(rows_of(day))) for day in days]
    return msgspec.structs.replace(found, history=pack(history))


@pytest.fixture
def project() -> flights.Project:
    return flights.Project(
        definitions=flights.definitions(), clock=ManualClock(NOW), wall=ManualClock(NOW), sketches=MemorySketches()
    )


def serve(project: flights.Project, reference: Reference, changed: Mapping[int, Rows] | None = None) -> str:
    """Keep the sketches of the live days, some of them of other rows; return the version's digest."""
    manifest = Manifest(
        model=ENDPOINT, task="binary", flavour="onnx", inputs=tuple(Input(name, DType.Float64) for name in COLUMNS),
        outputs=("probability",), run_id="r", dataset_commit="c", features_digest="f", code_version="v", created_at=0,
    )  # fmt: skip
    files = {"model.onnx": flights.model_file(manifest.inputs), "reference.json": msgspec.json.encode(reference)}
    bundle = seal(manifest, files, project.signing_key)
    project.bundles.save(bundle)
    ruler = Ruler(reference, COLUMNS)
    found = []
    for day in range(FIRST + TRAINED, FIRST + TRAINED + LIVE):
        rows = (changed or {}).get(day - FIRST - TRAINED, rows_of(day))
        for place, hour in enumerate((8, 11, 15)):
            third = {name: values[place::3] for name, values in rows.items()}
            sketch, pairs = ruler.measure(third)
            start = day * DAY + hour * HOUR
            found.append(HourSketch(ENDPOINT, "4", bundle.digest, start, "", sketch, pairs, rows=100))
    project.sketches.add("all", found)
    return bundle.digest


def opened(project: flights.Project) -> list[str]:
    changes = watch(project, windows=False, channels={"distributions": CHANNELS["distributions"]})
    return [f"{change.event}: {change.incident.cause}" for change in changes if change.event]


def test_weather_that_is_null_is_one_page_about_its_source(project: flights.Project, reference: Reference) -> None:
    serve(project, reference, {LIVE - 1: null(rows_of(FIRST + TRAINED + LIVE - 1), *COLUMNS[:3])})
    assert "opened: source weather" in opened(project)
    [made] = [each for each in project.incidents.open() if str(each.cause) == "source weather"]
    assert made.page
    assert {each.channel for each in made.symptoms} == {CONTRACT, SURPRISE}
    assert {each.column for each in made.symptoms} == set(COLUMNS[:3])
    assert {each.version for each in made.symptoms} == {"4"}
    assert opened(project) == []


def test_ordinary_traffic_pages_nobody(project: flights.Project, reference: Reference) -> None:
    serve(project, reference)
    watch(project, windows=False, channels={"distributions": CHANNELS["distributions"]})
    assert [each for each in project.incidents.open() if each.page] == []


def test_days_of_traffic_are_judged_by_the_days_of_training(project: flights.Project, reference: Reference) -> None:
    serve(project, reference)
    found = judged(project, ENDPOINT, Kept(), now=NOW)
    assert {each.scope: len(each.windows) for each in found} == {CONTRACT: 3 * LIVE, SURPRISE: LIVE, JOINT: LIVE}
    bare = msgspec.structs.replace(reference, history=b"")
    other = project.having(sketches=MemorySketches())
    serve(other, bare)
    found = judged(other, ENDPOINT, Kept(), now=NOW)
    assert {each.scope: len(each.windows) for each in found} == {CONTRACT: 3 * LIVE, SURPRISE: 0, JOINT: 0}
