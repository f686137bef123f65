from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from kit.console import flights
from kit.console.flights import NOW, populated
from mainspring.console.endpoints.performance import interval, performance
from mainspring.console.endpoints.period import Period
from mainspring.core.errors import StorageFull
from mainspring.core.expr import col, hours
from mainspring.core.schema import Float32, String
from mainspring.core.time import DAY, HOUR, SECOND, ManualClock
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source
from mainspring.features.model import Observations, RequestFeatures
from mainspring.ledger.model import FALLBACK, Prediction, Selection
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.quality.declared import Forecast, Ranking
from mainspring.monitoring.quality.table import Key
from mainspring.operations.quality import MeasuredWindow, harm_of, quality
from mainspring.operations.watching import CHANNELS, watch
from mainspring.registry.bundles import seal
from mainspring.registry.model import Manifest
from mainspring.serving.model import Endpoint
from mainspring.stats.quality_sums import Rows, Sums, summed
from mainspring.stats.reference import profile
from mainspring.training.bundling import parquet_file
from mainspring.training.label import as_label
from mainspring.training.model import Model


def test_each_window_has_the_quality_of_its_versions_with_their_held_out_values() -> None:
    project = populated()
    project.predictions.compact()
    again = [each for part in project.predictions.scan(Selection(since=NOW - 10 * DAY)) for each in part]
    project.predictions.append(
        [msgspec.structs.replace(each, id=f"x{each.id}", outputs={FALLBACK: "{}"}) for each in again[::3]]
    )  # which a fallback answered
    project.predictions.compact()
    project.monitor.run("late-arrival")
    windows = project.monitors.windows("late-arrival")
    assert quality(project, "late-arrival", windows)[-1].measured == []  # not measured yet
    project.quality_updates.run("late-arrival")
    newest = quality(project, "late-arrival", windows)[-1]
    (part,) = newest.measured
    assert (newest.start, part.version, part.segment) == (windows[-1].start, "2", "")
    assert (part.predictions, part.labels) == (windows[-1].predictions, windows[-1].labels)
    assert part.labels > 0
    assert part.held_out["auc"] == 0.7377
    assert part.figures["brier"].value == windows[-1].by_version["2"].quality["brier"]
    assert part.figures["brier"].value == pytest.approx(0.215608773)  # as without those
    assert quality(project, "late-arrival", []) == []
    assert msgspec.json.decode(msgspec.json.encode(newest), type=MeasuredWindow) == newest


def test_harm_against_the_declared_tolerance_is_an_incident() -> None:
    project = populated()
    project.predictions.compact()
    project.definitions.monitors["late-arrival"] = Monitor("late-arrival", tolerances={"brier": 0.001})  # type: ignore[index]
    project.monitor.run("late-arrival")
    project.quality_updates.run("late-arrival")
    found = harm_of(project, "late-arrival", project.clock.now() + 2 * DAY)
    assert {(each.version, each.metric) for each in found} == {("2", "brier")}
    assert all(each.held_out == 0.1612 for each in found)
    watch(project, ["late-arrival"], windows=False)
    part = next(each for each in project.incidents.parts() if each.part == "harm")
    assert part.error == ""


