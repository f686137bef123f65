"""Every adapter of the ledger's ports, against the shared suite."""

from pathlib import Path

import pytest

from mainspring.core.locks import FileLocks, MemoryLocks
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.conformance import Ledger, LedgerConformance
from mainspring.ledger.sealing import Opener, Sealer
from mainspring.security.data_keys import OneKey

KEY = OneKey()


class TestMemoryLedger(LedgerConformance):
    @pytest.fixture
    def ledger(self) -> Ledger:
        both = MemoryLedger()
        return Ledger(both, both, lambda: both)


def over_segments(folder: Path, lake, locks, **limits):
    """Yield a ledger of segments and a lake, and close every log that was opened."""
    logs = [SegmentLog(folder, Sealer(KEY), **limits)]

    def reopen() -> SegmentLog:
        logs.append(SegmentLog(folder, Sealer(KEY), **limits))
        return logs[-1]

    yield Ledger(logs[0], LakePredictions(folder, lake, locks, Opener(KEY)), reopen)
    for log in logs:
        log.close()


class TestSegmentsAndMemoryLake(LedgerConformance):
    @pytest.fixture
    def ledger(self, tmp_path: Path):
        yield from over_segments(tmp_path / "segments", MemoryLake(), MemoryLocks())


class TestSegmentsThatRotateAndMemoryLake(LedgerConformance):
    @pytest.fixture
    def ledger(self, tmp_path: Path):
        yield from over_segments(tmp_path / "segments", MemoryLake(), MemoryLocks(), max_bytes=1)


class TestSegmentsAndDeltaLake(LedgerConformance):
    @pytest.fixture
    def ledger(self, tmp_path: Path):
        locks = FileLocks(tmp_path / "locks")
        yield from over_segments(tmp_path / "segments", DeltaLake(tmp_path / "lake"), locks)
