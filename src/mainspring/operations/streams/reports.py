"""Streams of sources and stream endpoints: how far they are, who reads them, and their dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.nearest import meant
from mainspring.core.time import SECOND
from mainspring.data.model import DEAD_LETTERS_SUFFIX
from mainspring.data.streams.declaring import FIRST, JSON, Stream, event_mark, offset_mark
from mainspring.data.streams.model import Span
from mainspring.data.streams.recent import Delays
from mainspring.operations.stream_endpoints.showing import status
from mainspring.operations.streams.members import Member
from mainspring.project import Project
from mainspring.serving.streaming.declaring import StreamEndpoint

SOURCE, ENDPOINT = "source", "endpoint"
RUNNING, BEHIND, FAILING, STOPPED = "running", "behind", "failing", "stopped"


class PartitionReport(Delays, frozen=True, kw_only=True):
    """How far a partition is read: offsets are text, as some logs' have more than 64 bits.

    Its delays are of stream endpoints: a source's partitions become readable together.
    """

    partition: int
    position: str  # offset that is read next
    end: str | None  # offset after the newest message; None while the log does not answer
    lag: int | None  # offsets in between, at most the number of messages
    newest_event: int | None  # UTC epoch microseconds
    worker: str
    lag_s: float | None = None  # time for which its messages wait; None if that is unknown


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: what is not processed yet, and the time before which no event is expected any more.

    Attributes:
        stream: Name of its source, or of its endpoint.
        kind: `source` or `endpoint`.
        state: `failing` with a problem, `stopped` if no process reads it, `behind` if it is beyond `max_lag` or its
            freshness, else `running`.
        lag_s: Longest time for which messages wait that are not processed; None if that is unknown.
        freshness_p99: 99th percentile of the time from an event to its features being readable, or to its output, of
            the last five minutes, seconds.
        rate: Messages a second of the last minute.
    """

    stream: str
    kind: str
    topic: str
    format: str
    state: str
    lag: int | None
    lag_s: float | None
    max_lag_s: float
    freshness_p50: float | None
    freshness_p99: float | None
    freshness_s: float | None  # as promised
    rate: float
    watermark: int | None  # UTC epoch microseconds
    watermark_age_s: float | None
    dead_letters: int
    workers: list[Member]
    partitions: list[PartitionReport]
    problem: str = ""


def names(project: Project) -> list[str]:
    """Return the names of all streams."""
    return sorted({*project.definitions.streams, *project.definitions.stream_endpoints})


def declared(project: Project, name: str) -> Stream | StreamEndpoint:
    """Return a stream of a source, or a stream endpoint, by its name.

    Raises:
        NotFound: There is neither.
    """
    definitions = project.definitions
    found = definitions.streams.get(name) or definitions.stream_endpoints.get(name)
    if found is None:
        raise NotFound(f"The project has no stream {name!r}.", fix=meant(name, names(project)))
    return found


def listed(project: Project) -> list[StreamReport]:
    """Return all streams, sorted by name."""
    return [shown(project, name) for name in names(project)]


def shown(project: Project, name: str) -> StreamReport:
    """Return one stream. What the log does not tell while it is away, is left out, with the problem.

    Raises:
        NotFound: There is no such stream.
    """
    stream = declared(project, name)
    partitions: list[tuple[PartitionReport, int | None]] = []
    problem = ""
    try:
        if isinstance(stream, Stream):
            partitions = _of_source(project, stream)
        else:
            partitions, problem = _of_endpoint(project, stream)
    except MainspringError as error:
        problem = str(error)
    now = project.wall.now()
    members = [
        msgspec.json.decode(each.document, type=Member) if each.document else Member(worker=each.owner)
        for each in project.stream_store.members(name)
        if each.until > now
    ]
    events = [event for _, event in partitions if event is not None]
    watermark = min(events) - stream.lateness_us if events else None
    lags = [each.lag for each, _ in partitions if each.lag is not None]
    lag, problem = sum(lags) if lags else None, problem or next((each.problem for each in members if each.problem), "")
    through = min((each.through for each in members if each.through is not None), default=None)
    lag_s = _waiting_s(lag, through, now)
    partitions = [(_timed(each, members, now), event) for each, event in partitions]
    fresh = [each.freshness_p99 for each in members if each.freshness_p99 is not None]
    promised_us = stream.freshness_us
    behind = (lag_s or 0.0) > stream.max_lag_us / SECOND
    behind |= promised_us is not None and max(fresh, default=0.0) > promised_us / SECOND
    payload = stream if isinstance(stream, Stream) else stream.payload
    return StreamReport(
        stream=name,
        kind=SOURCE if isinstance(stream, Stream) else ENDPOINT,
        topic=stream.topic,
        format=JSON if payload is None else payload.format,
        state=FAILING if problem else STOPPED if not members else BEHIND if behind else RUNNING,
        lag=lag,
        lag_s=lag_s,
        max_lag_s=stream.max_lag_us / SECOND,
        freshness_p50=max((each.freshness_p50 for each in members if each.freshness_p50 is not None), default=None),
        freshness_p99=max(fresh, default=None),
        freshness_s=None if promised_us is None else promised_us / SECOND,
        rate=sum(each.rate for each in members),
        watermark=watermark,
        watermark_age_s=None if watermark is None else (now - watermark) / SECOND,
        dead_letters=_count(project, name + DEAD_LETTERS_SUFFIX),
        workers=members,
        partitions=[each for each, _ in partitions],
        problem=problem,
    )


