"""Jobs in a project's store in every state that there is, and schedules that began some of them."""

from dataclasses import dataclass, replace

from kit.console.flights import NOW, Project
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.jobs.model import NewJob, Outcome, Progress, Schedule, Status, Step, Tick
from mainspring.jobs.times import parse_when
from mainspring.project.schedules import read_schedules

ERROR = "StorageFull: there is no space left for <b>OriginTraffic</b> " + "in the lake " * 20 + "\nsecond line of it"
SCHEDULES = {
    "collect-garbage": {"when": "1d", "argument": {"grace": "30d"}},
    "weekly-rebuild": {"job": "materialise", "when": "30 3 * * 1", "argument": {"rebuild": True}},
}


@dataclass(frozen=True)
class Queued:
    """The project, and the ids of its jobs."""

    project: Project
    done: str
    failed: str
    waiting: str
    running: str
    cancelled: str
    queued: str
    signal: str
    skipped: str


def queued(project: Project, more: int = 0) -> Queued:
    """Return the project with jobs and schedules; `more` jobs were done before them."""
    project = project.having(settings=replace(project.settings, schedules=read_schedules(SCHEDULES)))
    store = project.jobs
    for number in range(more):
        store.enqueue([NewJob("tidy")], NOW - 9 * DAY + number * MINUTE)
        [lease] = store.claim("early", ["tidy"], NOW - 2 * DAY, MINUTE)
        store.end(lease, Outcome(Status.DONE, result={"slots": number}), NOW - 2 * DAY + SECOND)
    garbage = Schedule("collect-garbage", "collect-garbage", parse_when("1d"), {"grace": "30d"})
    store.tick([Tick(garbage, NOW // DAY * DAY - DAY)], NOW - DAY)
    [done] = store.tick([Tick(garbage, NOW // DAY * DAY)], NOW - 10 * HOUR)
    [lease] = store.claim("station", ["collect-garbage"], NOW - 10 * HOUR, MINUTE)
    result = {"versions": [f"late-arrival:{at}" for at in range(3)], "bundles": 4, "kept": [], "odd": "\ud800 \0 <i>"}
    store.record(lease, Step("collect", result, NOW - 10 * HOUR + 4 * SECOND))
    store.end(lease, Outcome(Status.DONE, result={**result, "huge": 2**70}), NOW - 10 * HOUR + 5 * SECOND)

    [signal] = store.enqueue([NewJob("forget-jobs", {"failed": "1d"})], NOW - 4 * HOUR)
    [lease] = store.claim("station", ["forget-jobs"], NOW - 4 * HOUR, MINUTE)
    store.end(lease, Outcome(Status.WAITING), NOW - 4 * HOUR)
    [skipped] = store.enqueue([NewJob("forget-jobs", {"failed": "2d"})], NOW - 3 * HOUR)
    [lease] = store.claim("station", ["forget-jobs"], NOW - 3 * HOUR, MINUTE)
    store.end(lease, Outcome(Status.SKIPPED, error="its condition is false"), NOW - 3 * HOUR)

    [failed] = store.enqueue(
        [NewJob("materialise", {"views": ["OriginTraffic"]}, "after-the-move", started_by="user:<i>ana")],
        NOW - 2 * HOUR,
    )
    [lease] = store.claim("station", ["materialise"], NOW - 2 * HOUR, MINUTE)
    store.end(lease, Outcome(Status.FAILED, error=ERROR), NOW - 2 * HOUR + 90 * SECOND)

    [waiting] = store.enqueue([NewJob("tidy")], NOW - HOUR)
    [lease] = store.claim("station", ["tidy"], NOW - MINUTE, MINUTE)
    store.end(lease, Outcome(Status.QUEUED, error="Unavailable: redis", again_at=NOW + 8 * SECOND), NOW - SECOND)

    [running] = store.enqueue([NewJob("materialise", {"rebuild": True})], NOW - 30 * MINUTE)
    [lease] = store.claim("station@night", ["materialise"], NOW - 20 * MINUTE, HOUR)
    for name, entities in (("OriginTraffic", 3), ("Weather", 1200)):
        store.record(lease, Step(name, entities, NOW - 12 * MINUTE))
    store.report(lease, Progress(2, 5, "Carrier<script>"))

    [cancelled] = store.enqueue([NewJob("forget-jobs", {"ended": "9d"})], NOW - 5 * MINUTE)
    store.cancel([cancelled.id], NOW - 4 * MINUTE)
    [last] = store.enqueue([NewJob("forget-jobs")], NOW - MINUTE)
    return Queued(project, done.id, failed.id, waiting.id, running.id, cancelled.id, last.id, signal.id, skipped.id)
