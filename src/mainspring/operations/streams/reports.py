"""Streams: how far they are, who lands them, and their dead letters."""

from __future__ import annotations

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.time import SECOND, format_instant
from mainspring.data.model import DEAD_LETTERS_SUFFIX, SEQUENCE
from mainspring.data.streams.declaring import FIRST, Stream, event_mark, offset_mark
from mainspring.project import Project


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
    """How far a partition is landed: offsets are text, as some logs' have more than 64 bits."""

    partition: int
    position: str  # offset that is read next
    end: str  # offset after the newest message
    lag: int  # offsets in between, at most the number of messages
    newest_event: str | None
    worker: str


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: what is not landed yet, and the time before which no event is expected any more."""

    source: str
    topic: str
    format: str
    lag: int
    watermark: str | None
    watermark_age_s: float | None
    dead_letters: int
    workers: list[Member]
    partitions: list[PartitionReport]
    problem: str = ""


def listed(project: Project) -> list[StreamReport]:
    """Return the declared streams with their lag, watermark and workers."""
    return [shown(project, name) for name in sorted(project.definitions.streams)]


def shown(project: Project, source: str) -> StreamReport:
    """Return one stream. What the log does not tell while it is away, is left out, with the problem.

    Raises:
        NotFound: The source has no stream.
    """
    stream = project.definitions.stream(source)
    partitions, problem = [], ""
    try:
        partitions = _partitions(project, stream)
    except MainspringError as error:
        problem = str(error)
    now = project.wall.now()
    members = [
        msgspec.json.decode(each.document, type=Member) if each.document else Member(worker=each.owner)
        for each in project.stream_store.members(source)
        if each.until > now
    ]
    events = [event for _, event in partitions if event is not None]
    watermark = min(events) - stream.lateness_us if events else None
    table = source + DEAD_LETTERS_SUFFIX
    return StreamReport(
        source=source,
        topic=stream.topic,
        format=stream.format,
        lag=sum(each.lag for each, _ in partitions),
        watermark=None if watermark is None else format_instant(watermark),
        watermark_age_s=None if watermark is None else (now - watermark) / SECOND,
        dead_letters=0 if project.lake.version(table) is None else project.lake.describe(table).rows,
        workers=members,
        partitions=[each for each, _ in partitions],
        problem=problem or next((each.problem for each in members if each.problem), ""),
    )


def letters(project: Project, source: str, limit: int) -> list[dict[str, object]]:
    """Return dead letters of a stream, newest first: where they were, their size and the reason; not their values.

    Raises:
        NotFound: The source has no stream.
    """
    from mainspring.data import duck

    project.definitions.stream(source)
    table = source + DEAD_LETTERS_SUFFIX
    if project.lake.version(table) is None:
        return []
    with duck.connect() as connection:
        duck.register(connection, "letters", project.lake.scan(table))
        rows = connection.sql(
            'SELECT "partition", "offset", octet_length("value") AS bytes, reason, "at" FROM letters '
            f"ORDER BY {SEQUENCE} DESC LIMIT {int(limit)}"
        ).to_arrow_table()
    found: list[dict[str, object]] = rows.to_pylist()
    return [{**row, "at": str(row["at"])} for row in found]


def _partitions(project: Project, stream: Stream) -> list[tuple[PartitionReport, int | None]]:
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
            lag=max(0, span.next - position),
            newest_event=None if event is None else format_instant(event),
            worker=owners.get(partition, ""),
        )
        found.append((report, event))
    return found
