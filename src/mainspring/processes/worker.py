"""Background duties as a process: `python -m mainspring.processes.worker --project ROOT [--profile P]`.

Each duty is safe to run at any time, twice, or beside a command that does the same, because its result is a function of
the stored data. Lanes of duties run in separate threads, so that a slow one delays no other.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from mainspring.core.errors import MainspringError
from mainspring.data.retention import retain
from mainspring.features.materialise.materialisation import CLOCK_BACK
from mainspring.operations.auditing import audit
from mainspring.operations.features.live_views import ViewsInUse, tidy
from mainspring.operations.jobs.work_loop import working
from mainspring.operations.materialize import ACTION, materialise_views
from mainspring.operations.moved_logs import tidy as tidy_moved_logs
from mainspring.operations.pipelines.triggers import Triggers
from mainspring.operations.service.sampling import Sampler
from mainspring.operations.topics import retain_messages
from mainspring.processes.process import log, run
from mainspring.project import Project

_LONGEST_WAIT_S = 60.0
_DOUBLINGS = 16  # maximum wait after a failure
_END_S = 5.0


@dataclass(slots=True)
class Duty:
    """A periodic task, by the machine's clock."""

    name: str
    do: Callable[[], None]
    every_s: float
    due: float = 0.0
    failures: int = 0
    lane: str = ""  # duties of one lane run one after another; empty: its own lane
    rest: float = 0.0  # minimum rest after a run, as a multiple of its duration
    end: Callable[[], None] | None = None  # called once, by the lane's thread, when it stops

    def run(self, now: float) -> None:
        """Run the duty; after failures, retry with growing delays."""
        begun = time.monotonic()
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
        rested_s = (1 + self.rest) * (time.monotonic() - begun) if self.rest else 0.0
        later_s = min(_LONGEST_WAIT_S, self.every_s * 2 ** min(self.failures, _DOUBLINGS))
        self.due = now + max(self.every_s, later_s, rested_s)


def duties(project: Project) -> list[Duty]:
    """Return the duties of a project's worker."""
    from mainspring.operations.answer_feedback import ingest_ratings
    from mainspring.operations.cost.machine import MachineMeter
    from mainspring.operations.cost.storage import StorageMeter, add_up
    from mainspring.operations.distributions import Kept
    from mainspring.operations.notifying import Delivery
    from mainspring.operations.promote import publish_routes
    from mainspring.operations.rollout.carrying_out import controller
    from mainspring.operations.service.skew import compare
    from mainspring.operations.watching import watch
    from mainspring.processes.shadow import ShadowProcesses
    from mainspring.processes.streams import StreamProcesses

    def route() -> None:
        publish_routes(project)

    def compact() -> None:
        project.predictions.compact()

    def rate() -> None:
        ingest_ratings(project)

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
        new = {view.name for view in behind if project.materialiser.position(view) is None}
        for report in materialise_views(project, behind):
            for warning in report.warnings:
                log.warning("%s", warning)
            if report.view in new and report.entities:
                log.info("computed %s for the first time: %d entities", report.view, report.entities)
                audit(project, ACTION, f"view/{report.view}", f"for the first time: {report.entities} entities")

    def put_away() -> None:
        done = tidy(project, views.by_slot())
        for slot in done.slots:
            log.info("deleted states of %s: nothing has read them for days", slot)

    carried = controller(project)

    def roll_out() -> None:
        carried.tick()

    shadows = ShadowProcesses(project)
    streams = StreamProcesses(project)

    sketches: dict[str, Kept] = {}

    def monitor() -> None:
        watch(project, kept=sketches)

    sampler, meter, storage = Sampler(project), MachineMeter(project), StorageMeter(project)

    def compare_features() -> None:
        for endpoint in project.definitions.endpoints:
            try:
                compare(project, endpoint, project.clock.now())
            except MainspringError as error:  # the other endpoints' are compared
                log.warning("the served features of %s are not compared: %s", endpoint, error)

    delivery = Delivery(project)

    def send() -> None:
        delivery.run()

    triggers = Triggers(project)

    def start_pipelines() -> None:
        for job in triggers.look():
            log.info("queued %s (%s)", job.handler, job.schedule)

    return [
        *_pushing(project),
        *_fleet(project),
        _streams(project),
        Duty("publishing routes", route, 5.0),
        Duty("starting pipelines", start_pipelines, 5.0),
        Duty("materialising features", materialise, 1.0, lane="features"),
        Duty("compacting predictions", compact, 2.0),
        Duty("ingesting ratings", rate, 2.0),
        Duty("carrying out rollouts", roll_out, 1.0),
        Duty("keeping the processes of shadows", shadows.keep, 1.0),
        Duty("keeping the processes of stream endpoints", streams.keep, 1.0, end=streams.end),
        Duty("tidying predictions", partial(_tidy_predictions, project), 600.0, due=time.monotonic() + 90.0),
        Duty("adding the sketches of devices", partial(_add_sketches, project), 15.0),
        Duty("removing old messages", partial(_tidy_messages, project), 60.0, due=time.monotonic() + 30.0),
        Duty("watching endpoints", monitor, 30.0, rest=4.0),  # a fifth of one processor at most
        Duty("sampling service health", sampler.look, 60.0),
        Duty("metering this machine", meter.look, 15.0),
        Duty("metering storage", storage.look, 3600.0, due=time.monotonic() + 45.0),
        Duty("adding usage up by day", partial(add_up, project), 3600.0, due=time.monotonic() + 240.0),
        Duty("comparing served features", compare_features, 300.0, due=time.monotonic() + 150.0),
        Duty("sending messages", send, 5.0),
        Duty("anchoring the audit log", partial(_anchor, project), 300.0, end=partial(_anchor, project)),
        Duty(
            "deleting old versions of tables", partial(_retain_tables, project, {}), 600.0, due=time.monotonic() + 120.0
        ),
        Duty(
            "deleting rows past their retention", partial(_end_retention, project), 3600.0, due=time.monotonic() + 180.0
        ),
        Duty("deleting old tiles and states", put_away, 600.0, due=time.monotonic() + 60.0, lane="features"),
    ]


