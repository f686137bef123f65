"""The embedded logs against a list: random writes, reads, retention and openings anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import NotFound
from mainspring.data.adapters import log_sqlite
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.adapters.log_sqlite import SqliteLog
from mainspring.data.streams.limits import size_of
from mainspring.data.streams.model import Message, NewMessage, OffsetAhead, OffsetGone, Span
from mainspring.data.streams.ports import EventLog

TOPICS = ("a", "b")
_bytes = st.none() | st.binary(max_size=6)
_message = st.builds(
    NewMessage,
    _bytes,
    _bytes,
    st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2).map(tuple),
    st.none() | st.integers(0, 2),
    st.none() | st.integers(0, 2**50),
)
_topic = st.sampled_from(TOPICS)
_step = st.one_of(
    st.tuples(st.just("produce"), _topic, st.lists(_message, max_size=6)),
    st.tuples(st.just("create"), _topic, st.integers(1, 3)),
    st.tuples(st.just("read"), _topic, st.dictionaries(st.integers(0, 3), st.integers(0, 12), max_size=3),
              st.integers(1, 9), st.integers(1, 20)),
    st.tuples(st.just("keep"), st.none() | st.integers(0, 60), st.none() | st.integers(0, 40)),
    st.tuples(st.just("reopen")),
)  # fmt: skip


@dataclass
class Model:
    """Topics as lists of (message, time of arrival), with the number of those that were removed."""

    topics: dict[str, list[list[tuple[Message, int]]]] = field(default_factory=dict)
    gone: dict[tuple[str, int], int] = field(default_factory=dict)

    def span(self, topic: str, number: int) -> Span:
        first = self.gone.get((topic, number), 0)
        return Span(first, first + len(self.topics[topic][number]))

    def retain(self, since: int | None, most: int | None) -> int:
        removed = 0
        for topic, partitions in self.topics.items():

            def size() -> int:
                return sum(_size(each) for rows in partitions for each, _ in rows)  # noqa: B023

            while waiting := [(rows[0][1], number) for number, rows in enumerate(partitions) if rows]:
                arrived, number = min(waiting)
                if not ((since is not None and arrived < since) or (most is not None and size() > most)):
                    break
                del partitions[number][0]
                self.gone[topic, number] = self.gone.get((topic, number), 0) + 1
                removed += 1
        return removed


def _size(message: Message) -> int:
    return size_of(NewMessage(message.value, message.key, message.headers))


class Clock:
    """Counts up by ten microseconds with each look."""

    def __init__(self) -> None:
        self.last = 0

    def now(self) -> int:
        self.last += 10
        return self.last


def _check_read(log: EventLog, model: Model, topic: str, after: dict[int, int], limit: int, most: int) -> None:
    there = model.topics.get(topic)
    for number, offset in after.items():  # the first that is wrong is named
        if there is None or number >= len(there):
            break
        span = model.span(topic, number)
        if not span.first <= offset <= span.next:
            with pytest.raises(OffsetAhead if offset > span.next else OffsetGone) as refused:
                log.read(topic, after, limit=limit, max_bytes=most)
            assert (refused.value.partition, refused.value.wanted) == (number, offset)
            assert refused.value.first == span.first
            return
    if there is None or any(number >= len(there) for number in after):
        with pytest.raises(NotFound):
            log.read(topic, after, limit=limit, max_bytes=most)
        return
    found = log.read(topic, after, limit=limit, max_bytes=most)
    for number, offset in after.items():
        span = model.span(topic, number)
        mine = [each for each in found if each.partition == number]
        kept = [each for each, _ in there[number]][offset - span.first :]
        assert mine == kept[: len(mine)]
    left = sum(model.span(topic, number).next - offset for number, offset in after.items())
    sizes = [len(each.value or b"") for each in found]
    assert len(found) <= min(limit, left)
    assert sum(sizes[:-1]) < most
    assert len(found) == min(limit, left) or sum(sizes) >= most


def _play(steps: list[Any], log: EventLog, clock: Clock, reopen: Callable[[], EventLog]) -> None:
    model = Model()
    for step in steps:
        match step:
            case ("create", topic, count):
                there = model.topics.setdefault(topic, [])
                log.create(topic, max(count, len(there)))
                there += [[] for _ in range(count - len(there))]
            case ("produce", topic, messages):
                if topic not in model.topics or any(
                    (each.partition or 0) >= len(model.topics[topic]) for each in messages
                ):
                    with pytest.raises(NotFound):
                        log.produce(topic, messages)
                    continue
                there = model.topics[topic]
                places = log.produce(topic, messages)
                for message, (number, offset) in zip(messages, places, strict=True):
                    assert offset == model.span(topic, number).next
                    assert message.partition in (None, number)
                    at = clock.last if message.at is None else message.at
                    made = Message(number, offset, message.key, message.value, at, message.headers)
                    there[number].append((made, clock.last))
            case ("read", topic, after, limit, most):
                _check_read(log, model, topic, after, limit, most)
            case ("keep", age, most) if isinstance(log, SqliteLog):
                since = None if age is None else clock.last - age
                assert log.retain(since=since, most_bytes=most) == model.retain(since, most)
            case ("reopen",):
                log.close()
                log = reopen()
        for topic, there in model.topics.items():
            numbers = range(len(there))
            assert log.spans(topic, numbers) == {number: model.span(topic, number) for number in numbers}
    assert log.topics() == sorted(model.topics)
    log.close()


@settings(max_examples=examples(gate=25, deep=3_000), deadline=None)
@given(st.lists(_step, max_size=examples(gate=25, deep=60)))
def test_the_file_is_a_list(steps: list[Any]) -> None:
    clock = Clock()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_sqlite, "_REMOVED_AT_ONCE", 3)
        path = Path(folder) / "streams.db"
        _play(steps, SqliteLog(path, clock), clock, lambda: SqliteLog(path, clock))


@settings(max_examples=examples(gate=25, deep=3_000), deadline=None)
@given(st.lists(_step, max_size=examples(gate=25, deep=60)))
def test_the_memory_is_a_list(steps: list[Any]) -> None:
    clock = Clock()
    log = MemoryLog(clock)
    _play(steps, log, clock, lambda: log)
