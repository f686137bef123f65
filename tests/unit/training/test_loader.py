"""The loader against rows held in memory: order, shares, resumption, types, bad files, and memory."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Conflict, Corrupt, Invalid, InvalidData, NotFound
from mainspring.core.own_process import python_path
from mainspring.data.model import TableScan
from mainspring.training.loading.loader import Loader
from mainspring.training.loading.order import Order
from mainspring.training.loading.pace import Pace


def write(folder: Path, *files: tuple[int, int]) -> Path:
    """Write files of so many rows in row groups of so many; `number` counts the rows of all."""
    first = 0
    for place, (rows, group) in enumerate(files):
        numbers = np.arange(first, first + rows)
        table = pa.table({"number": numbers, "half": numbers / 2})
        pq.write_table(table, folder / f"part-{place}.parquet", row_group_size=group)
        first += rows
    return folder


def numbers(batches: Any) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("rows"), (100, 7), (1, 1), (260, 40), (33, 33))


ROWS = 394


def placed(order: Order, groups: list[int]) -> list[int]:
    """The rows at each position of an epoch, by hand: each window is read in whole, then shuffled."""
    starts = np.concatenate([[0], np.cumsum(groups)]).tolist()
    windows: dict[tuple[int, int], Any] = {}
    for lane in range(order.lanes):
        read = [starts[span.group] + row for span in order.spans(lane, 0) for row in range(span.start, span.stop)]
        for window in range(order.windows(lane)):
            part = np.asarray(read[window * order.window :][: order.size(lane, window)])
            later = [starts[span.group] + row for span in order.spans(lane, window)
                     for row in range(span.start, span.stop)]  # fmt: skip
            assert later[: len(part)] == part.tolist()
            places = order.places(lane, window)
            windows[lane, window] = part if places is None else part[np.argsort(places)]
    return [row for piece in order.pieces(0, order.rows)
            for row in windows[piece.lane, piece.window][piece.start : piece.stop].tolist()]  # fmt: skip


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 2**70), st.integers(0, 3),
    st.integers(1, 70), st.integers(1, 200), st.integers(1, 9), st.booleans(),
)  # fmt: skip
def test_each_row_has_one_position(
    groups: list[int], seed: int, epoch: int, batch: int, window: int, lanes: int, shuffled: bool
) -> None:
    order = Order(groups, seed, epoch, batch_size=batch, window=window, lanes=lanes, shuffled=shuffled)
    found = placed(order, groups)
    assert sorted(found) == list(range(sum(groups)))
    assert shuffled or found == sorted(found)


@given(st.integers(1, 90), st.integers(1, 5), st.integers(1, 400), st.integers(1, 8), st.data())
def test_ranks_share_the_batches_of_one_process_and_resume_anywhere(
    folder: Path, batch: int, ranks: int, window: int, lanes: int, data: Any
) -> None:
    loader = Loader(folder, inputs="number", window=window, lanes=lanes)
    whole = numbers(loader.batches(batch, seed=3, epoch=1))
    assert sorted(itertools.chain(*whole)) == list(range(ROWS))
    assert [len(each) for each in whole[:-1]] == [batch] * (len(whole) - 1)
    shares = [numbers(loader.batches(batch, seed=3, epoch=1, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert [[*itertools.chain(*parts)] for parts in zip(*shares, strict=True)] == whole
    for parts in zip(*shares, strict=True):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    start = data.draw(st.integers(0, len(whole)))
    assert numbers(loader.batches(batch, seed=3, epoch=1, start=start)) == whole[start:]


def test_it_resumes_at_every_position(folder: Path) -> None:
    loader = Loader(folder, inputs="number", window=90, lanes=4)
    whole = numbers(loader.batches(16, seed=1))
    for start in range(len(whole) + 1):
        assert numbers(loader.batches(16, seed=1, start=start)) == whole[start:]


def test_seed_and_epoch_make_the_order(folder: Path) -> None:
    loader = Loader(folder, inputs="number", window=90)
    orders = {(seed, epoch): numbers(loader.batches(50, seed=seed, epoch=epoch))
              for seed in (0, 1) for epoch in (0, 1)}  # fmt: skip
    assert len({str(order) for order in orders.values()}) == 4
    assert numbers(Loader(folder, inputs="number", window=90).batches(50)) == orders[0, 0]
    assert [*itertools.chain(*numbers(loader.stored(50)))] == list(range(ROWS))


def test_lanes_are_read_by_the_ranks_that_have_them(tmp_path: Path) -> None:
    """Four ranks decode each row once together."""
    loader = Loader(write(tmp_path, (6400, 50)), inputs="number", window=800, lanes=8)
    decoded = 0
    for rank in range(4):
        pace = Pace()
        epoch = loader.epoch(64, pace, seed=5)
        for first in range(0, 6400, 64):
            epoch.take(first + 16 * rank, first + 16 * (rank + 1))
        epoch.close()
        decoded += pace.decoded
    assert decoded == 6400


def test_a_window_of_all_rows_is_a_uniform_shuffle() -> None:
    """Chi-square of the position of each row, and of its neighbour, over many seeds."""
    groups, seeds = [3, 5, 2], 3000
    counts, pairs = np.zeros((10, 10)), np.zeros((10, 10))
    for seed in range(seeds):
        found = placed(Order(groups, seed, 0, batch_size=4, window=10, lanes=8, shuffled=True), groups)
        counts[found, range(10)] += 1
        pairs[found[:-1], found[1:]] += 1
    statistic = ((counts - seeds / 10) ** 2 / (seeds / 10)).sum()
    assert 45 < statistic < 129  # of 81 degrees of freedom, within 1 in 10,000
    others = pairs[~np.eye(10, dtype=bool)]
    assert 51 < ((others - seeds / 10) ** 2 / (seeds / 10)).sum() < 139  # of 89


def test_a_smaller_window_mixes_the_row_groups_that_it_holds() -> None:
    """Each row is equally likely in each tenth of the epoch, and a batch is drawn from as many groups as promised."""
    groups, batch = [20] * 100, 50
    tenths, apart = np.zeros((100, 10)), []
    for seed in range(200):
        order = Order(groups, seed, 0, batch_size=batch, window=400, lanes=4, shuffled=True)
        found = np.asarray(placed(order, groups))
        np.add.at(tenths, (found // 20, np.arange(2000) // 200), 1)
        of_batch = [len({*(part // 20)}) for part in np.split(found, 2000 // batch)]
        assert np.mean(of_batch) > 15  # 20 row groups are in the window
        apart += [*np.abs(np.diff(found))]
    # In a uniform shuffle 2000 / 3; one neighbour in five is of the same row group, as a lane's window holds five.
    assert np.mean(apart) == pytest.approx(2000 / 3 * 4 / 5, rel=0.05)
    expected = 200 * 20 / 10
    # Rows of a group come together, so a group's place counts as one draw of 20 rows.
    assert ((tenths - expected) ** 2 / expected).sum() / 20 < 1100  # of 900 degrees of freedom


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    pq.write_table(
        pa.table({
            "real": pa.array([1.5, None, 3.5, 4.5]),
            "whole": pa.array([1, 2, None, 4], pa.int32()),
            "flag": pa.array([True, False, None, True]),
            "text": pa.array(["b", None, "a", "zz"]),
            "coded": pa.array(["x", "y", "x", "y"]).dictionary_encode(),
            "vector": pa.array([[1, 2], [3, 4], [5, 6], [7, 8]], pa.list_(pa.float32(), 2)),
            "at": pa.array([1, 2, 3, 4], pa.timestamp("ms", "UTC")),
            "exact": pa.array([2**60 + 1, 2, 3, 4]),
            "late": pa.array([True, False, True, True]),
            "huge": pa.array([1, 2**63 - 1, 3, 2**63], pa.uint64()),
            "empty": pa.nulls(4),
        }),
        tmp_path / "typed.parquet",
        row_group_size=3,
    )  # fmt: skip
    return tmp_path / "typed.parquet"


def only(loader: Loader) -> Any:
    (batch,) = loader.stored(10)
    return batch


def test_columns_are_arrays_of_their_kinds(typed: Path) -> None:
    loader = Loader(typed, inputs=(["real", "whole", "flag", "empty"], "text", "vector", "exact"), targets="late",
                    categories=["text"])  # fmt: skip
    (matrix, text, vector, exact), late = only(loader)
    nan = float("nan")
    np.testing.assert_array_equal(matrix, np.float32([[1.5, 1, 1, nan], [nan, 2, 0, nan], [3.5, nan, nan, nan],
                                                      [4.5, 4, 1, nan]]))  # fmt: skip
    assert matrix.dtype == np.float32
    assert loader.categories == {"text": ["a", "b", "zz"]}
    assert (text.tolist(), text.dtype) == ([2, 0, 1, 3], np.int64)
    assert (vector.tolist(), vector.dtype) == ([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
    assert exact.tolist() == [2**60 + 1, 2, 3, 4]
    assert (late.tolist(), late.dtype) == ([1, 0, 1, 1], np.int64)


def test_codes_of_targets_times_and_fills(typed: Path) -> None:
    loader = Loader(typed, inputs=(["at", "real"], "whole", "text"), targets="coded", dtype="float64",
                    categories={"coded": ["y", "x"], "text": ["b"]}, fill={"real": -1.0, "whole": 7})  # fmt: skip
    (matrix, whole, text), coded = only(loader)
    assert matrix.tolist() == [[1000, 1.5], [2000, -1], [3000, 3.5], [4000, 4.5]]
    assert (whole.tolist(), text.tolist(), coded.tolist()) == ([1, 2, 7, 4], [1, 0, 0, 0], [1, 0, 1, 0])
    assert only(Loader(typed, inputs="real", targets=["late"]))[1].tolist() == [[1], [0], [1], [1]]
    assert only(Loader(typed, inputs=["whole"], fill={"whole": 0.5})).tolist() == [[1], [2], [0.5], [4]]
    assert only(Loader(typed, inputs=["huge"]))[3] == 2**63


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inputs": ["rael"]}, "no column 'rael'.*did you mean 'real'"),
        ({"inputs": ["text"]}, "'text' is string, which is no number.*categories="),
        ({"inputs": ["real", "text"], "categories": ["text"]}, "'text' has categories, and is one of a matrix"),
        ({"inputs": []}, "no columns"),
        ({"inputs": "whole"}, "'whole' has 1 nulls.*fill="),
        ({"inputs": "real", "targets": "real"}, "target 'real' is null in 1 rows"),
        ({"inputs": "real", "targets": ["late", "flag"]}, "target 'flag' is null in 1 rows"),
        ({"inputs": "real", "targets": "text", "categories": ["text"]}, "target 'text' is null in 1 rows"),
        ({"inputs": "real", "targets": "coded", "categories": {"coded": ["x"]}}, "'coded' has 'y', which is none of"),
        ({"inputs": "real", "fill": {"whole": 1}}, r"fill for \['whole'\]"),
        ({"inputs": "real", "categories": ["vector"]}, "'vector' is fixed_size_list.*which is no category"),
        ({"inputs": "whole", "fill": {"whole": 0.5}}, "'whole' has whole numbers, and its fill is a fraction"),
        ({"inputs": ["whole"], "fill": {"whole": "none"}}, "'whole' is int32, which the fill 'none' is not"),
        ({"inputs": "huge"}, "'huge' has 9223372036854775808, which is more than int64 holds"),
        ({"inputs": "real", "dtype": "int8"}, "int8"),
        ({"inputs": "real", "threads": 0}, "threads=0"),
    ],
)
def test_bad_columns_are_named(typed: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises((Invalid, InvalidData), match=said):
        only(Loader(typed, **settings))


def test_a_column_that_a_file_lacks_is_null(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1.0, 2.0]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": [5.0], "a": [3.0]}), tmp_path / "2.parquet")
    rows = only(Loader(tmp_path, inputs=["a", "b"]))
    np.testing.assert_array_equal(rows, [[1, np.nan], [2, np.nan], [3, 5]])
    np.testing.assert_array_equal(only(Loader(tmp_path, inputs=["b"], fill={"b": 0.5})), [[0.5], [0.5], [5]])


def test_tables_without_rows_have_no_batches(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.float64())}), tmp_path / "1.parquet")
    loader = Loader(tmp_path, inputs=["a"])
    assert (len(loader), [*loader.batches(4)], [*loader.stored(4)]) == (0, [], [])
    scan = TableScan(0, files=(), schema=pa.schema({"a": pa.float64()}))
    assert [*Loader(scan, inputs=["a"]).stored(4)] == []


def test_files_that_are_torn_changed_or_gone(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no\.parquet"):
        Loader(tmp_path / "no.parquet", inputs="number")
    with pytest.raises(Invalid, match="no Parquet file"):
        Loader(tmp_path, inputs="number")
    path = write(tmp_path, (5000, 1000)) / "part-0.parquet"
    whole, loader = path.read_bytes(), Loader(tmp_path, inputs="number", window=500)
    path.write_bytes(whole[:-100])
    with pytest.raises(Corrupt, match=r"part-0\.parquet is no whole Parquet"):
        Loader(tmp_path, inputs="number")
    with pytest.raises(Conflict, match="was changed while rows were loaded"):
        [*loader.batches(10)]
    path.unlink()
    with pytest.raises(Conflict, match="vanished"):
        [*loader.batches(10)]
    # Damage inside, with a footer that is whole.
    path.write_bytes(whole[:4000] + os.urandom(3000) + whole[7000:])
    with pytest.raises((Corrupt, InvalidData)):
        [*Loader(tmp_path, inputs="number", window=500).batches(10)]


def test_the_digest_is_that_of_content_and_settings(folder: Path, tmp_path: Path) -> None:
    here = Loader(folder, inputs="number").digest()
    assert Loader(write(tmp_path, (100, 7), (1, 1), (260, 40), (33, 33)), inputs="number").digest() == here
    assert len({here, *(Loader(folder, inputs="number", **{name: 3}).digest() for name in ("window", "lanes"))}) == 3
    pq.write_table(pa.table({"number": np.arange(33) + 362, "half": np.zeros(33)}), tmp_path / "part-3.parquet")
    assert Loader(tmp_path, inputs="number").digest() != here


def test_threads_end_with_the_iteration(folder: Path) -> None:
    before = threading.active_count()
    batches = Loader(folder, inputs="number", window=50).batches(10)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


MEASURED = """
import resource, sys
from mainspring.training.loading.loader import Loader

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

