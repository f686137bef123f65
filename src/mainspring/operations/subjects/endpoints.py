"""States, batches and waiting outputs of stream endpoints that belong to subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec

from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.tables import quoted
from mainspring.project import Project
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.serving.streaming.event import DeadLetter, Output
from mainspring.serving.streaming.progress import BatchRecord, Part
from mainspring.serving.streaming.state import DEAD_LETTER, PartitionState, Waiting

_decode = msgspec.msgpack.Decoder(Output).decode
_decode_letter = msgspec.msgpack.Decoder(DeadLetter).decode
_key = msgspec.msgpack.Decoder(tuple[str | int | bool, ...]).decode
_GONE = "erased"


def find(project: Project, subjects: Sequence[Subject]) -> dict[str, int]:
    """Return stream endpoint -> number of states, batches and outputs that have something of subjects."""
    found = {}
    for endpoint in _concerned(project, subjects):
        erasure = _Theirs(endpoint, subjects)
        found[endpoint.name] = sum(each.erase(erasure, dry_run=True) for each in _states(project, endpoint))
    return {name: count for name, count in found.items() if count}


def erase(project: Project, subjects: Sequence[Subject], told: Callable[[str], None]) -> None:
    """Remove them, also where the endpoint runs: its next batch begins with what is left.

    Args:
        told: Gets the name of each endpoint before.
    """
    for endpoint in _concerned(project, subjects):
        told(f"stream endpoint/{endpoint.name}")
        erasure = _Theirs(endpoint, subjects)
        for state in _states(project, endpoint):
            state.erase(erasure)


def of_others(project: Project, subjects: Sequence[Subject]) -> list[str]:
    """Return the endpoints whose states are of other keys, and may have values of the subjects' events."""
    return [each.name for each in _concerned(project, subjects) if not {*subjects[0].keys} <= {*each.keys}]


def _concerned(project: Project, subjects: Sequence[Subject]) -> list[StreamEndpoint]:
    """Return the endpoints whose messages have the subjects' keys."""
    endpoints = project.definitions.stream_endpoints.values()
    return [each for each in endpoints if subjects[0].keys.keys() <= each.source.columns.keys()]


def _states(project: Project, endpoint: StreamEndpoint) -> Iterator[PartitionState]:
    store = project.stream_states(endpoint.name)
    for partition in store.partitions():
        with closing(store.open(partition)) as state:
            yield state


class _Theirs:
    """`Erasure` of what belongs to subjects."""

    def __init__(self, endpoint: StreamEndpoint, subjects: Sequence[Subject]) -> None:
        self._columns = endpoint.keys
        self._names = [*subjects[0].keys]
        self._values = {tuple(each.keys.values()) for each in subjects}
        self._patterns = [[quoted(value) for value in each.keys.values()] for each in subjects]

    def has(self, key: bytes) -> bool:
        with suppress(msgspec.DecodeError):
            return self._are_theirs(dict(zip(self._columns, _key(key), strict=False)))
        return False

    def batch(self, record: BatchRecord) -> BatchRecord | None:
        undo = {key: content for key, content in record.undo.items() if not self.has(key)}
        parts = [self._part(part) for part in record.parts]
        failed = {
            offset: _GONE if self._quotes(reason.encode()) else reason for offset, reason in record.failed.items()
        }
        if (len(undo), parts, failed) == (len(record.undo), record.parts, record.failed):
            return None
        left = [part for part in parts if part.rows]
        return msgspec.structs.replace(record, undo=undo, parts=left, failed=failed, erased=True)

    def entry(self, entry: Waiting) -> Waiting | None:
        if not entry.body:
            return None
        if entry.kind == DEAD_LETTER:
            letter = _decode_letter(entry.body)
            theirs = self._quotes(b"\n".join((letter.key or b"", letter.value or b"", letter.reason.encode())))
        else:
            theirs = self._are_theirs(_decode(entry.body).keys)
        return Waiting(entry.seq, entry.kind, 0, b"") if theirs else None

    def _part(self, part: Part) -> Part:
        sent = [part.sent.get(name) for name in self._names]
        gone = {
            place
            for place in range(len(part.rows))
            if tuple(None if column is None else column[place] for column in sent) in self._values
        }
        if not gone:
            return part

        def left(columns: Any) -> Any:
            return {name: _left(column, gone) for name, column in columns.items()}

        return msgspec.structs.replace(
            part,
            rows=_left(part.rows, gone),
            features=left(part.features),
            statuses=left(part.statuses),
            sent=left(part.sent),
            outputs=left(part.outputs),
            units=_left(part.units, gone),
        )

    def _are_theirs(self, keys: dict[str, Any]) -> bool:
        return tuple(keys.get(name) for name in self._names) in self._values

    def _quotes(self, text: bytes) -> bool:
        return any(all(pattern.search(text) for pattern in each) for each in self._patterns)


def _left(column: Sequence[Any], gone: set[int]) -> list[Any]:
    return [value for place, value in enumerate(column) if place not in gone]
