import msgspec

from kit.console.flights import populated
from mainspring.core.errors import StorageFull
from mainspring.core.time import DAY
from mainspring.monitoring.declaring import Monitor
from mainspring.operations.quality import MeasuredWindow, harm_of, quality
from mainspring.operations.watching import watch


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


def test_quality_that_cannot_be_measured_is_an_incident_of_the_monitor() -> None:
    class Full:
        def run_if_due(self, endpoint: str) -> None:
            raise StorageFull("No space left.")

    project = populated().having(quality_updates=Full())
    watch(project, ["late-arrival"], windows=False)
    part = next(each for each in project.incidents.parts() if each.part == "harm")
    assert "No space left" in part.error
    assert any("harm" in symptom.column for each in project.incidents.open() for symptom in each.symptoms)
