"""Every log of messages does what the port says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.adapters.log_sqlite import SqliteLog
from mainspring.data.streams.conformance import EventLogConformance


class TestMemory(EventLogConformance):
    @pytest.fixture
    def log(self) -> MemoryLog:
        return MemoryLog()

    def forget(self, log: MemoryLog, topic: str, before: Mapping[int, int]) -> None:
        log.forget(topic, before)


class TestSqlite(EventLogConformance):
    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[SqliteLog]:
        log = SqliteLog(tmp_path / "state" / "streams.db")
        yield log
        log.close()

    def forget(self, log: SqliteLog, topic: str, before: Mapping[int, int]) -> None:
        left = sum(log.spans(topic, [number])[number].next - offset for number, offset in before.items())
        log.retain(most_bytes=left)  # each message has one byte
