"""The attribution channel over a project's log."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from kit.explained import AT, as_columns, explained, logged
from kit.models import KEY
from kit.waiting import wait_until
from mainspring.core.time import DAY, HOUR
from mainspring.ledger.model import EXPLANATIONS, Log
from mainspring.monitoring.signals import ATTRIBUTION
from mainspring.operations.attributions import KeptAttributions, attributions_judged
from mainspring.operations.explaining import explain_prediction
from mainspring.project import Project
from mainspring.project.settings import load_settings
from mainspring.serving.model import Arm, Route
from mainspring.training.conformance import CASES, make_rows

FIRST = AT // DAY * DAY
COUNT = 18


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "explained"\nmodules = []\n')
    settings = load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={})
    return Project(settings, signing_key=KEY)


def serve(project: Project, kind: str, log: Log | None = None) -> None:
    digest = explained(kind, "float32, booleans").bundle.digest
    arms = (Arm("1", digest),)
    project.routes.publish(
        [Route(endpoint="made", model="made", arms=arms, deadline_us=1, max_queue_rows=1, log=log or Log())]
    )


def test_a_feature_that_a_fault_makes_decisive_is_found_on_its_day(project: Project) -> None:
    made = explained("sklearn_linear", "float32, booleans")
    serve(project, "sklearn_linear")
    for day in range(COUNT + 1):
        frame, _ = make_rows(CASES["float32, booleans"], 80, 100 + day)
        rows = as_columns(frame)
        if day == COUNT:
            rows["V.b"] = [value * 6 for value in rows["V.b"]]
        logged(project, made.bundle, rows, at=FIRST + day * DAY + HOUR)
    logged(project, made.bundle, {name: values[:9] for name, values in rows.items()}, at=FIRST - 2 * DAY)  # few
    now, kept = FIRST + (COUNT + 1) * DAY + 2 * HOUR, KeptAttributions()
    (found,) = attributions_judged(project, "made", now, kept)
    assert (found.endpoint, found.scope) == ("made", ATTRIBUTION)
    assert found.windows[-1] == (FIRST + COUNT * DAY, FIRST + (COUNT + 1) * DAY)
    assert [each.column for each in found.signals if each.start == FIRST + COUNT * DAY] == ["V.b"]
    assert attributions_judged(project, "made", now + HOUR, kept) == [found]
    assert kept.days[FIRST - 2 * DAY] is None
    assert (
        attributions_judged(project, "made", FIRST + COUNT * DAY + 2 * HOUR, KeptAttributions())[0].windows
        == (found.windows[:-1])
    )


def test_an_endpoint_keeps_its_samples_and_the_channel_reads_them(project: Project) -> None:
    made = explained("sklearn_linear", "float32, booleans")
    serve(project, "sklearn_linear", Log(explanations=100))
    frame, _ = make_rows(CASES["float32, booleans"], 150, 7)
    many = logged(project, made.bundle, as_columns(frame), at=FIRST)
    few = logged(project, made.bundle, {name: values[:3] for name, values in made.rows.items()}, at=FIRST + DAY)
    now, kept = FIRST + 2 * DAY + 2 * HOUR, KeptAttributions()
    attributions_judged(project, "made", now, kept)
    wait_until(lambda: project.predictions.compact() == 0 and rows(project) > 0, "the explanations to be compacted")
    found = project.predictions.explained("made", "1", FIRST, FIRST + 2 * DAY)
    assert len(found) == 103
    assert {each.id for each in found} <= {*many, *few}
    one = explain_prediction(project, found[0].id)
    assert one.explanation == msgspec.json.decode(found[0].document, type=type(one.explanation))
    assert [(each.origin, each.difference, each.agrees) for each in one.kept] == [("sampled", 0.0, True)]

    again = KeptAttributions()  # of a worker that started again
    attributions_judged(project, "made", now, again)
    assert rows(project) == 103
    day, before = again.days[FIRST], kept.days[FIRST]
    assert day is not None
    assert before is not None
    assert day.rows == before.rows == 100
    assert sorted(day.mean) == pytest.approx(sorted(before.mean))
    assert again.days[FIRST + DAY] is None  # few


def rows(project: Project) -> int:
    """Return the number of rows of the table of explanations."""
    if project.lake.version(EXPLANATIONS) is None:
        return 0
    files = project.lake.scan(EXPLANATIONS).files or ()
    return sum(pq.read_metadata(each).num_rows for each in files)


def test_what_cannot_be_explained_or_serves_nothing_is_not_judged(project: Project) -> None:
    assert attributions_judged(project, "made", FIRST, KeptAttributions()) == []
    made = explained("sklearn_mlp", "float32, booleans")
    project.bundles.save(made.bundle)
    serve(project, "sklearn_mlp")
    kept = KeptAttributions()
    assert attributions_judged(project, "made", FIRST, kept) == []
    assert kept.digest == made.bundle.digest  # and is not loaded again in each pass
