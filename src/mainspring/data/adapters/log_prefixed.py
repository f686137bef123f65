"""A part of a server's topics: those whose names begin with a prefix, which its user does not see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from mainspring.core.errors import MainspringError
from mainspring.data.streams.limits import check_topic
from mainspring.data.streams.model import Message, NewMessage, Span
from mainspring.data.streams.ports import Erasing, EventLog, Expiring, Splitting


class PrefixedLog:
    """Topics of `log` and groups of readers, each named with `prefix` there and without it here."""

    def __init__(self, log: EventLog, prefix: str) -> None:
        self._log, self._prefix = log, prefix

    def create(self, topic: str, partitions: int = 1) -> None:
        check_topic(topic, partitions)
        with self._named():
            self._log.create(self._prefix + topic, partitions)

    def topics(self) -> list[str]:
        return [name.removeprefix(self._prefix) for name in self._log.topics() if name.startswith(self._prefix)]

    def partitions(self, topic: str) -> list[int]:
        with self._named():
            return self._log.partitions(self._prefix + topic)

    def spans(self, topic: str, partitions: Iterable[int]) -> dict[int, Span]:
        with self._named():
            return self._log.spans(self._prefix + topic, partitions)

    def read(
        self, topic: str, after: Mapping[int, int], *, limit: int, wait_s: float = 0.0, max_bytes: int = 64 << 20
    ) -> list[Message]:
        with self._named():
            return self._log.read(self._prefix + topic, after, limit=limit, wait_s=wait_s, max_bytes=max_bytes)

    def produce(self, topic: str, messages: Sequence[NewMessage]) -> list[tuple[int, int]]:
        with self._named():
            return self._log.produce(self._prefix + topic, messages)

    def committed(self, topic: str, group: str) -> dict[int, int]:
        with self._named():
            return self._log.committed(self._prefix + topic, self._prefix + group)

    def commit(self, topic: str, group: str, offsets: Mapping[int, int]) -> None:
        with self._named():
            self._log.commit(self._prefix + topic, self._prefix + group, offsets)

    def retention(self, topic: str) -> str:
        with self._named():
            return self._log.retention(self._prefix + topic) if isinstance(self._log, Expiring) else ""

    def close(self) -> None:
        self._log.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name topics in errors as the caller does."""
        try:
            yield
        except MainspringError as error:
            error.what = error.what.replace(self._prefix, "")
            error.fix = error.fix and error.fix.replace(self._prefix, "")
            raise


class _SplittingLog(EventLog, Splitting, Protocol): ...


class PrefixedSplittingLog(PrefixedLog):
    """The same of a log whose partitions are split."""

    def __init__(self, log: _SplittingLog, prefix: str) -> None:
        super().__init__(log, prefix)
        self._splitting = log

    def parents(self, topic: str) -> dict[int, tuple[int, ...]]:
        with self._named():
            return self._splitting.parents(self._prefix + topic)

    def emptied(self, topic: str, positions: Mapping[int, int]) -> set[int]:
        with self._named():
            return self._splitting.emptied(self._prefix + topic, positions)


class _ErasingLog(EventLog, Erasing, Protocol): ...


class PrefixedErasingLog(PrefixedLog):
    """The same of a log that deletes single messages."""

    def __init__(self, log: _ErasingLog, prefix: str) -> None:
        super().__init__(log, prefix)
        self._erasing = log

    def erase(self, topic: str, places: Collection[tuple[int, int]]) -> None:
        with self._named():
            self._erasing.erase(self._prefix + topic, places)
