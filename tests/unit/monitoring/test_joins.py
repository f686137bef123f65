"""The join of predictions with labels, against a reading of the rule in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.worlds import ARRIVALS, INSTANT, arrivals, label, prediction, read
from mainspring.core.errors import Invalid
from mainspring.core.expr import col
from mainspring.core.schema import DType
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source, SourceColumn, TableScan
from mainspring.features.model import Entity, Observations
from mainspring.ledger.model import Prediction
from mainspring.monitoring.joins import arrived, join_labels, json_rows, label_rows
from mainspring.monitoring.model import LabelRows
from mainspring.monitoring.tally import thinned
from mainspring.training.label import Label

HOUR = 3_600_000_000


def test_a_late_label_joins_only_once_it_is_visible() -> None:
    predictions = read([prediction(1, at=10, score=0.8)])
    labels = arrivals([label("f1", True, 50)])
    assert join_labels(predictions, labels, now=49).num_rows == 0
    joined = join_labels(predictions, labels, now=50)
    assert joined.select(["id", "version", "score", "label", "lag_us"]).to_pylist() == [
        {"id": "p1", "version": "1", "score": 0.8, "label": 1.0, "lag_us": 40}
    ]


def test_a_label_known_before_the_prediction_is_no_outcome() -> None:
    labels = arrivals([label("f1", True, 10), label("f2", True, 11)])
    joined = join_labels(read([prediction(1, at=10), prediction(2, at=10)]), labels, now=100)
    assert joined["id"].to_pylist() == ["p2"]


def test_duplicates_count_once() -> None:
    twice = read([prediction(1, at=10)])
    predictions = pa.concat_tables([twice, twice])
    labels = arrivals([label("f1", True, 50), label("f1", True, 50), label("f1", True, 60)])
    assert join_labels(predictions, labels, now=100)["id"].to_pylist() == ["p1"]


def test_two_predictions_of_one_flight_both_get_the_label() -> None:
    same = {"flight": "f7"}
    predictions = read([prediction(1, at=10, keys=same), prediction(2, at=20, keys=same)])
    joined = join_labels(predictions, arrivals([label("f7", False, 50)]), now=100)
    assert joined.select(["id", "label", "lag_us"]).to_pylist() == [
        {"id": "p1", "label": 0.0, "lag_us": 40},
        {"id": "p2", "label": 0.0, "lag_us": 30},
    ]


def test_a_correction_wins_from_when_it_is_visible() -> None:
    predictions = read([prediction(1, at=10)])
    labels = arrivals([label("f1", True, 50, landed=40, reported=50), label("f1", False, 90, landed=40, reported=90)])
    assert join_labels(predictions, labels, now=89)["label"].to_pylist() == [1.0]
    assert join_labels(predictions, labels, now=90)["label"].to_pylist() == [0.0]


def test_an_older_fact_that_comes_later_does_not_win() -> None:
    labels = arrivals([label("f1", True, 50, landed=40), label("f1", False, 90, landed=30)])
    assert join_labels(read([prediction(1, at=10)]), labels, now=100)["label"].to_pylist() == [1.0]


def test_a_label_that_was_taken_back_is_none() -> None:
    labels = arrivals([label("f1", True, 50, landed=40), label("f1", None, 90, landed=41)])
    predictions = read([prediction(1, at=10)])
    assert join_labels(predictions, labels, now=60).num_rows == 1
    assert join_labels(predictions, labels, now=90).num_rows == 0


def test_keys_of_another_type_never_meet() -> None:
    keys = [{"flight": 1}, {"flight": True}, {"flight": None}, {}, {"flight": "1"}]
    predictions = read([prediction(i, at=10, keys=key) for i, key in enumerate(keys)])
    labels = arrivals([label("1", True, 50), label(None, True, 50)])
    assert join_labels(predictions, labels, now=100)["id"].to_pylist() == ["p4"]


@pytest.mark.parametrize(
    ("dtype", "arrow", "stored", "logged", "others"),
    [
        (DType.Int32, pa.int32(), 7, 7, ["7", True, 7.0]),
        (DType.Int64, pa.int64(), 2**53 + 1, 2**53 + 1, [2**53, str(2**53 + 1), 2**80]),
        (DType.Float32, pa.float32(), 0.5, 0.5, ["0.5", True]),
        (DType.Boolean, pa.bool_(), True, True, [1, "true"]),
        (DType.Timestamp, INSTANT, 1_372_636_800_000_001, 1_372_636_800_000_001, [1_372_636_800_000_000, "2013"]),
    ],
)
def test_every_type_of_key_meets_itself(dtype: DType, arrow: Any, stored: Any, logged: Any, others: list[Any]) -> None:
    source = Source("outcomes", schema={"key": dtype, "y": DType.Float32}, event_time="then")
    table = pa.table(
        {
            "key": pa.array([stored], arrow),
            "y": pa.array([2.5], pa.float32()),
            "then": pa.array([50], INSTANT),
            VISIBLE_AT: pa.array([50], INSTANT),
            SEQUENCE: pa.array([0], pa.int64()),
        }
    )
    rows = LabelRows(Label(SourceColumn(source, "y")), {"key": dtype}, TableScan(0, rows=table))
    predictions = read([prediction(i, at=10, keys={"key": key}) for i, key in enumerate([logged, *others])])
    assert join_labels(predictions, rows, now=100).select(["id", "label"]).to_pylist() == [{"id": "p0", "label": 2.5}]


def test_a_key_may_have_any_name() -> None:
    schema = {"id": DType.String, "score": DType.Int64, "at": DType.String, "label": DType.Float64}
    source = Source("outcomes", schema=schema, event_time="then")
    table = pa.table(
        {
            "id": ["x", "x"], "score": pa.array([1, 2], pa.int64()), "at": ["k", "k"], "label": [10.0, 20.0],
            "then": pa.array([50, 50], INSTANT), VISIBLE_AT: pa.array([50, 50], INSTANT),
            SEQUENCE: pa.array([0, 1], pa.int64()),
        }
    )  # fmt: skip
    keys = {"id": DType.String, "score": DType.Int64, "at": DType.String}
    rows = LabelRows(Label(SourceColumn(source, "label")), keys, TableScan(0, rows=table))
    predictions = read([prediction(1, at=10, score=0.25, keys={"id": "x", "score": 2, "at": "k"})])
    joined = join_labels(predictions, rows, now=100)
    assert joined.select(["id", "score", "label"]).to_pylist() == [{"id": "p1", "score": 0.25, "label": 20.0}]


def test_a_class_stays_a_text() -> None:
    labels = arrivals([{**label("f1", None, 50), "why": "weather"}], column="why")
    assert join_labels(read([prediction(1, at=10)]), labels, now=100)["label"].to_pylist() == ["weather"]


def test_nothing_joins_nothing() -> None:
    labels = arrivals([])
    assert join_labels(read([]), labels, now=100).num_rows == 0
    assert join_labels(read([prediction(1, at=10)]), labels, now=100).num_rows == 0
    assert not arrived(labels, 0, 100)


def test_arrived_tells_whether_a_label_became_visible_in_between() -> None:
    labels = arrivals([label("f1", True, 50)])
    assert not arrived(labels, 50, 100)
    assert arrived(labels, 49, 50)
    assert not arrived(labels, 10, 49)


def test_the_keys_are_those_that_the_label_source_has() -> None:
    flight = Entity("flight", keys={"flight": DType.String})
    origin = Entity("origin", keys={"origin": DType.String})
    schedule = Source("schedule", schema={"flight": DType.String, "origin": DType.String}, event_time="planned")
    flights = Observations(schedule, keys=[flight, origin], at=col("planned"))
    scan = TableScan(0, rows=pa.table({}))
    assert label_rows([Label(SourceColumn(ARRIVALS, "late"))], flights, lambda _: scan).keys == {"flight": DType.String}
    only_origin = Observations(schedule, keys=[origin], at=col("planned"))
    with pytest.raises(Invalid, match="arrivals"):
        label_rows([Label(SourceColumn(ARRIVALS, "late"))], only_origin, lambda _: scan)


def test_json_rows_read_null_as_an_empty_object() -> None:
    assert json_rows(pa.chunked_array([['{"a": 1}', None], ['{"b": "x,}"}']])) == [{"a": 1}, {}, {"b": "x,}"}]
    assert json_rows(pa.chunked_array([], pa.string())) == []


FLIGHTS = st.sampled_from(["f1", "f2", "f3"])
TIMES = st.integers(0, 12)
LABELS = st.lists(
    st.builds(label, FLIGHTS, st.sampled_from([True, False, None]), TIMES, landed=TIMES, reported=TIMES), max_size=12
)


def expected(predictions: list[tuple[str, int]], rows: list[dict[str, Any]], now: int) -> list[tuple[int, float, int]]:
    """The rule, word for word: go through the rows of a flight in the order in which they became visible; a row counts
    if its (event time, recorded time, sequence) exceeds all before; the last that counts is the label."""
    found = []
    for number, (flight, at) in enumerate(predictions):
        largest: tuple[int, int, int] | None = None
        holds: dict[str, Any] | None = None
        for sequence, row in sorted(enumerate(rows), key=lambda item: (item[1][VISIBLE_AT], item[0])):
            if row["flight"] != flight or row[VISIBLE_AT] > now:
                continue
            position = (row["landed"], row["reported"], sequence)
            if largest is None or position > largest:
                largest, holds = position, row
        if holds is not None and holds["late"] is not None and holds[VISIBLE_AT] > at:
            found.append((number, float(holds["late"]), holds[VISIBLE_AT] - at))
    return sorted(found, key=lambda item: (predictions[item[0]][1], f"p{item[0]}"))


@settings(max_examples=examples(gate=20, deep=60), deadline=None)
@given(st.lists(st.tuples(FLIGHTS, TIMES), max_size=6), LABELS, TIMES)
def test_the_join_is_the_rule(predictions: list[tuple[str, int]], rows: list[dict[str, Any]], now: int) -> None:
    table = read([prediction(i, at=at, keys={"flight": flight}) for i, (flight, at) in enumerate(predictions)])
    joined = join_labels(table, arrivals(rows), now)
    got = [(int(row["id"][1:]), row["label"], row["lag_us"]) for row in joined.to_pylist()]
    assert got == expected(predictions, rows, now)


def sampled(shares: list[float], window_us: int, per_window: int = 2_000) -> list[Prediction]:
    """Return what was logged of predictions whose share changed with each half window; the score is the half's number.

    The first half of a window has the first share, the second the next, and so on.
    """
    half = window_us // 2
    chance = np.random.default_rng(4)
    made = []
    for place, share in enumerate(shares):
        for number in range(per_window // 2):
            if chance.random() < share:
                at = place * half + number * half // per_window
                made.append(prediction(len(made), at, float(place % 2), share=share))
    return made


def even(table: pa.Table, window_us: int) -> pa.Table:
    """Return the rows that count of each window."""
    starts = table["at"].cast(pa.int64()).to_numpy() // window_us
    windows = [table.filter(pa.array(starts == start)) for start in np.unique(starts)]
    return pa.concat_tables([thinned(rows, min(rows["share"].to_pylist())) for rows in windows])


def test_a_window_whose_share_changed_counts_both_of_its_parts_alike() -> None:
    table = read(sampled([1.0, 0.2, 0.5, 0.5, 0.1, 0.8], 1_000_000))
    evened = even(table, 1_000_000)
    at = evened["at"].cast(pa.int64()).to_numpy()
    counts = {number: int(np.sum(at // 500_000 == number)) for number in range(6)}
    before = np.bincount(table["at"].cast(pa.int64()).to_numpy() // 500_000)
    assert (counts[1], counts[2], counts[3], counts[4]) == tuple(before[1:5])  # nothing to even out
    for first, second, chance in ((0, 1, 0.2), (5, 4, 0.1)):
        spread = 5 * (1_000 * chance) ** 0.5
        assert abs(counts[first] - 1_000 * chance) < spread
        assert abs(counts[second] - 1_000 * chance) < spread
    scores = evened["score"].to_numpy()[at < 1_000_000]
    assert abs(scores.mean() - 0.5) < 0.15  # as in all that was asked; of what was logged it is 0.17
    assert even(evened, 1_000_000).equals(evened)


def test_one_share_leaves_all_as_it_is() -> None:
    table = read(sampled([0.5, 0.5], 1_000_000))
    assert thinned(table, 0.5) is table