taken = 0
for batch in Loader(sys.argv[1], inputs=[f"c{n}" for n in range(16)], window=20_000, lanes=4).batches(1024):
    taken += len(batch)
    if taken < 200_000:
        before = peak()
print(taken, before, peak())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    rows = examples(gate=1_200_000, deep=12_000_000)
    column = pa.array(np.random.default_rng(0).normal(size=50_000).astype(np.float32))
    table = pa.table({f"c{number}": column for number in range(16)})
    with pq.ParquetWriter(tmp_path / "rows.parquet", table.schema, use_dictionary=False) as writer:
        for _ in range(rows // len(table)):
            writer.write_table(table)
    environment = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], env=environment, text=True,
                          capture_output=True, check=True)  # fmt: skip
    total, before, after = map(int, done.stdout.split())
    assert total == rows
    assert after - before < 25  # MiB, of 64 to be held


EARLIER = pa.table({
    "x": [1, 2], "flag": [True, False], "none": pa.nulls(2), "text": ["a", "b"],
    "v": pa.array([[1.0], [2]], pa.list_(pa.float64(), 1)),
})  # fmt: skip


@pytest.mark.parametrize("column", ["x", "flag", "none"])
@pytest.mark.parametrize("later", [pa.array([0.5, 1.5]), pa.array([0.5, 1.5]).cast(pa.decimal128(3, 1))])
def test_fractions_of_a_later_file_are_not_cut(tmp_path: Path, column: str, later: Any) -> None:
    pq.write_table(EARLIER, tmp_path / "a.parquet")
    pq.write_table(pa.table({column: later}), tmp_path / "b.parquet")
    (rows,) = Loader(tmp_path, inputs=column, fill={column: 0}).stored(4)
    assert rows.tolist()[2:] == [0.5, 1.5]


