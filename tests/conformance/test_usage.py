"""Every store of usage, against the shared suite; a writer that is killed adds each batch once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import DAY, HOUR
from mainspring.cost.adapters.catalog import CatalogUsage
from mainspring.cost.adapters.memory import MemoryUsage
from mainspring.cost.conformance import UsageStoreConformance
from mainspring.cost.usage import Subject, Usage
from mainspring.project.catalog import memory_catalog, open_catalog

_WRITER = """
import sys
from mainspring.core.catalog import open_engine
from mainspring.cost.adapters.catalog import CatalogUsage
from mainspring.cost.usage import Subject, Usage
store = CatalogUsage(open_engine(sys.argv[1]))
sequence, _ = store.last("writer")
while True:
    sequence += 1
    used = [Usage(machine="a", start=0, subject=Subject("job", str(n)), measure="cpu", amount=1) for n in range(3)]
    store.add("writer", sequence, used, str(sequence).encode())
    print(sequence, flush=True)
"""


class TestMemoryUsage(UsageStoreConformance):
    @pytest.fixture
    def store(self) -> MemoryUsage:
        return MemoryUsage(most=4)


class TestCatalogUsage(UsageStoreConformance):
    @pytest.fixture
    def store(self, catalog: sa.Engine) -> CatalogUsage:
        return CatalogUsage(catalog, most=4)


_SUBJECTS = st.builds(
    Subject, st.sampled_from(["endpoint", "job"]), st.sampled_from("abcdefgh"), key=st.sampled_from("xy")
)
_USED = st.builds(
    Usage, machine=st.sampled_from("mn"), start=st.integers(0, 71).map(lambda hour: hour * HOUR), subject=_SUBJECTS,
    measure=st.sampled_from(["cpu", "memory"]), amount=st.integers(0, 2**50),
)  # fmt: skip
_BATCH = st.lists(_USED, max_size=20)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), st.integers(1, 6), _BATCH, st.booleans()), max_size=8))
def test_both_stores_hold_the_same_and_lose_nothing(steps: list[tuple[str, int, list[Usage], bool]]) -> None:
    engine = memory_catalog()
    stores = (MemoryUsage(most=5), CatalogUsage(engine, most=5))
    added = 0
    for source, sequence, batch, rolls in steps:
        one, other = (store.add(source, sequence, batch) for store in stores)
        assert one == other
        added += one and sum(each.amount for each in batch)
        if rolls:
            assert stores[0].roll_up(2 * DAY) == stores[1].roll_up(2 * DAY)
    found = [store.read(0, 10 * DAY) for store in stores]
    engine.dispose()
    assert found[0] == found[1]
    assert sum(each.amount for each in found[0]) == added


def test_a_writer_that_is_killed_adds_each_batch_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    engine = open_catalog(Url(url), MemoryLocks())
    told = 0
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05)
        writer.kill()
        lines = writer.communicate()[0].split()
        told = max([told, *map(int, lines)])
    store = CatalogUsage(engine)
    sequence, state = store.last("writer")
    assert told <= sequence <= told + 1
    assert state == str(sequence).encode()
    assert [each.amount for each in store.read(0, DAY)] == [sequence] * 3
    engine.dispose()
