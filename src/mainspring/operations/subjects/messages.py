"""Messages of event logs that belong to subjects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mainspring.core.errors import MainspringError, NotFound
from mainspring.data.arrow import matching
from mainspring.data.streams.declaring import Stream, offset_mark
from mainspring.data.streams.decoding import Decoding
from mainspring.data.streams.model import Message
from mainspring.data.streams.ports import Erasing, Expiring
from mainspring.data.streams.reading import read_between
from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.tables import on_keys, quoted
from mainspring.project import Project
from mainspring.serving.streaming.declaring import TOPIC

_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of a stream that belong to subjects.

    Attributes:
        places: (partition, offset) of those that are in the stream's table, and can be deleted.
        waiting: Number of those that the stream has still to ingest.
    """

    places: list[tuple[int, int]]
    waiting: int = 0


def erasable(project: Project) -> list[Stream]:
    """Return the streams whose log can delete single messages."""
    streams = project.definitions.streams
    return [*streams.values()] if streams and isinstance(project.streams, Erasing) else []


def find(project: Project, stream: Stream, subjects: Sequence[Subject]) -> Messages:
    """Read a stream's topic, and return the messages that belong to subjects.

    They belong to the subjects of the rows that they hold; those that hold none, to each subject that they quote.
    """
    log, topic = project.streams, stream.topic
    try:
        spans = log.spans(topic, log.partitions(topic))
    except NotFound:
        return Messages([])
    names = {offset_mark(stream, each): each for each in spans}
    marks = project.lake.marks(stream.name, names) if stream.name in project.lake.tables() else {}
    ingested = {partition: marks.get(name, 0) for name, partition in names.items()}
    decoding, found = Decoding(stream, project.settings.root), Messages([])
    waiting = 0
    ends = {each: (span.first, span.next) for each, span in spans.items()}
    for messages in read_between(log, topic, ends, _AT_ONCE):
        for message in _of(decoding, messages, subjects):
            if message.offset < ingested[message.partition]:
                found.places.append((message.partition, message.offset))
            else:
                waiting += 1
    return Messages(found.places, waiting)


def erase(project: Project, subjects: Sequence[Subject], told: Callable[[str], None]) -> None:
    """Delete the messages of subjects that are in the tables of their streams.

    Args:
        told: Gets the name of each stream before.
    """
    for stream in erasable(project):
        told(f"stream/{stream.name}")
        with project.locks.hold(f"stream.{stream.name}", wait_s=600.0):
            places = find(project, stream, subjects).places
            if places and isinstance(project.streams, Erasing):
                project.streams.erase(stream.topic, places)


def kept(project: Project, erased: Collection[str]) -> list[str]:
    """Return the topics whose messages stay, with the time until when.

    Args:
        erased: Streams whose messages are deleted.
    """
    streams, endpoints = project.definitions.streams, project.definitions.stream_endpoints.values()
    topics = [each.topic for name, each in streams.items() if name not in erased]
    topics += [each.topic for each in endpoints]
    topics += [sink.name for each in endpoints for sink in each.to if sink.kind == TOPIC]
    gone = {streams[name].topic for name in erased}
    shown = project.settings.streams.shown
    return [
        f"messages of topic {each} in {shown}{_until(project, each)}"
        for each in dict.fromkeys(topics)
        if each not in gone
    ]


def _until(project: Project, topic: str) -> str:
    """Return how long a topic keeps messages, as its log says."""
    log = project.streams
    if not isinstance(log, Expiring):
        return ""
    try:
        return f": {log.retention(topic)}"
    except MainspringError as error:
        return f": how long they stay is not known: {error.what}"


def _of(decoding: Decoding, messages: Sequence[Message], subjects: Sequence[Subject]) -> list[Message]:
    decoded = decoding.decode(messages)
    wheres = on_keys(decoded.rows.schema, subjects)
    theirs = {row for where in wheres for row, is_one in enumerate(matching(decoded.rows, where).to_pylist()) if is_one}
    patterns = [[quoted(value) for value in subject.keys.values()] for subject in subjects]
    found = [decoded.kept[row] for row in sorted(theirs)]
    for message, _ in decoded.letters:
        text = b"\n".join((message.key or b"", message.value or b"", *(value for _, value in message.headers)))
        if any(all(pattern.search(text) for pattern in each) for each in patterns):
            found.append(message)
    return found
