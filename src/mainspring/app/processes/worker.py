"""What goes on beside the requests: `python -m mainspring.app.processes.worker --project ROOT [--profile P]`.

Each duty is safe to run at any time, twice, or beside a command that does the same: what it writes is a function of
what is stored.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mainspring.app.features.inuse import ViewsInUse
from mainspring.app.features.materialising import materialise_views
from mainspring.app.features.tidying import tidy
from mainspring.app.jobs.working import working
from mainspring.app.processes.process import log, run
from mainspring.app.project import Project
from mainspring.core.errors import MainspringError
from mainspring.data.retention import retain
from mainspring.features.materialise.materialisation import CLOCK_BACK

_LONGEST_WAIT_S = 60.0


@dataclass(slots=True)
class Duty:
    """Something to do again and again, by the machine's clock."""

    name: str
    do: Callable[[], None]
    every_s: float
    due: float = 0.0
    failures: int = 0

    def run(self, now: float) -> None:
        """Do it; after a failure, come back later each time."""
        try:
            self.do()
        except MainspringError as error:
            self.failures += 1
            log.warning("%s: %s", self.name, error)
        except Exception:
            self.failures += 1
            log.exception("%s failed", self.name)
        else:
            self.failures = 0
        self.due = now + min(_LONGEST_WAIT_S, self.every_s * 2**self.failures)


def duties(project: Project) -> list[Duty]:
    """Return what the worker of a project does."""
    from mainspring.app.models.promoting import publish_routes

    def route() -> None:
        publish_routes(project)

    def compact() -> None:
        project.predictions.compact()

    views = ViewsInUse(project)

    def materialise() -> None:
        now, every = project.clock.now(), project.settings.materialise_every_us
        behind = [
            view
            for view in views.by_slot().values()
            if (position := project.materialiser.position(view)) is None
            or now - position >= every
            or position - now > CLOCK_BACK
        ]
        for report in materialise_views(project, behind):
            for warning in report.warnings:
                log.warning("%s", warning)

    def put_away() -> None:
        done = tidy(project, views.by_slot())
        for slot in done.slots:
            log.info("states of %s are gone: nothing has read them for days", slot)

    quiet: dict[str, int] = {}  # table -> the version of which nothing is left to delete

    def retain_tables() -> None:
        done = retain(project.lake, project.snapshots, project.wall.now() - project.settings.keep_versions_us, quiet)
        for table, files in done.items():
            if files:
                log.info("%s: %d files of old versions are gone", table, files)

    def monitor() -> None:
        for endpoint in project.definitions.endpoints:
            project.monitor.run(endpoint)

    return [
        Duty("publishing routes", route, 5.0),
        Duty("materialising features", materialise, 1.0),
        Duty("compacting predictions", compact, 2.0),
        Duty("watching endpoints", monitor, 30.0),
        Duty("deleting old versions of tables", retain_tables, 600.0, due=time.monotonic() + 120.0),
        Duty("putting away old tiles and states", put_away, 600.0, due=time.monotonic() + 60.0),
    ]


def _body(project: Project) -> None:
    project.follow_definitions()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    work = duties(project)
    log.info("worker started")

    def come_round() -> None:
        for duty in work:
            if time.monotonic() >= duty.due and not stop.is_set():
                duty.run(time.monotonic())
        stop.wait(0.25)

    come_round()  # once, before jobs: by then most of the project is built, and what is late is done
    with working(project, stop):
        while not stop.is_set():
            come_round()


if __name__ == "__main__":
    sys.exit(run("worker", _body))
