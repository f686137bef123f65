"""What starts pipelines by itself: schedules, new data, drift; each event starts one run, however many look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from kit.incidents import incident
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, ManualClock, to_datetime
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.jobs.model import Outcome, Status
from mainspring.monitoring.model import ColumnDrift, Window
from mainspring.operations.jobs.queue import planned
from mainspring.operations.pipelines.triggers import Triggers
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

NOW = 20_000 * DAY
FLOWS = """
import mainspring as ms

@ms.step
def act():
    pass

@ms.pipeline(every="1h")
def hourly():
    act()

@ms.pipeline(when=[ms.landed("orders")], limit=1)
def fresh():
    act()

@ms.pipeline(when=[ms.drifted("risk")])
def drifting():
    act()

@ms.pipeline(when=[ms.incident("risk", channel="contract")])
def broken():
    act()
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "mainspring.toml").write_text('name = "own"\nmodules = ["flows"]\n')
    made = open_project(load_settings(tmp_path, environment={}))
    made.wall = ManualClock(NOW)
    yield made
    made.close()


def land(project: Project, rows: int, key: str) -> None:
    table = pa.table({"id": pa.array(range(rows))})
    project.lake.append("orders", table.to_batches(), table.schema, key=key)


def window(end: int, *, alert: bool) -> Window:
    column = ColumnDrift(
        column="amount", ks=0.5, shift_sd=1.0, null_share=0.0, p_value=0.0, q_value=0.0, drifted=alert, alert=alert
    )
    return Window(
        endpoint="risk", start=end - HOUR, end=end, predictions=1, p50_ms=1.0, p99_ms=1.0, labels=0, coverage=0.0,
        lag_p50_s=None, quality={}, columns=(column,), versions={},
    )  # fmt: skip


def begun(project: Project, *lookers: Triggers) -> list[str]:
    return sorted(job.handler for looker in lookers for job in looker.look())


def test_a_schedule_starts_a_run_at_each_tick(project: Project) -> None:
    one, other = Triggers(project), Triggers(project)
    assert begun(project, one, other) == []
    assert begun(project, one, other) == []
    project.wall = ManualClock(NOW + HOUR)
    assert begun(project, one, other) == ["pipeline:hourly"]
    assert [(each.name, each.job) for each in planned(project) if each.name.startswith("pipeline")] == [
        ("pipeline:hourly", "pipeline:hourly")
    ]


def test_new_data_starts_one_run_and_none_behind_one_that_waits(project: Project) -> None:
    one, other = Triggers(project), Triggers(project)
    assert begun(project, one, other) == []
    land(project, 3, "a")
    assert begun(project, one, other) == ["pipeline:fresh"]
    [run] = project.jobs.find()
    assert run.argument == {"trigger": {"landed": "orders", "version": 0, "rows": 3}}
    land(project, 2, "b")
    assert begun(project, one, other) == []  # the one that waits will see it
    [lease] = project.jobs.claim("h", {"pipeline:fresh"}, NOW, HOUR)
    assert begun(project, one, other) == ["pipeline:fresh"]
    assert project.jobs.find(limit=1)[0].status is Status.WAITING  # one run at a time
    project.jobs.end(lease, Outcome(Status.DONE), NOW)
    assert begun(project, one, other) == []


def test_a_new_incident_of_the_channel_starts_one_run(project: Project) -> None:
    one, other = Triggers(project), Triggers(project)
    old = incident("risk", NOW - HOUR, source="old")
    project.incidents.save([old])
    assert begun(project, one, other) == []
    project.incidents.save([incident("risk", NOW, source="a", channels=("surprise",))])
    project.incidents.save([incident("elsewhere", NOW, source="b")])
    assert begun(project, one, other) == []
    [made] = project.incidents.save([incident("risk", NOW + 1, source="c")])
    assert begun(project, one, other) == ["pipeline:broken"]
    [run] = project.jobs.find()
    assert run.argument == {"trigger": {"incident": made.id, "endpoint": "risk", "cause": "source c"}}
    assert begun(project, one, other) == []


def test_a_correction_and_a_retraction_of_a_fact_are_new_data(project: Project) -> None:
    schema = {"order": ms.String, "amount": ms.Float64, "void": ms.Boolean}
    told: dict[str, Any] = {"schema": schema, "event_time": "at", "recorded_time": "known_at"}
    orders = Source("orders", id="order", retracted="void", **told)
    ingestor = Ingestor(project.lake, MemoryLocks(), project.wall)

    def lands(*rows: dict[str, Any]) -> list[str]:
        ingestor.ingest(orders, list(rows), keyings={})
        queued = begun(project, one, other)
        for lease in project.jobs.claim("h", {"pipeline:fresh"}, NOW, HOUR, 9):
            project.jobs.end(lease, Outcome(Status.DONE), NOW)
        return queued

    def fact(known: int, amount: float | None, *, void: bool = False) -> dict[str, Any]:
        at, known_at = to_datetime(NOW - 9 * HOUR), to_datetime(NOW - 9 * HOUR + known)
        return {"at": at, "known_at": known_at, "order": "a", "amount": amount, "void": void}

    one, other = Triggers(project), Triggers(project)
    assert lands(fact(0, 1.0)) == []  # seen for the first time
    assert lands(fact(HOUR, 2.0)) == ["pipeline:fresh"]
    assert lands(fact(2 * HOUR, None, void=True)) == ["pipeline:fresh"]
    assert lands(fact(1, 3.0)) == ["pipeline:fresh"]  # late, and superseded from its beginning
    assert lands(fact(1, 3.0)) == []  # landed already
    ingestor.conform(Source("orders", id="order", **told), {})  # other rules for the same rows
    assert begun(project, one, other) == []


def test_data_that_was_there_before_starts_nothing(project: Project) -> None:
    land(project, 3, "a")
    assert begun(project, Triggers(project), Triggers(project)) == []


def test_a_drift_alert_starts_a_run(project: Project) -> None:
    triggers = Triggers(project)
    project.monitors.save([window(NOW - 3 * HOUR, alert=False)])
    assert begun(project, triggers) == []
    project.monitors.save([window(NOW - HOUR, alert=True)])
    assert begun(project, triggers, Triggers(project)) == ["pipeline:drifting"]
    assert project.jobs.find()[0].argument["trigger"]["columns"] == ["amount"]
    assert project.jobs.find()[0].argument["trigger"]["alerts"] == ["amount"]


def test_definitions_that_cannot_be_loaded_start_nothing(project: Project) -> None:
    (project.settings.root / "flows.py").write_text("import nonsense_that_is_not_there")
    assert begun(project, Triggers(project)) == []
