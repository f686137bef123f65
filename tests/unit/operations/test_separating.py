"""The weekly classifier over a project's log: each week is judged once, in one pass, also after a kill."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kit.explained import AT, as_columns, explained, logged
from kit.models import KEY
from mainspring.core.errors import Unavailable
from mainspring.core.time import DAY, HOUR
from mainspring.data.adapters.memory import MemoryLake
from mainspring.monitoring.channels.separation import Separation
from mainspring.monitoring.channels.windows import WEEK
from mainspring.monitoring.incidents.model import scope
from mainspring.monitoring.separations import TABLE
from mainspring.monitoring.signals import CLASSIFIER, JOINT
from mainspring.operations.separating import KeptSeparations, separations_judged
from mainspring.project import Project
from mainspring.project.definitions.model import Definitions
from mainspring.project.settings import load_settings
from mainspring.serving.model import Arm, Route
from mainspring.training.conformance import CASES, make_rows

FIRST = (AT // WEEK + 1) * WEEK
WEEKS = 3


class Lake(MemoryLake):
    killed = False

    def append(self, table: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, key: str) -> int | None:
        if self.killed and table == TABLE:
            raise Unavailable("killed before the write")
        return super().append(table, rows, schema, key=key)


@pytest.fixture
def lake() -> Lake:
    return Lake()


@pytest.fixture
def project(tmp_path: Path, lake: Lake) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "separated"\nmodules = []\n')
    settings = load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={})
    nothing = Definitions({}, {}, {}, {}, (), {}, {}, {})
    made = Project(settings, signing_key=KEY, lake=lake, definitions=nothing)
    served = explained("sklearn_linear", "float32, booleans")
    arms = (Arm("1", served.bundle.digest),)
    made.routes.publish([Route(endpoint="made", model="made", arms=arms, deadline_us=1, max_queue_rows=1)])
    for day in [7 * week + day for week in range(WEEKS) for day in range(3)]:
        frame, _ = make_rows(CASES["float32, booleans"], 200, 100 + day)
        logged(made, served.bundle, as_columns(frame), at=FIRST + day * DAY + HOUR)
    return made


def stored(lake: Lake) -> list[dict[str, Any]]:
    return [] if lake.version(TABLE) is None else lake.scan(TABLE).rows.to_pylist()  # type: ignore[union-attr]


def test_each_week_is_measured_once_in_a_pass_and_never_again(project: Project, lake: Lake) -> None:
    now, kept = FIRST + WEEKS * WEEK + 2 * HOUR, KeptSeparations()
    lake.killed = True
    with pytest.raises(Unavailable):
        separations_judged(project, "made", now, kept)
    assert stored(lake) == []
    lake.killed = False
    for number in range(1, 9):  # the weeks before the log are empty
        separations_judged(project, "made", now, KeptSeparations() if number == 3 else kept)
        assert len(stored(lake)) == number
    first = stored(lake)
    assert [row["rows"] > 0 for row in sorted(first, key=lambda row: row["week"])] == [False] * 6 + [True] * 2
    assert {row["before"] for row in first} == {0, 600, 1_200}
    for again in (kept, KeptSeparations()):
        assert separations_judged(project, "made", now, again) == []  # too few weeks for an alarm
    assert stored(lake) == first
    assert kept.until == FIRST + WEEKS * WEEK
    assert separations_judged(project, "nothing", now, KeptSeparations()) == []


def test_weeks_without_an_alarm_are_judged_windows_of_their_own_scope(project: Project) -> None:
    aucs = [0.61, 0.63, 0.6, 0.62, 0.75, 0.61]
    weeks = [Separation(number * WEEK, 1_500, 3_000, auc, 0.009) for number, auc in enumerate(aucs)]
    [judged] = separations_judged(project, "made", 0, KeptSeparations(2**62, weeks))
    assert (judged.endpoint, judged.scope) == ("made", scope(JOINT, CLASSIFIER, ""))
    assert judged.windows == ((4 * WEEK, 5 * WEEK), (5 * WEEK, 6 * WEEK))
    assert [each.start for each in judged.signals] == [4 * WEEK]
