"""The attribution channel over a project's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.explained import AT, as_columns, explained, logged
from kit.models import KEY
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.signals import ATTRIBUTION
from mainspring.operations.attributions import KeptAttributions, attributions_judged
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


def serve(project: Project, kind: str) -> None:
    digest = explained(kind, "float32, booleans").bundle.digest
    arms = (Arm("1", digest),)
    project.routes.publish([Route(endpoint="made", model="made", arms=arms, deadline_us=1, max_queue_rows=1)])


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


def test_what_cannot_be_explained_or_serves_nothing_is_not_judged(project: Project) -> None:
    assert attributions_judged(project, "made", FIRST, KeptAttributions()) == []
    made = explained("sklearn_mlp", "float32, booleans")
    project.bundles.save(made.bundle)
    serve(project, "sklearn_mlp")
    kept = KeptAttributions()
    assert attributions_judged(project, "made", FIRST, kept) == []
    assert kept.digest == made.bundle.digest  # and is not loaded again in each pass
