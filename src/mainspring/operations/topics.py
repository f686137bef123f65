"""Topics of the project's log of messages."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.time import format_instant
from mainspring.data.streams.model import Message, NewMessage
from mainspring.data.streams.ports import Retaining
from mainspring.data.streams.reading import read_between
from mainspring.operations.auditing import audit, audited, begun
from mainspring.project import Project

_AT_ONCE = 1_000  # messages


class ListedTopic(msgspec.Struct, frozen=True):
    """A topic and the number of its partitions."""

    topic: str
    partitions: int


class ListedPartition(msgspec.Struct, frozen=True):
    """The offsets that a partition holds, as texts: those of some logs are larger than 64 bits.

    `committed` is the offset that a group reads next, empty without one.
    """

    partition: int
    first: str
    next: str
    committed: str = ""


class ShownMessage(msgspec.Struct, frozen=True):
    """A message as text. Bytes that are not UTF-8 are in Base64, after `base64:`."""

    partition: int
    offset: str
    at: str
    key: str | None
    value: str | None
    headers: list[tuple[str, str]]


class Produced(msgspec.Struct, frozen=True):
    """Messages that were written to a topic, by partition."""

    topic: str
    messages: int
    partitions: dict[str, int]


def list_topics(project: Project) -> list[ListedTopic]:
    """Return the topics of the project's log."""
    log = project.streams
    return [ListedTopic(topic, len(log.partitions(topic))) for topic in log.topics()]


def create_topic(project: Project, topic: str, partitions: int) -> ListedTopic:
    """Create a topic, or give it more partitions."""
    with begun(project, "topics.create", f"topic/{topic}") as done:
        project.streams.create(topic, partitions)
        count = len(project.streams.partitions(topic))
        done(f"{count} partitions")
    return ListedTopic(topic, count)


def show_topic(project: Project, topic: str, group: str | None = None) -> list[ListedPartition]:
    """Return the offsets of each partition, and those that a group committed."""
    log = project.streams
    spans = log.spans(topic, log.partitions(topic))
    stored = {} if group is None else log.committed(topic, group)
    return [
        ListedPartition(number, str(span.first), str(span.next), str(stored.get(number, "")))
        for number, span in spans.items()
    ]


def tail_topic(project: Project, topic: str, count: int) -> list[ShownMessage]:
    """Return the newest messages of a topic, in the order of their times."""
    log = project.streams
    found: list[Message] = []
    for number, span in log.spans(topic, log.partitions(topic)).items():
        first = max(span.first, span.next - count) if span.counts else span.first
        kept: deque[Message] = deque(maxlen=count)
        for messages in read_between(log, topic, {number: (first, span.next)}, max(count, _AT_ONCE)):
            kept.extend(messages)
        found += kept
    newest = sorted(found, key=lambda each: (each.at, each.partition, each.offset))[-count:]
    return [
        ShownMessage(
            each.partition, str(each.offset), format_instant(each.at), _text(each.key), _text(each.value),
            [(name, _text(value) or "") for name, value in each.headers],
        )
        for each in newest
    ]  # fmt: skip


def produce_lines(project: Project, topic: str, lines: Iterable[bytes], key: str | None = None) -> Produced:
    """Write each line, a JSON object, as the value of a message.

    Args:
        key: The field whose value is the message's key; a text as it is, any other value as JSON.

    Raises:
        Invalid: A line is not a JSON object, or lacks the key. The lines before its thousand were written.
    """
    with audited(project, "topics.produce", f"topic/{topic}") as done:
        produced = _write(project, topic, _parsed(lines, key))
        done(f"{produced.messages} messages")
    return produced


def produce_rows(
    project: Project, topic: str, rows: Iterable[Mapping[str, Any]], key: str | None = None, partitions: int = 0
) -> Produced:
    """Write each row, as a JSON object, as the value of a message.

    Args:
        key: As of `produce_lines`; a row that lacks it, or in which it is None, has no key.
        partitions: With a number, the topic is created with so many partitions if it is not there.

    Raises:
        NotFound: There is no such topic.
        InvalidData: JSON has no such value. The rows before its thousand were written.
    """
    if partitions and topic not in project.streams.topics():
        create_topic(project, topic, partitions)
    return _write(project, topic, _encoded(rows, key))


def _encoded(rows: Iterable[Mapping[str, Any]], key: str | None) -> Iterator[NewMessage]:
    for number, row in enumerate(rows, 1):
        naive = [name for name, value in row.items() if isinstance(value, datetime) and value.tzinfo is None]
        if naive:
            raise InvalidData(f"Row {number} has a time without an offset: {naive[0]!r}.", fix="give it a time zone.")
        try:
            value = msgspec.json.encode(row)
        except (TypeError, OverflowError) as error:
            raise InvalidData(f"Row {number} cannot be written as JSON: {error}.") from error
        yield NewMessage(value, None if key is None else _key(row.get(key)))


def _write(project: Project, topic: str, waiting: Iterator[NewMessage]) -> Produced:
    counts: dict[int, int] = {}
    while batch := list(islice(waiting, _AT_ONCE)):
        for partition, _ in project.streams.produce(topic, batch):
            counts[partition] = counts.get(partition, 0) + 1
    return Produced(topic, sum(counts.values()), {str(number): counts[number] for number in sorted(counts)})


def _parsed(lines: Iterable[bytes], key: str | None) -> Iterator[NewMessage]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Invalid(f"Line {number} is not JSON: {error}.", fix="write one JSON object a line.") from None
        if not isinstance(found, dict):
            raise Invalid(f"Line {number} is not a JSON object.", fix="write one JSON object a line.")
        if key is not None and key not in found:
            raise Invalid(
                f"Line {number} has no field {key!r}, which is to be its key.", fix="name another with --key."
            )
        yield NewMessage(text, None if key is None else _key(found[key]))


def _key(value: Any) -> bytes | None:
    return None if value is None else value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _text(content: bytes | None) -> str | None:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(content).decode()}"


def retain_messages(project: Project) -> int:
    """Remove messages of the embedded log that its settings no longer keep; return how many."""
    settings = project.settings
    if settings.streams.scheme == "sqlite" and not settings.streams.path.exists():
        return 0  # nothing streams here: no file is created
    log = project.streams
    if not isinstance(log, Retaining):
        return 0  # a server that keeps to its own retention
    since = None if settings.keep_messages_us is None else project.wall.now() - settings.keep_messages_us
    removed = log.retain(since=since, most_bytes=settings.keep_messages_bytes)
    if removed:
        audit(project, "topics.retain", "topics", f"{removed} messages removed")
    return removed