@pytest.mark.parametrize(
    ("settings", "later"),
    [
        ({"inputs": "x"}, pa.array(["1", "2"])),
        ({"inputs": ["x", "flag"]}, pa.array(["1", "2"])),
        ({"inputs": "v"}, pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2))),
        ({"inputs": "v"}, pa.array([1.0])),
        ({"inputs": "text", "categories": ["text"]}, pa.array([["a"]])),
        ({"inputs": "text", "categories": {"text": ["a"]}}, pa.array([["a"]])),
    ],
)
def test_a_file_whose_column_has_another_type_is_named(tmp_path: Path, settings: dict[str, Any], later: Any) -> None:
    pq.write_table(EARLIER, tmp_path / "a.parquet")
    name = settings["inputs"] if isinstance(settings["inputs"], str) else "x"
    pq.write_table(pa.table({name: later}), tmp_path / "b.parquet")
    with pytest.raises(Invalid, match=rf"'{name}' is {str(later.type)[:4]}.* in .*b\.parquet, and .* elsewhere"):
        Loader(tmp_path, **settings)


def test_vectors_that_a_file_has_as_nulls_alone_are_refused(tmp_path: Path) -> None:
    pq.write_table(EARLIER, tmp_path / "a.parquet")
    pq.write_table(pa.table({"v": pa.nulls(2)}), tmp_path / "b.parquet")
    with pytest.raises(InvalidData, match="'v' has rows that are null"):
        [*Loader(tmp_path, inputs="v").stored(4)]
