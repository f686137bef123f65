import msgspec

from kit.console.flights import NOW, populated, windows
from mainspring.console.endpoints.overview import overview
from mainspring.console.endpoints.period import Period
from mainspring.core.time import WEEK
from mainspring.monitoring.model import VersionQuality
from mainspring.operations.advise.facts import collect
from mainspring.operations.ci import candidate
from mainspring.operations.endpoint_health import health
from mainspring.operations.status import status


def test_quality_belongs_to_the_version_that_predicted_in_the_newest_window_with_labels() -> None:
    project = populated()
    made = {"1": VersionQuality(labels=40, quality={"auc": 0.61})}
    late = msgspec.structs.replace(windows()[-1], versions={"1": 50}, by_version=made, labels=40, coverage=0.8)
    silent = msgspec.structs.replace(late, start=NOW, end=NOW + WEEK, labels=0, quality={}, by_version={}, coverage=0.0)
    project.monitors.save([late, silent])
    [endpoint] = status(project).endpoints
    assert endpoint.versions == {"2": 1.0}  # live
    assert endpoint.quality_by_version == made
    assert (endpoint.quality, endpoint.coverage) == (late.quality, 0.8)


def test_a_window_of_an_earlier_release_is_that_of_its_only_version() -> None:
    project = populated()
    [endpoint] = status(project).endpoints
    assert list(endpoint.quality_by_version) == ["2"]
    both = msgspec.structs.replace(windows()[-1], versions={"1": 1, "2": 1})
    project.monitors.save([both])
    assert status(project).endpoints[0].quality_by_version == {}


def test_drifted_columns_are_counted_alike_everywhere() -> None:
    project = populated()
    newest = windows()[-1]
    first = next(column for column in newest.columns if column.drifted)
    others = [column for column in newest.columns if column != first]
    newest = msgspec.structs.replace(newest, columns=(*others, msgspec.structs.replace(first, alert=False)))
    project.monitors.save([newest])
    drifted, alerts = newest.drifted, newest.alerts
    assert len(drifted) > len(alerts) > 0
    [endpoint] = status(project).endpoints
    assert (endpoint.drifted_columns, endpoint.alerting_columns) == (drifted, alerts)
    [advised] = collect(project).endpoints
    assert (advised.drifted, advised.alerts) == (tuple(drifted), tuple(alerts))
    [health_row] = health(project)
    shown = overview(project, "late-arrival", Period())
    assert (health_row.drifted, shown.drifted, shown.alerts) == (len(drifted), len(drifted), len(alerts))
    [checked] = candidate._drift(project, next(iter(project.definitions.models.values())))
    assert checked.detail.startswith(f"{len(drifted)} of {len(newest.judged)} columns of late-arrival drifted, ")
