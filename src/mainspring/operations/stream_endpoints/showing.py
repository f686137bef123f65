"""Progress of stream endpoints, read from their states, whoever runs them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

from mainspring.core.errors import MainspringError
from mainspring.core.time import SECOND
from mainspring.data.streams.model import Span
from mainspring.project import Project
from mainspring.serving.streaming.partition import PREDICTIONS
from mainspring.serving.streaming.progress import NEVER, Progress
from mainspring.serving.streaming.state import PartitionState


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Progress in one partition. Offsets are text: some logs have more than 64 bits.

    Attributes:
        lag: Messages in the log that are not processed; None while the log does not answer.
        lag_s: Age of the last processed message when there are newer ones, else 0.
        watermark: Instant before which an event is late, None without events; UTC epoch microseconds.
        waiting: Sink -> entries that it has not delivered.
    """

    partition: int
    next: str
    lag: int | None
    lag_s: float | None
    watermark: int | None
    processed: int
    emitted: int
    late: int
    dead: int
    duplicates: int
    clamped: int
    version: str
    at: int
    waiting: dict[str, int]


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream endpoint at a glance. `problem` says why the log's ends are unknown."""

    endpoint: str
    topic: str
    model: str
    to: list[str]
    dead_letters: str
    partitions: list[PartitionStatus] = field(default_factory=list)
    problem: str = ""

    @property
    def watermark(self) -> int | None:
        """The smallest of the partitions'."""
        known = [each.watermark for each in self.partitions if each.watermark is not None]
        return min(known, default=None)

    @property
    def lag(self) -> int | None:
        known = [each.lag for each in self.partitions if each.lag is not None]
        return sum(known) if known else None

    def total(self, name: str) -> int:
        """Return the sum of one of the counts: `processed`, `late`, ..."""
        return sum(getattr(each, name) for each in self.partitions)


def status(project: Project, name: str) -> StreamStatus:
    """Return a stream endpoint's progress.

    Raises:
        NotFound: There is no such stream endpoint.
    """
    endpoint = project.definitions.stream_endpoint(name)
    states = project.stream_states(name)
    found = {number: _read(states.open(number, durable=False)) for number in states.partitions()}
    spans, problem = _spans(project, endpoint.topic)
    partitions = [
        _status(number, progress, waiting, spans.get(number), endpoint.lateness_us, project.wall.now())
        for number, (progress, waiting) in found.items()
        if progress is not None
    ]
    to = [sink.id for sink in endpoint.to]
    return StreamStatus(name, endpoint.topic, endpoint.model, to, endpoint.dead_letters, partitions, problem)


def _spans(project: Project, topic: str) -> tuple[dict[int, Span], str]:
    try:
        return project.streams.spans(topic, project.streams.partitions(topic)), ""
    except MainspringError as error:
        return {}, str(error)


def _read(state: PartitionState) -> tuple[Progress | None, dict[str, int]]:
    with closing(state):
        progress = state.progress()
        if progress is None:
            return None, {}
        heads = {id_: progress.batch if id_ == PREDICTIONS else progress.seq for id_ in state.sinks()}
        return progress, {id_: head - state.done(id_) for id_, head in heads.items()}


def _status(
    partition: int, progress: Progress, waiting: dict[str, int], span: Span | None, lateness_us: int, now: int
) -> PartitionStatus:
    lag = None if span is None else span.lag(progress.offset)
    behind = max(0, now - progress.accepted_at) / SECOND if progress.accepted_at else None
    return PartitionStatus(
        partition=partition,
        next=progress.next,
        lag=lag,
        lag_s=0.0 if lag == 0 else behind,
        watermark=None if progress.newest == NEVER else progress.newest - lateness_us,
        processed=progress.processed,
        emitted=progress.emitted,
        late=progress.late,
        dead=progress.dead,
        duplicates=progress.duplicates,
        clamped=progress.clamped,
        version=progress.version,
        at=progress.at,
        waiting=waiting,
    )
