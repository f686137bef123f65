"""Automatic starts of pipelines: schedules, new data in a source, drift and incidents of an endpoint.

Each trigger is a mark in the job store, moved with the run that it queues in one transaction: however many workers
look, an event starts one run. What was there when a trigger is first seen starts none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import DAY
from mainspring.jobs.model import Job, Schedule, Status, Tick
from mainspring.jobs.pipelines.graph import Graph, Trigger
from mainspring.jobs.plain import Plain
from mainspring.jobs.times import Every, parse_when
from mainspring.operations.pipelines.names import RUN, of_run
from mainspring.project import Project

_LOOKED_AT_US = 8 * DAY  # windows that may hold an alert that is new
_INCIDENTS = 100  # newest of an endpoint, among which one of a channel is looked for
_NEVER = Every(DAY)  # a mark has no due times


class Triggers:
    """Looks for due schedules and new events of a project's pipelines. Calls the store only for those that are new."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._known: dict[str, int] = {}

    def look(self) -> list[Job]:
        """Queue the runs that are due, and return them."""
        ticks = [tick for tick in self._ticks() if self._known.get(tick.schedule.name) != tick.at]
        queued = self._project.jobs.tick(ticks, self._project.wall.now()) if ticks else []
        self._known |= {tick.schedule.name: tick.at for tick in ticks}
        return queued

    def _ticks(self) -> Iterator[Tick]:
        now = self._project.wall.now()
        for schedule in pipeline_schedules(self._project):
            yield Tick(schedule, schedule.when.last(now))
        for graph in _graphs(self._project):
            for trigger in graph.triggers:
                found = self._event(trigger)
                if found is not None and not self._waits(graph.name):
                    name, at, told = found
                    mark = hashlib.sha256(f"{graph.name}\0{name}".encode()).hexdigest()[:40]
                    yield Tick(_scheduled(graph, f"{trigger.kind}:{mark}", {"trigger": told}), at)

    def _event(self, trigger: Trigger) -> tuple[str, int, Plain] | None:
        """Return a mark's name, the position of the newest event, and what the run is told of it."""
        if trigger.kind == "landed":
            try:
                found = self._project.lake.describe(trigger.name)
            except NotFound:
                return f"landed {trigger.name} None", 0, None
            # Rows, not versions: a version of the same rows in fewer files is no new data. A restore begins anew.
            told = {"landed": trigger.name, "version": found.version, "rows": found.rows}
            return f"landed {trigger.name} {found.restored}", found.rows, told
        if trigger.kind == "drifted":
            now = self._project.clock.now()
            windows = self._project.monitors.windows(trigger.name, now - _LOOKED_AT_US)
            alerts = [window for window in windows if window.alerts]
            if not alerts:
                return f"drifted {trigger.name}", 0, None
            newest = alerts[-1]
            told = {
                "drifted": trigger.name,
                "window_end": newest.end,
                "columns": newest.drifted,
                "alerts": newest.alerts,
            }
            return f"drifted {trigger.name}", alerts[-1].end, told
        return self._incident(trigger) if trigger.kind == "incident" else None

    def _incident(self, trigger: Trigger) -> tuple[str, int, Plain]:
        endpoint, _, channel = trigger.name.partition("/")
        found = self._project.incidents.find(endpoint=endpoint, limit=_INCIDENTS)
        newest = next((each for each in found if channel in ("", *each.channels)), None)
        if newest is None:
            return f"incident {trigger.name}", 0, None
        told: Plain = {"incident": newest.id, "endpoint": endpoint, "cause": str(newest.cause)}
        return f"incident {trigger.name}", newest.opened_at, told

    def _waits(self, pipeline: str) -> bool:
        """Return whether a run has not begun yet: it will see the newest data, so another need not wait behind it."""
        waiting = self._project.jobs.find(handlers={f"{RUN}{pipeline}"}, statuses={Status.QUEUED, Status.WAITING})
        return any(job.started_at is None for job in waiting)


def pipeline_schedules(project: Project) -> list[Schedule]:
    """Return the schedules of a project's pipelines; none while its definitions cannot be loaded."""
    return [
        _scheduled(graph, f"{RUN}{graph.name}", None, graph.schedule) for graph in _graphs(project) if graph.schedule
    ]


def _graphs(project: Project) -> list[Graph]:
    try:
        return [each.graph for each in project.definitions.pipelines.values()]
    except Invalid:
        return []


def _scheduled(graph: Graph, name: str, argument: Plain, when: str = "") -> Schedule:
    job = of_run(graph, argument)
    due = parse_when(when) if when else _NEVER
    return Schedule(name[:128], job.handler, due, argument, job.group, job.group_limit, job.priority)
