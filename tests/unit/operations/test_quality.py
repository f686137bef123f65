from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa

from kit.console.flights import NOW, populated
from mainspring.core.errors import StorageFull
from mainspring.core.time import DAY, HOUR, SECOND
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.quality.table import Key
from mainspring.operations.quality import MeasuredWindow, harm_of, quality
from mainspring.operations.watching import CHANNELS, watch
from mainspring.registry.bundles import seal
from mainspring.stats.quality_sums import Rows, Sums, summed
from mainspring.training.bundling import parquet_file


def test_each_window_has_the_quality_of_its_versions_with_their_held_out_values() -> None:
    project = populated()
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


def test_harm_in_a_declared_segment_is_an_incident_that_names_it() -> None:
    class Still:
        def run_if_due(self, endpoint: str) -> None:
            """Leave the table as the test made it."""

    monitor = Monitor("late-arrival", segments=["Schedule.carrier"], tolerances={"brier": 0.03})
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
    bundle = seal(manifest, {**bundle.files, "holdout.parquet": parquet_file(pa.table(rows))}, project.signing_key)
    project.bundles.save(bundle)
    for day in range(20):
        start, sums = NOW // DAY * DAY - (22 - day) * DAY, {}
        whole = Sums.nothing()
        for name, broken in (("UA", day > 10), ("B6", False)):
            made = rng.random(300)
            label = rng.random(300) < (1 - made if broken else made)
            part = summed("binary", Rows(made, label.astype(float), cap=9.2))
            sums[Key("2", bundle.digest, start, f"Schedule.carrier={name}", "", HOUR // SECOND, "binary")] = part
            whole += part
        sums[Key("2", bundle.digest, start, "", "", HOUR // SECOND, "binary")] = whole
        project.quality_table.add("late-arrival", {start: NOW}, {start: sums}, f"day {day}")
    found = harm_of(project, "late-arrival", NOW)
    assert {each.segment for each in found if each.severity >= 1} >= {"Schedule.carrier=UA"}
    assert "Schedule.carrier=B6" not in {each.segment for each in found if each.severity >= 1}
    watch(project, ["late-arrival"], windows=False, channels={"harm": CHANNELS["harm"]})
    [incident] = project.incidents.open()
    assert incident.page
    assert {each.segment for each in incident.symptoms} >= {"Schedule.carrier=UA"}
    assert any("in Schedule.carrier=UA was" in each.detail for each in incident.symptoms)


def test_quality_that_cannot_be_measured_is_an_incident_of_the_monitor() -> None:
    class Full:
        def run_if_due(self, endpoint: str) -> None:
            raise StorageFull("No space left.")

    project = populated().having(quality_updates=Full())
    watch(project, ["late-arrival"], windows=False)
    part = next(each for each in project.incidents.parts() if each.part == "harm")
    assert "No space left" in part.error
    assert any("harm" in symptom.column for each in project.incidents.open() for symptom in each.symptoms)
