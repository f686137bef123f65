"""Each effect that is no command's alone has one event: of streams, jobs, pipelines and what a worker puts away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kit.waiting import wait_until
from mainspring.core.time import DAY, ManualClock
from mainspring.jobs.model import Job
from mainspring.operations.features.live_views import tidy
from mainspring.operations.jobs.queue import begin, run_here
from mainspring.operations.materialize import materialise
from mainspring.operations.pipelines import control
from mainspring.operations.streams.running import StreamThreads, land_to_the_end, seek
from mainspring.operations.topics import create_topic, produce_lines, retain_messages
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import local_user

FILE = '''
import mainspring as ms
from mainspring.core.errors import Invalid

user = ms.Entity("user", keys={"user": ms.String})
clicks = ms.Source("clicks", schema={"user": ms.String}, event_time="at")
ms.Stream(clicks, topic="clicks", start="first")


@ms.feature_view(entity=user, source=clicks)
class Clicks:
    n = ms.count(window="90d")


@ms.job
def call(run, project):
    """Call somebody."""
    if run.argument == "fails":
        raise Invalid("nobody is there")


@ms.step
def one() -> int:
    return 1


@ms.pipeline
def nightly():
    return one()
'''


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "effects.py").write_text(FILE)
    (tmp_path / "mainspring.toml").write_text('name = "effects"\nmodules = ["effects"]\n')
    made = open_project(load_settings(tmp_path, environment={}))
    yield made
    made.close()


class Since:
    """Events of a log since the last look."""

    def __init__(self, project: Project) -> None:
        self._project, self._seen = project, 0

    def __call__(self) -> list[tuple[str, str, str]]:
        found = self._project.audit.read(1_000)[::-1]
        new, self._seen = found[self._seen :], len(found)
        assert {each.actor for each in new} <= {local_user()}
        return [(each.action, each.resource, each.detail) for each in new]


def done(project: Project, name: str, argument: Any = None) -> Job:
    return run_here(project, begin(project, name, argument).id)


def test_topics_streams_and_views(project: Project) -> None:
    since = Since(project)
    create_topic(project, "clicks", 2)
    at = datetime.now(UTC).isoformat()
    produce_lines(project, "clicks", [f'{{"user": "ana", "at": "{at}"}}'.encode()])
    assert since() == [
        ("topics.create.begun", "topic/clicks", ""),
        ("topics.create", "topic/clicks", "2 partitions (since event 0)"),
        ("topics.produce", "topic/clicks", "1 messages"),
    ]
    stop = threading.Event()
    assert land_to_the_end(project, ["clicks"], stop) == {"clicks": 1}
    [(action, resource, told)] = since()  # its steps are none
    assert (action, resource, told.partition(",")[0]) == ("stream.start", "source/clicks", "to its end")
    streams = StreamThreads(project)
    streams.keep()
    wait_until(lambda: "stream.start" in {each.action for each in project.audit.read(1)}, "the stream")
    streams.end()
    since()
    seek(project, "clicks", "first")
    assert [action for action, _, _ in since()] == ["stream.seek.begun", "stream.seek"]

    produce_lines(project, "clicks", [f'{{"user": "ben", "at": "{at}"}}'.encode()])
    land_to_the_end(project, ["clicks"], stop)
    since()
    materialise(project)
    assert since() == []  # the stream has done so
    materialise(project, rebuild=True)
    (begun, _, _), (action, resource, told) = since()
    assert (begun, action, resource) == ("materialise.begun", "materialise", "view/Clicks")
    assert told.startswith("rebuilt: 2 entities of Clicks (since event ")
    done(project, "materialise")
    assert [action for action, _, _ in since()] == ["jobs.run"]
    [slot] = project.online.views()
    project.online.clear(slot)
    made = done(project, "materialise")
    assert since() == [
        ("jobs.run", f"job/{made.id}", "materialise"),
        ("materialise", "view/Clicks", "2 entities of Clicks"),
    ]

    assert tidy(project, {}).slots == []  # somebody may go back to them
    assert retain_messages(project) == 0
    assert since() == []
    project.clock = ManualClock(project.clock.now() + 8 * DAY)
    assert tidy(project, {}).slots == [slot]
    assert [(action, resource) for action, resource, _ in since()] == [("features.tidy", "views")]
    project.settings = replace(project.settings, keep_messages_us=0)
    assert retain_messages(project) == 2
    assert since() == [("topics.retain", "topics", "2 messages removed")]


def test_jobs_and_pipelines(project: Project) -> None:
    since = Since(project)
    made, failed = done(project, "call"), done(project, "call", "fails")
    assert since() == [
        ("jobs.run", f"job/{made.id}", "call"), ("jobs.end", f"job/{made.id}", "call done"),
        ("jobs.run", f"job/{failed.id}", "call"), ("jobs.end", f"job/{failed.id}", "failed: Invalid"),
    ]  # fmt: skip
    done(project, "forget-jobs", {"failed": "0s"})
    assert since()[-1] == ("jobs.forget", "jobs", "0 ended, 1 failed")
    done(project, "forget-jobs", {"failed": "0s"})
    assert [action for action, _, _ in since()] == ["jobs.run"]
    done(project, "evidence", {"frameworks": ["ccpa"]})
    assert [(action, resource) for action, resource, _ in since()][1:] == [("evidence", "framework/ccpa")]
    run = control.start(project, "nightly").id
    control.run_here(project, run)
    assert since() == [
        ("pipelines.run", "pipeline/nightly", run), ("pipelines.end", f"run/{run}", "nightly done")
    ]  # fmt: skip
    run = control.start(project, "nightly").id
    control.cancel(project, run)
    control.retry(project, run)
    control.run_here(project, run)
    assert [action for action, _, _ in since()] == [
        "pipelines.run", "pipelines.cancel", "pipelines.retry", "pipelines.end"
    ]  # fmt: skip