@pytest.mark.parametrize("found", [False, True])
def test_harm_in_a_segment_that_is_declared_or_found_is_an_incident_that_names_it(found: bool) -> None:
    class Still:
        def run_if_due(self, endpoint: str) -> None:
            """Leave the table as the test made it."""

    monitor = Monitor("late-arrival", segments=[] if found else ["Schedule.carrier"], tolerances={"brier": 0.03})
    project = populated()
    project = project.having(
        definitions=replace(project.definitions, monitors={"late-arrival": monitor}), quality_updates=Still()
    )
    rng = np.random.default_rng(5)
    carrier = rng.choice(["UA", "B6"], 4_000)
    score = rng.random(4_000)
    rows = {
        "Schedule.carrier": carrier,
        "_at": pa.array(NOW - 60 * DAY + np.arange(4_000) * 10_000_000, pa.timestamp("us", tz="UTC")),
        "_label": rng.random(4_000) < score,
        "_scores": pa.array([[each] for each in score], pa.list_(pa.float64())),
    }
    bundle = project.bundles.load(project.versions.get("late-arrival", "2").digest)
    manifest = msgspec.structs.replace(bundle.manifest, metrics={"brier": 0.1667}, files={})
    files = {**bundle.files, "holdout.parquet": parquet_file(pa.table(rows))}
    if found:
        reference = profile({"Schedule.carrier": carrier.tolist()})
        reference = msgspec.structs.replace(reference, crossed=("Schedule.carrier",))
        files |= {"reference.json": msgspec.json.encode(reference)}
    bundle = seal(manifest, files, project.signing_key)
    project.bundles.save(bundle)
    table = project.crossed_quality if found else project.quality_table
    for day in range(20):
        start, sums = NOW // DAY * DAY - (22 - day) * DAY, {}
        whole = Sums.nothing()
        for name, broken in (("UA", day > 10), ("B6", False)):
            made = rng.random(300)
            label = rng.random(300) < (1 - made if broken else made)
            part = summed("binary", Rows(made, label.astype(float), cap=9.2))
            sums[Key("2", bundle.digest, start, f"Schedule.carrier={name}", "", HOUR // SECOND, "binary")] = part
            whole += part
        every = {Key("2", bundle.digest, start, "", "", HOUR // SECOND, "binary"): whole}
        table.add("late-arrival", {start: NOW}, {start: sums}, f"day {day}")
        project.quality_table.add("late-arrival", {start: NOW}, {start: every}, f"day {day} whole")
    judged = harm_of(project, "late-arrival", NOW)
    assert {each.segment for each in judged if each.severity >= 1} >= {"Schedule.carrier=UA"}
    assert "Schedule.carrier=B6" not in {each.segment for each in judged if each.severity >= 1}
    watch(project, ["late-arrival"], windows=False, channels={"harm": CHANNELS["harm"]})
    incidents = project.incidents.open()
    assert all(incident.page for incident in incidents)
    symptoms = [each for incident in incidents for each in incident.symptoms]
    assert {each.segment for each in symptoms} >= {"Schedule.carrier=UA"}
    assert any("in Schedule.carrier=UA was" in each.detail for each in symptoms)


def forecasts(monitor: Monitor, rows: int = 400) -> flights.Project:
    """Return a project whose endpoint forecasts a number three horizons ahead, with labels for all but the last day."""
    plan = RequestFeatures("Plan", {name: col("flight") for name in ("days", "last")})
    outcomes = Source("outcomes", schema={"flight": String, "demand": Float32}, event_time="landed_at")
    observations = Observations(
        flights.schedule, keys=[flights.flight, flights.origin], at=col("scheduled_departure") - hours(2)
    )
    model = Model(
        "demand", train=flights.train, observations=observations, features=(plan,), label=as_label(outcomes.demand),
        task="regression",
    )  # fmt: skip
    defined = flights.declared(
        sources={"schedule": flights.schedule, "outcomes": outcomes}, models={"demand": model},
        endpoints={"demand": Endpoint("demand", model="demand@champion")}, monitors={"demand": monitor},
    )  # fmt: skip
    settings = replace(flights._settings(), monitor_window_us=DAY)
    project = flights.Project(settings, definitions=defined)
    rng = np.random.default_rng(8)
    reference = profile({"value": rng.normal(size=500), "Plan.days": [float(row % 3) for row in range(500)]})
    bundle = seal(
        Manifest(
            model="demand", task="regression", flavour="onnx", inputs=(), outputs=("value",), run_id="r",
            dataset_commit="c", features_digest="f", code_version="v", created_at=0, metrics={"mae": 1.0},
        ),
        {
            "model.onnx": flights.model_file(),
            "reference.json": msgspec.json.encode(msgspec.structs.replace(reference, crossed=("Plan.days",))),
        },
        project.signing_key,
    )  # fmt: skip
    project.bundles.save(bundle)
    truth, last = rng.normal(size=rows), rng.normal(size=rows)
    days = np.arange(rows) % 3
    score = truth + rng.normal(size=rows) * (1 + days)
    at = NOW // DAY * DAY - 4 * DAY + np.arange(rows) * 4 * DAY // rows
    project.predictions.append(
        [
            Prediction(
                id=f"p{row}", endpoint="demand", model="demand", version="1", digest=bundle.digest, at=int(at[row]),
                keys={"flight": f"f{row}", "query": f"q{row // 8}"}, request={}, statuses={}, latency_us=1_000,
                principal="test", features={"Plan.days": float(days[row]), "Plan.last": float(last[row])},
                outputs={"value": float(score[row])},
            )
            for row in range(rows)
        ]
    )  # fmt: skip
    project.predictions.compact()
    known = at < NOW // DAY * DAY - DAY
    landed = pa.array(at[known] + HOUR, pa.timestamp("us", tz="UTC"))
    labels = pa.table(
        {
            "flight": [f"f{row}" for row in np.flatnonzero(known)],
            "demand": pa.array(truth[known], pa.float32()),
            "landed_at": landed,
            VISIBLE_AT: landed,
            SEQUENCE: pa.array(range(int(known.sum())), pa.int64()),
        }
    )
    project.lake.append("outcomes", labels.to_batches(), labels.schema, key="first")
    project.monitor.run("demand")
    project.quality_updates.run("demand")
    return project


def test_forecasts_have_their_quality_by_horizon_with_intervals_up_to_the_console() -> None:
    project = forecasts(Monitor("demand", forecast=Forecast("Plan.days", naive="Plan.last", quantile=0.5)))
    found = quality(project, "demand", project.monitors.windows("demand"))
    day = next(window for window in found if window.labels)
    parts = {part.segment: part for part in day.measured}
    assert set(parts) == {"", "Plan.days=0", "Plan.days=1", "Plan.days=2"}
    for part in parts.values():
        assert {"mae", "mase", "quantile_loss"} <= set(part.figures)
        for name in ("mae", "mase", "quantile_loss"):
            figure = part.figures[name]
            assert figure.low is not None
            assert figure.low < figure.value < (figure.high or 0.0)
    crossed = project.crossed_quality.sums("demand", day.start, day.end)
    assert {key.segment.partition("=")[0] for key in crossed} == {"Plan.days"}
    assert sum(sums["labels"] for sums in crossed.values()) == day.labels
    errors = [parts[f"Plan.days={days}"].figures["mae"].value for days in range(3)]
    assert errors == sorted(errors)
    shown = performance(project, "demand", Period("", day.start, day.end), "mase")
    assert {part.segment for part in shown.parts} == set(parts)
    assert shown.metric == "mase"


def test_rankings_have_their_quality_with_an_interval_up_to_the_console() -> None:
    project = forecasts(Monitor("demand", ranking=Ranking("query", k=5)))
    found = quality(project, "demand", project.monitors.windows("demand"))
    day = next(window for window in found if window.labels)
    [part] = day.measured
    assert part.figures["ndcg"].rows == part.figures["map"].rows >= 12
    for name in ("ndcg", "map"):
        assert part.figures[name].low is not None
        assert (part.figures[name].low or 0.0) < part.figures[name].value < 1.0
    shown = performance(project, "demand", Period("", day.start, day.end), "ndcg")
    assert shown.shown_metrics[0] == "ndcg"
    assert str(round(part.figures["ndcg"].value, 4)) in str(interval(shown.parts[0].figures["ndcg"]))


def test_one_row_an_empty_window_and_a_clock_that_goes_back_are_measured_as_what_they_are() -> None:
    project = forecasts(Monitor("demand"), rows=4)  # one a day, and the last without a label
    windows = project.monitors.windows("demand")
    found = quality(project, "demand", windows)
    [part] = next(window for window in found if window.labels).measured
    assert (part.predictions, part.labels, part.estimated) == (1, 1, {})
    assert part.figures["mae"].low is None
    empty = msgspec.structs.replace(windows[0], start=windows[0].start - DAY, end=windows[0].start, predictions=0)
    assert quality(project, "demand", [empty])[0].measured == []
    before = project.quality_table.sums("demand", 0, 2**60)
    clock = project.clock
    assert isinstance(clock, ManualClock)
    clock.set(NOW - 2 * DAY)
    project.monitor.run("demand")
    project.quality_updates.run("demand")
    assert quality(project, "demand", project.monitors.windows("demand")) is not None
    assert harm_of(project, "demand", clock.now()) is not None
    clock.set(NOW)
    project.monitor.run("demand")
    project.quality_updates.run("demand")
    after = project.quality_table.sums("demand", 0, 2**60)
    assert {key: sums["labels"] for key, sums in after.items()} == {key: sums["labels"] for key, sums in before.items()}


def test_a_version_without_traffic_has_no_part_and_no_harm() -> None:
    project = forecasts(Monitor("demand"))
    assert {key.version for key in project.quality_table.sums("demand", 0, 2**60)} == {"1"}
    found = quality(project, "demand", project.monitors.windows("demand"))
    assert {part.version for window in found for part in window.measured} == {"1"}
    assert {each.version for each in harm_of(project, "demand", NOW)} <= {"1"}


def test_quality_that_cannot_be_measured_is_an_incident_of_the_monitor() -> None:
    class Full:
        def run_if_due(self, endpoint: str) -> None:
            raise StorageFull("No space left.")

    project = populated().having(quality_updates=Full())
    watch(project, ["late-arrival"], windows=False)
    part = next(each for each in project.incidents.parts() if each.part == "harm")
    assert "No space left" in part.error
    assert any("harm" in symptom.column for each in project.incidents.open() for symptom in each.symptoms)
