"""Streams of sources and stream endpoints: how far they are, who reads them, and their dead letters."""

from __future__ import annotations

import msgspec

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.nearest import meant
from mainspring.core.time import SECOND, format_instant
from mainspring.data.model import DEAD_LETTERS_SUFFIX
from mainspring.data.streams.declaring import FIRST, JSON, Stream, event_mark, offset_mark
from mainspring.operations.stream_endpoints.showing import status
from mainspring.project import Project
from mainspring.serving.streaming.declaring import StreamEndpoint

SOURCE, ENDPOINT = "source", "endpoint"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """Report of a worker that lands a stream. Times are seconds, of the last five minutes; None without events.

    `freshness` is the time from an event to its features being readable, `delay` that from its acceptance by the log.
    """

    worker: str
    messages: int = 0
    rows: int = 0
    quarantined: int = 0
    dead_letters: int = 0
    freshness_p50: float | None = None
    freshness_p99: float | None = None
    delay_p50: float | None = None
    delay_p99: float | None = None
    problem: str = ""


class PartitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far a partition is read: offsets are text, as some logs' have more than 64 bits."""

    partition: int
    position: str  # offset that is read next
    end: str | None  # offset after the newest message; None while the log does not answer
    lag: int | None  # offsets in between, at most the number of messages
    newest_event: str | None
    worker: str


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: what is not processed yet, and the time before which no event is expected any more.

    Attributes:
        stream: Name of its source, or of its endpoint.
        kind: `source` or `endpoint`.
    """

    stream: str
    kind: str
    topic: str
    format: str
    lag: int | None
    watermark: str | None
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
    payload = stream if isinstance(stream, Stream) else stream.payload
    return StreamReport(
        stream=name,
        kind=SOURCE if isinstance(stream, Stream) else ENDPOINT,
        topic=stream.topic,
        format=JSON if payload is None else payload.format,
        lag=sum(lags) if lags else None,
        watermark=None if watermark is None else format_instant(watermark),
        watermark_age_s=None if watermark is None else (now - watermark) / SECOND,
        dead_letters=_count(project, name + DEAD_LETTERS_SUFFIX),
        workers=members,
        partitions=[each for each, _ in partitions],
        problem=problem or next((each.problem for each in members if each.problem), ""),
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
    with duck.connect() as connection:
        duck.register(connection, "letters", project.lake.scan(table))
        rows = connection.sql(
            'SELECT "partition", "offset", octet_length("value") AS bytes, reason, "at" FROM letters '
            f'ORDER BY "at" DESC, "partition", length("offset") DESC, "offset" DESC LIMIT {int(limit)}'
        ).to_arrow_table()
    found: list[dict[str, object]] = rows.to_pylist()
    return [{**row, "at": str(row["at"])} for row in found]


def _count(project: Project, table: str) -> int:
    return 0 if project.lake.version(table) is None else project.lake.describe(table).rows


def _of_endpoint(project: Project, endpoint: StreamEndpoint) -> tuple[list[tuple[PartitionReport, int | None]], str]:
    """Return the partitions, each with the time of its newest event, and why the ends of the topic are unknown."""
    found = status(project, endpoint.name)
    return [
        (
            PartitionReport(
                partition=each.partition,
                position=each.next,
                end=None if each.lag is None else str(int(each.next) + each.lag),
                lag=each.lag,
                newest_event=None if event is None else format_instant(event),
                worker="",
            ),
            event,
        )
        for each in found.partitions
        for event in [None if each.watermark is None else each.watermark + endpoint.lateness_us]
    ], found.problem


def _of_source(project: Project, stream: Stream) -> list[tuple[PartitionReport, int | None]]:
    log, now = project.streams, project.wall.now()
    spans = log.spans(stream.topic, log.partitions(stream.topic))
    names = [name for each in spans for name in (offset_mark(stream, each), event_mark(stream, each))]
    marks = project.lake.marks(stream.name, names)
    owners = {each.partition: each.owner for each in project.stream_store.leases(stream.name) if each.until > now}
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
            newest_event=None if event is None else format_instant(event),
            worker=owners.get(partition, ""),
        )
        found.append((report, event))
    return found
