"""Rows of a file as messages to a stream endpoint's topic, keyed as its state is: for a first try, and for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.json_content import decoded
from mainspring.data.streams.model import NewMessage
from mainspring.operations.auditing import audited
from mainspring.operations.topics import create_topic
from mainspring.project import Project
from mainspring.serving.streaming.declaring import TOPIC, StreamEndpoint

_AT_ONCE = 1_000
_encode = msgspec.json.Encoder(order="deterministic").encode


def send(project: Project, name: str, lines: Iterable[bytes]) -> int:
    """Produce one message a line, and return their number. Topics of the endpoint that are not there are created.

    Args:
        lines: JSON objects. The message is the line as it is, its key the values of the endpoint's key columns.

    Raises:
        NotFound: There is no such stream endpoint.
        Invalid: A line is no JSON object; none behind it was sent.
    """
    endpoint, log = project.definitions.stream_endpoint(name), project.streams
    for topic in {endpoint.topic, *(sink.name for sink in endpoint.to if sink.kind == TOPIC)} - set(log.topics()):
        create_topic(project, topic, 1)
    with audited(project, "stream.send", f"endpoint/{name}") as done:
        sent, waiting = 0, _messages(endpoint, lines)
        while batch := list(islice(waiting, _AT_ONCE)):
            sent += len(log.produce(endpoint.topic, batch))
        done(f"{sent} messages to {endpoint.topic}")
    return sent


def _messages(endpoint: StreamEndpoint, lines: Iterable[bytes]) -> Iterator[NewMessage]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(line, number)
            yield NewMessage(line.strip(), key=_encode([row.get(column) for column in endpoint.keys]))


def _row(line: bytes, number: int) -> dict[str, Any]:
    try:
        return decoded(line, dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Invalid(f"Line {number} is no JSON object: {error}.", fix="write one object a line.") from error