def _waiting_s(lag: int | None, through: int | None, now: int) -> float | None:
    return 0.0 if lag == 0 else None if lag is None or through is None else max(0.0, (now - through) / SECOND)


def _timed(of: PartitionReport, members: Sequence[Member], now: int) -> PartitionReport:
    """Return a partition with the delays that its reader reports."""
    reader = next((each for each in members if each.worker == of.worker), None)
    if reader is None:
        return of
    waiting_s, delays = _waiting_s(of.lag, reader.through, now), reader.partitions.get(of.partition, Delays())
    return msgspec.structs.replace(
        of, lag_s=of.lag_s if waiting_s is None else waiting_s, **msgspec.structs.asdict(delays)
    )


def dead_letters(project: Project, name: str, limit: int) -> list[dict[str, object]]:
    """Return dead letters of a stream, newest first: where they were, their size and the reason; not their values.

    Raises:
        NotFound: There is no such stream.
    """
    from mainspring.data import duck

    declared(project, name)
    table = name + DEAD_LETTERS_SUFFIX
    if project.lake.version(table) is None:
        return []
    with duck.session() as connection:
        duck.register(connection, "letters", project.lake.scan(table))
        rows = connection.sql(
            'SELECT "partition", "offset", octet_length("value") AS bytes, reason, epoch_us("at") AS "at" FROM letters '
            f'ORDER BY "at" DESC, "partition", length("offset") DESC, "offset" DESC LIMIT {int(limit)}'
        ).to_arrow_table()
    found: list[dict[str, object]] = rows.to_pylist()
    return found


def _count(project: Project, table: str) -> int:
    return 0 if project.lake.version(table) is None else project.lake.describe(table).rows


def _of_endpoint(project: Project, endpoint: StreamEndpoint) -> tuple[list[tuple[PartitionReport, int | None]], str]:
    """Return the partitions, each with the time of its newest event, and why the ends of the topic are unknown."""
    found, owners = status(project, endpoint.name), _owners(project, endpoint.name)
    topic = endpoint.topic
    spans = {} if found.problem else project.streams.spans(topic, project.streams.partitions(topic))
    reports = [
        (
            PartitionReport(
                partition=each.partition,
                position=each.next,
                end=str(spans[each.partition].next) if each.partition in spans else None,
                lag=each.lag,
                newest_event=event,
                worker=owners.get(each.partition, ""),
                lag_s=each.lag_s,
            ),
            event,
        )
        for each in found.partitions
        for event in [None if each.watermark is None else each.watermark + endpoint.lateness_us]
    ]
    unread = spans.keys() - {each.partition for each in found.partitions}
    new = [(_unread(each, spans[each], endpoint.start, owners.get(each, "")), None) for each in sorted(unread)]
    return [*reports, *new], found.problem


def _unread(partition: int, span: Span, start: str, worker: str) -> PartitionReport:
    position = span.first if start == FIRST else span.next
    return PartitionReport(
        partition=partition,
        position=str(position),
        end=str(span.next),
        lag=span.lag(position),
        newest_event=None,
        worker=worker,
    )


def _of_source(project: Project, stream: Stream) -> list[tuple[PartitionReport, int | None]]:
    log = project.streams
    spans = log.spans(stream.topic, log.partitions(stream.topic))
    names = [name for each in spans for name in (offset_mark(stream, each), event_mark(stream, each))]
    marks = project.lake.marks(stream.name, names)
    owners = _owners(project, stream.name)
    found = []
    for partition, span in sorted(spans.items()):
        start = span.first if stream.start == FIRST else span.next
        position = marks.get(offset_mark(stream, partition), start)
        event = marks.get(event_mark(stream, partition))
        report = PartitionReport(
            partition=partition,
            position=str(position),
            end=str(span.next),
            lag=span.lag(position),
            newest_event=event,
            worker=owners.get(partition, ""),
        )
        found.append((report, event))
    return found


def _owners(project: Project, stream: str) -> dict[int, str]:
    """Return partition -> the process that has its lease."""
    now = project.wall.now()
    return {each.partition: each.owner for each in project.stream_store.leases(stream) if each.until > now}
