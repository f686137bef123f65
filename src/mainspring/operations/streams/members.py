"""Reports of the processes that read streams, by which any machine sees how a stream is."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.data.streams.recent import Delays, Recent, delays
from mainspring.operations.stream_endpoints.sharing import Leases
from mainspring.project import Project
from mainspring.serving.streaming.runner import Runner

REPORT_S = 2.0
_NONE: Mapping[int, Delays] = {}


class Member(Delays, frozen=True, kw_only=True):
    """Report of a process that reads a stream.

    `rows` and `quarantined` are of sources, `partitions` of stream endpoints. Messages that the log accepted before
    `through`, UTC epoch microseconds, are processed; None while it has no partition.
    """

    worker: str
    messages: int = 0
    rows: int = 0
    quarantined: int = 0
    dead_letters: int = 0
    rate: float = 0.0
    through: int | None = None
    problem: str = ""
    partitions: dict[int, Delays] = {}


def report(
    project: Project,
    stream: str,
    owner: str,
    recent: Sequence[Recent],
    *,
    through: int | None,
    problem: str,
    counts: Mapping[str, int],
    partitions: Mapping[int, Delays] = _NONE,
) -> None:
    """Store a report, or none while the catalog does not answer."""
    member = Member(
        worker=owner, **counts, rate=round(sum(each.rate() for each in recent), 3), through=through, problem=problem,
        partitions=dict(partitions), **msgspec.structs.asdict(delays(recent, project.wall.now())),
    )  # fmt: skip
    with suppress(MainspringError):  # the next report may succeed
        project.stream_store.report(stream, owner, msgspec.json.encode(member))


@contextmanager
def reporting(project: Project, endpoint: str, runner: Runner, leases: Leases) -> Iterator[None]:
    """Renew the leases and report how a stream endpoint is, every two seconds inside the block."""
    done = threading.Event()

    def tell() -> None:
        leases.renew()
        partitions, now = dict(runner.partitions), project.wall.now()
        of = [each.progress for each in partitions.values() if each.progress is not None]
        messages, dead = sum(each.processed for each in of), sum(each.dead for each in of)
        report(
            project, endpoint, leases.owner, [each.recent for each in partitions.values()], through=runner.through,
            problem=runner.trouble, counts={"messages": messages, "dead_letters": dead},
            partitions={number: delays([each.recent], now) for number, each in partitions.items()},
        )  # fmt: skip

    def go_on() -> None:
        while True:
            with suppress(MainspringError):
                tell()
            if done.wait(REPORT_S):
                break

    thread = threading.Thread(target=go_on, name=f"reports of {endpoint}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
