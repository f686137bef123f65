from kit.console.flights import populated
from mainspring.operations.quality import quality


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