def _retain_tables(project: Project, quiet: dict[str, int]) -> None:
    """Delete files of old versions; `quiet` keeps, of each table, the version without anything left to delete."""
    done = retain(project.lake, project.snapshots, project.wall.now() - project.settings.keep_versions_us, quiet)
    for table, files in done.items():
        if files:
            audit(project, "data.retain", f"table/{table}", f"{files} files of old versions")
            log.info("%s: deleted %d files of old versions", table, files)


def _tidy_predictions(project: Project) -> None:
    removed = project.predictions.tidy(
        made_before=project.oldest_kept(project.settings.keep_predictions_us),
        replaced_before=project.wall.now() - project.settings.keep_versions_us,
    )
    if removed:
        audit(project, "predictions.tidy", "predictions", f"{removed} older than keep_predictions")
        log.info("deleted %d predictions older than keep_predictions", removed)
    tidy_moved_logs(project)


def _add_sketches(project: Project) -> None:
    from mainspring.operations.edge.sketches import add_waiting

    add_waiting(project)


def _anchor(project: Project) -> None:
    from mainspring.operations.auditing import anchored

    try:
        for each in anchored(project, add=True):
            if each.problem:
                log.warning("the audit log is not anchored at %s: %s", each.place, each.problem)
    except MainspringError as error:
        log.warning("the audit log is not anchored: %s", error)


def _end_retention(project: Project) -> None:
    from mainspring.operations.subjects.retaining import retain as retain_rows

    done = retain_rows(project)
    if done is not None:
        log.info("deleted rows past their retention: see `mainspring subject receipt %s`", done.id)


def _tidy_messages(project: Project) -> None:
    removed = retain_messages(project)
    if removed:
        log.info("removed %d old messages from the event log", removed)


def _streams(project: Project) -> Duty:
    """Return the duty that keeps a thread for each stream."""
    from mainspring.operations.streams.running import StreamThreads

    return Duty("keeping the threads of streams", StreamThreads(project).keep, 1.0)


def _pushing(project: Project) -> list[Duty]:
    """Return the duty that pushes metrics, if the profile names a collector."""
    if not project.settings.metrics:
        return []
    from mainspring.operations.service.otlp import MetricsPush

    return [Duty("pushing metrics", MetricsPush(project, project.settings.metrics).push, 15.0)]


def _fleet(project: Project) -> list[Duty]:
    """Return the duties of a fleet, if the profile names a broker: its control, and the repository's signatures."""
    if project.settings.fleet is None:
        return []
    from mainspring.operations.edge.fleet import controller

    look = controller(project)

    def control() -> None:
        for rollout, decided in look():
            log.info("rollout of %s %d: %s, %s", rollout.package, rollout.candidate, decided.move, decided.why)

    def sign() -> None:
        if project.packages.refresh():
            log.info("signed the metadata of the repository of packages again")

    return [Duty("controlling the fleet", control, 1.0), Duty("signing the repository of packages", sign, 600.0)]


def _body(project: Project) -> None:
    project.follow_definitions()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("worker started")
    with run_lanes(duties(project), stop), working(project, stop):
        while not stop.wait(0.25):  # an unlimited wait would not notice a signal
            pass


@contextmanager
def run_lanes(work: Sequence[Duty], stop: threading.Event) -> Iterator[None]:
    """Run due duties inside the block, each lane in its own thread, until `stop` is set."""
    lanes: dict[str, list[Duty]] = {}
    for duty in work:
        lanes.setdefault(duty.lane or duty.name, []).append(duty)
    threads = [
        threading.Thread(target=_go_round, args=(lane, stop), name=name, daemon=True) for name, lane in lanes.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        end = time.monotonic() + _END_S  # the next run repeats an interrupted duty
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


def _go_round(work: list[Duty], stop: threading.Event) -> None:
    """Run due duties until `stop` is set, then end them."""
    while not stop.is_set():
        for duty in work:
            if time.monotonic() >= duty.due and not stop.is_set():
                duty.run(time.monotonic())
        stop.wait(0.25)
    for duty in work:
        if duty.end is not None:
            duty.end()


if __name__ == "__main__":
    sys.exit(run("worker", _body))
