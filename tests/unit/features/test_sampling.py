"""What is read of a few entities over a part of the table is exactly what is read over all of it."""

from __future__ import annotations

import random
from typing import Any

import pytest

import mainspring as ms
from kit.console.shop import NOW, START, Orders, Returns, asked, buyer, landed, orders, returns, rows
from kit.depth import examples, in_turns
from mainspring.core.errors import Invalid, Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, MINUTE, ManualClock
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.describe.sampling import Bounds, bounded, rows_of, sample
from mainspring.features.offline import point_in_time

pytestmark = pytest.mark.slow


@ms.feature_view(entity=buyer, source=orders)
class Newest:
    """Last values alone: what counts may lie any time back."""

    status = ms.last("status")
    paid = ms.last("paid", ttl="3d")


def read(view: Any, scan: Any, keys: list[tuple[str, int]], instants: list[int]) -> Any:
    observations = asked(instants, keys)
    return point_in_time(observations, [view], lambda _: scan, schema=dict(view.entity.keys))


@pytest.mark.parametrize("seed", range(examples(gate=1, deep=3)))
@pytest.mark.parametrize(
    ("view", "bounds"),
    in_turns([Orders, Newest], [Bounds(), Bounds(entities=3), Bounds(rows=150), Bounds(rows=20)]),
)
def test_the_part_gives_what_the_whole_gives(seed: int, view: Any, bounds: Bounds) -> None:
    whole = landed(rows(seed=seed)).scan("orders")
    found = sample(view, whole, NOW, bounds)
    assert found is not None
    keys = [(row["country"], row["number"]) for row in found.keys.to_pylist()]
    rng = random.Random(seed)
    edges = [found.start, found.end, found.start + 1, found.end - 1]
    instants = edges + [rng.randrange(found.start, found.end + 1) for _ in range(25)]
    assert read(view, found.scan, keys, instants).equals(read(view, whole, keys, instants))


def test_it_is_no_more_than_was_allowed() -> None:
    whole = landed().scan("orders")
    assert sample(Orders, whole, NOW, Bounds(entities=4)).keys.num_rows == 4
    few = sample(Orders, whole, NOW, Bounds(rows=150))
    assert 1 <= few.keys.num_rows < 11
    assert few.scan.rows.num_rows <= 150
    narrow = sample(Orders, whole, NOW, Bounds(rows=20))
    assert narrow.keys.num_rows == 1
    assert narrow.start > START + 30 * DAY
    assert narrow.scan.rows.num_rows <= 21  # and the last row that counts before the first instant


def test_it_is_the_same_each_time_and_knows_how_many_there_are() -> None:
    whole = landed().scan("orders")
    one, two = (sample(Orders, whole, NOW, Bounds(entities=5)) for _ in range(2))
    assert one.keys.equals(two.keys)
    assert 8 <= one.known <= 14  # an estimate of 11
    assert sample(Orders, whole, NOW, Bounds()).known == 11


def test_of_many_entities_a_few_are_found() -> None:
    many = [{**row, "number": index} for index, row in enumerate(rows(5000))]
    found = sample(Orders, landed(many).scan("orders"), NOW, Bounds(entities=50))
    assert found.keys.num_rows == 50
    assert 4000 < found.known < 6000


def test_nothing_is_read_that_is_not_visible_yet() -> None:
    whole = landed().scan("orders")
    at = START + 30 * DAY
    found = sample(Orders, whole, at, Bounds())
    assert found.end <= at
    visible = found.scan.rows["_visible_at"].cast("int64").to_pylist()
    assert max(visible) <= at < max(whole.rows["_visible_at"].cast("int64").to_pylist())


def test_before_anything_is_visible_there_is_nothing() -> None:
    assert sample(Orders, landed().scan("orders"), START - DAY, Bounds()) is None


def test_null_keys_are_nobodys() -> None:
    data = [{**row, "country": None} for row in rows(20)]
    assert sample(Orders, landed(data).scan("orders"), NOW, Bounds()) is None


@pytest.mark.parametrize(
    ("lake", "at", "view"), in_turns([DeltaLake, MemoryLake], [NOW, START + 20 * DAY], [Orders, Newest])
)
def test_one_entity(tmp_path: Any, lake: Any, view: Any, at: int) -> None:
    whole = landed(lake=lake(tmp_path) if lake is DeltaLake else lake()).scan("orders")
    for key in (("AT", 1), ("DE", 11), ("FR", 111)):
        part = rows_of(view, whole, asked([at], [key]).select(["country", "number"]), at, Bounds())
        assert read(view, part, [key], [at]).equals(read(view, whole, [key], [at]))


def test_rows_landed_before_the_view_was_declared_are_named() -> None:
    lake = MemoryLake()
    Ingestor(lake, MemoryLocks(), ManualClock(NOW)).ingest(orders, rows(5), keyings={})
    with pytest.raises(Invalid, match="before entity 'buyer' was declared"):
        sample(Orders, lake.scan("orders"), NOW, Bounds())


def test_a_view_of_windows_alone_needs_no_flag() -> None:
    lake = MemoryLake()
    data = [{"country": "AT", "number": 1, "at": NOW - n * MINUTE} for n in range(1, 9)]
    stamped = [{**row, "at": f"2024-03-20T10:{30 - n:02d}:00Z"} for n, row in enumerate(data, 1)]
    Ingestor(lake, MemoryLocks(), ManualClock(NOW)).ingest(returns, stamped, keyings={})
    assert sample(Returns, lake.scan("returns"), NOW, Bounds()).scan.rows.num_rows == 8


class TestTheTimeIsOver:
    ENDLESS = "SELECT count(*) FROM range(100000000000) AS a, range(100000000000) AS b"

    def test_a_long_query_is_given_up(self) -> None:
        def run() -> None:
            with bounded("orders", Bounds(seconds=0.05)) as con:
                con.execute(self.ENDLESS)

        with pytest.raises(Unavailable, match=r"Reading orders took more than 0\.05 s"):
            run()

    def test_so_is_one_that_begins_after_it(self) -> None:
        def run() -> None:
            with bounded("orders", Bounds(seconds=0)) as con:
                for _ in range(1_000_000):
                    con.execute("SELECT 1")

        with pytest.raises(Unavailable):
            run()

    def test_what_is_quick_is_not(self) -> None:
        with bounded("orders", Bounds(seconds=30)) as con:
            assert duck.one_row(con, "SELECT 42") == (42,)
