"""The channels over sketches in a pass: a broken source is one incident within hours, until it is mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from kit.console import flights
from mainspring.console.endpoints.performance import performance
from mainspring.console.endpoints.period import Period
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock
from mainspring.ledger.model import Prediction
from mainspring.monitoring.signals import CONTRACT, JOINT, SURPRISE
from mainspring.operations.distributions import Kept, judged
from mainspring.operations.incidents import judge
from mainspring.operations.quality import quality
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.operations.watching import watch
from mainspring.registry.bundles import seal
from mainspring.registry.model import Manifest
from mainspring.stats.reference import Reference, profile
from mainspring.stats.sketch_history import Day, pack
from mainspring.stats.sketches import Ruler
from mainspring.training.bundling import parquet_file

ENDPOINT = "late-arrival"
START = flights.START
ROWS = 40  # an hour
NAMES = ("OriginTraffic.departures_1h", "Weather.wind", "Weather.visibility", "Weather.pressure", "Schedule.hour")


class World:
    """A project whose endpoint has steady traffic, with columns that can be null."""

    def __init__(self, trained_days: int = 0) -> None:
        """Make the project.

        Args:
            trained_days: Days of training that the bundle carries.
        """
        self.rng = np.random.default_rng(2)
        clocks = {name: ManualClock(START) for name in ("clock", "wall")}
        settings = replace(flights._settings(), monitor_window_us=DAY)
        self.project = flights.Project(settings, definitions=flights.definitions(), **clocks)
        values = {**self._columns(20_000), "probability": self.rng.random(20_000)}
        inputs = tuple(each for each in flights.reference()[1] if each.name in NAMES)
        manifest = Manifest(
            model="late-arrival", task="binary", flavour="onnx", inputs=inputs, outputs=("probability",), run_id="r",
            dataset_commit="c", features_digest="f", code_version="v", created_at=0,
        )  # fmt: skip
        files = {
            "model.onnx": flights.model_file(inputs),
            "reference.json": msgspec.json.encode(self._reference(values, trained_days)),
            "holdout.parquet": parquet_file(self._held_out()),
        }
        bundle = seal(manifest, files, self.project.signing_key)
        self.project.bundles.save(bundle)
        self.digest = bundle.digest
        self.hour = 0
        self.kept: dict[str, Kept] = {}

    def _columns(self, rows: int) -> dict[str, Any]:
        return {name: self.rng.normal(10 * place, 2, rows) for place, name in enumerate(NAMES)}

    def _reference(self, values: dict[str, Any], days: int) -> Reference:
        found = profile(values)
        ruler, starts = Ruler(found, NAMES), [START + day * DAY for day in range(-days, 0)]
        history = [Day(start, start + DAY, *ruler.measure(self._columns(400))) for start in starts]
        return msgspec.structs.replace(found, history=pack(history))

    def _held_out(self) -> pa.Table:
        score = self.rng.random(4_000)
        at = START - 8 * DAY + np.arange(score.size) * 8 * DAY // score.size
        return pa.table(
            {
                "_at": pa.array(at, pa.timestamp("us", tz="UTC")),
                "_label": self.rng.random(score.size) < score,
                "_scores": pa.array([[each] for each in score], pa.list_(pa.float64())),
            }
        )

    def run(self, hours: int, null: Sequence[str] = (), stuck: Sequence[str] = ()) -> None:
        """Let hours pass, with columns that are null in all of them, or stuck at 0."""
        made = []
        for hour in range(self.hour, self.hour + hours):
            columns = self._columns(ROWS)
            for row in range(ROWS):
                features = {name: None if name in null else float(columns[name][row]) for name in NAMES}
                features |= dict.fromkeys(stuck, 0.0)
                made.append(
                    Prediction(
                        id=f"p{hour}-{row}", endpoint=ENDPOINT, model="late-arrival", version="1", digest=self.digest,
                        at=START + hour * HOUR + row * MINUTE, keys={}, request={}, features=features, statuses={},
                        outputs={"probability": float(self.rng.random())}, latency_us=1_000, principal="test",
                    )
                )  # fmt: skip
        self.project.predictions.append(made)
        self.project.predictions.compact()
        self.hour += hours
        for clock in (self.project.clock, self.project.wall):
            assert isinstance(clock, ManualClock)
            clock.set(START + self.hour * HOUR + 5 * MINUTE)

    def look(self, windows: bool = False) -> list[str]:
        changes = watch(self.project, windows=windows, kept=self.kept)
        return [f"{change.event}: {change.incident.cause}" for change in changes if change.event]


@pytest.fixture(scope="module")
def world() -> World:
    made = World()
    made.run(6 * 24)
    return made


def test_a_source_that_breaks_is_one_page_within_hours_and_closes_when_it_is_mended() -> None:
    world = World()
    world.run(6 * 24)
    assert world.look() == []
    world.run(4, ["Weather.wind", "Weather.visibility", "Weather.pressure"])
    assert world.look() == ["opened: source weather"]
    assert world.look() == []
    [made] = world.project.incidents.open()
    assert (made.page, made.channels) == (True, (CONTRACT,))
    world.run(2)
    assert world.look() == ["closed: source weather"]


def test_an_estimate_is_invalid_while_a_feature_is_stuck_and_valid_again_after() -> None:
    world = World(trained_days=30)

    def stamps() -> list[str]:
        world.look(windows=True)
        found = quality(world.project, ENDPOINT, world.project.monitors.windows(ENDPOINT))
        parts = [part for window in found for part in window.measured]
        assert all(part.estimated["brier"].low is not None for part in parts)  # from the first day, without a label
        return [part.invalid for part in parts]

    def valid() -> bool:
        text = ControlMetrics(world.project).text().decode()
        return f'mainspring_window_estimate_valid{{endpoint="{ENDPOINT}"}} 1.0' in text

    world.run(2 * 24)
    assert stamps() == ["", ""]
    assert valid()
    world.run(4, stuck=["Weather.wind"])
    *before, broken = stamps()
    [incident] = world.project.incidents.open()
    assert before == ["", ""]
    assert broken == f"incident {incident.id} is open: {incident.cause} (contract)"
    assert not valid()
    shown = performance(world.project, ENDPOINT, Period("", START, START + 7 * DAY))
    assert [part.invalid for _, part in shown.estimates] == [broken, "", ""]
    world.run(2 + 24)
    assert stamps() == ["", "", broken.replace("is open", "was open"), ""]
    assert valid()
    [ended] = world.project.incidents.find(endpoint=ENDPOINT)
    world.project.incidents.save([msgspec.structs.replace(ended, verdict="false alarm")])
    assert stamps() == ["", "", "", ""]


def test_a_page_that_a_person_called_false_does_not_come_again() -> None:
    world = World()
    world.run(3 * 24)
    world.look()
    world.run(4, ["Weather.wind"])
    assert world.look() == ["opened: feature Weather.wind"]
    [made] = world.project.incidents.open()
    judge(world.project, made.id, "false alarm")
    world.run(2)
    assert world.look() == []
    world.run(36)  # longer than an incident that was dismissed stays closed
    world.look()
    world.run(4, ["Weather.wind"])
    assert world.look() == []
    world.run(4, ["Weather.pressure"])
    assert world.look() == ["opened: feature Weather.pressure"]


def test_hours_that_are_complete_are_judged_and_days_without_history_are_not(world: World) -> None:
    found = judged(world.project, ENDPOINT, Kept(), now=world.project.clock.now())
    assert {each.scope: len(each.windows) for each in found} == {CONTRACT: 6 * 24, SURPRISE: 0, JOINT: 0}
    assert all(each.signals == () for each in found)


def test_sketches_that_are_kept_give_what_all_of_the_store_gives() -> None:
    world, kept = World(), Kept()
    for hours in (30, 1, 20, 24):
        world.run(hours, ["Weather.wind"] if hours == 1 else [])
        now = world.project.clock.now()
        assert judged(world.project, ENDPOINT, kept, now=now) == judged(world.project, ENDPOINT, Kept(), now=now)
        assert judged(world.project, ENDPOINT, kept, now=now) is judged(world.project, ENDPOINT, kept, now=now)


def test_predictions_that_come_late_are_judged_with_their_hour() -> None:
    world, kept = World(), Kept()
    world.run(30)
    now = world.project.clock.now()
    judged(world.project, ENDPOINT, kept, now=now)
    late = [each for each in world.project.predictions.recent(ENDPOINT, 5 * ROWS) if each.at < START + 29 * HOUR]
    again = [msgspec.structs.replace(each, id=f"late-{each.id}", features=dict.fromkeys(NAMES)) for each in late]
    world.project.predictions.append(again)
    world.project.predictions.compact()
    contract, *_ = judged(world.project, ENDPOINT, kept, now=now)
    assert {each.statistic for each in contract.signals} == {"nulls"}


def test_old_hours_are_kept_as_days_and_very_old_ones_not_at_all() -> None:
    world, kept = World(), Kept()
    world.run(2)
    judged(world.project, ENDPOINT, kept, now=world.project.clock.now())
    judged(world.project, ENDPOINT, kept, now=START + 30 * DAY)
    [known] = kept.sketches.values()
    [(start, segment)] = known
    assert (start, segment, known[start, segment].rows) == (START // DAY * DAY, "", 2 * ROWS)
    judged(world.project, ENDPOINT, kept, now=START + 402 * DAY)
    assert kept.sketches == {}


def test_traffic_that_stops_is_an_incident_within_the_hour_after_it() -> None:
    world = World()
    world.run(8 * 24)
    assert world.look() == []
    for clock in (world.project.clock, world.project.wall):
        assert isinstance(clock, ManualClock)
        clock.advance(HOUR)
    assert world.look() == ["opened: traffic late-arrival"]
    world.hour += 1
    world.run(2)
    assert world.look() == ["closed: traffic late-arrival"]


def test_an_endpoint_without_traffic_has_nothing_judged() -> None:
    project = flights.Project(definitions=flights.definitions())
    assert all(each.windows == () for each in judged(project, ENDPOINT, Kept(), now=flights.NOW))
