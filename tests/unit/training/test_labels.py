"""Labels: the join against a plain loop over the same rows."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.time import to_datetime
from mainspring.data.model import TableScan
from mainspring.training.label import Label, label_keys
from mainspring.training.sets.assemble import labelled
from mainspring.training.sets.labels import LABEL

parcel = ms.Entity("parcel", keys={"depot": ms.String, "parcel": ms.Int64})
driver = ms.Entity("driver", keys={"driver": ms.String})
sent = ms.Source("sent", schema={"depot": ms.String, "parcel": ms.Int64, "driver": ms.String}, event_time="sent_at")
arrived = ms.Source(
    "arrived",
    schema={"depot": ms.String, "parcel": ms.Int64, "late": ms.Boolean},
    event_time="arrived_at",
    recorded_time="recorded_at",
)
observed_parcels = ms.Observations(sent, keys=[driver, parcel], at=ms.col("sent_at"))

TIME = pa.timestamp("us", tz="UTC")
LABELS = pa.schema(
    [("depot", pa.string()), ("parcel", pa.int64()), ("late", pa.bool_()), ("arrived_at", TIME),
     ("recorded_at", TIME), ("_visible_at", TIME), ("_seq", pa.int64())]
)  # fmt: skip

depots = st.sampled_from(["1", "11", None])
parcels = st.sampled_from([1, 11, None])
label_rows = st.lists(
    st.tuples(depots, parcels, st.sampled_from([True, False, None]), st.integers(0, 6), st.integers(0, 6)), max_size=25
)


@settings(max_examples=examples(gate=10, deep=30), deadline=None)
@given(st.lists(st.tuples(depots, parcels), max_size=12), label_rows, st.one_of(st.none(), st.integers(-1, 8)))
def test_the_join_is_the_loop(
    keys: list[tuple[str | None, int | None]],
    rows: list[tuple[str | None, int | None, bool | None, int, int]],
    until: int | None,
) -> None:
    before = pa.array([to_datetime(-9)] * len(keys), TIME)
    observed = pa.table(
        {
            "depot": pa.array([depot for depot, _ in keys], pa.string()),
            "parcel": pa.array([parcel for _, parcel in keys], pa.int64()),
            "driver": pa.array([str(number) for number in range(len(keys))], pa.string()),
            "sent_at": before,
            "_visible_at": before,
            "_seq": pa.array(range(len(keys)), pa.int64()),
        }
    )
    labels = pa.Table.from_pylist(
        [
            {
                "depot": depot,
                "parcel": parcel,
                "late": late,
                "arrived_at": to_datetime(event),
                "recorded_at": to_datetime(recorded),
                "_visible_at": to_datetime(max(event, recorded)),
                "_seq": seq,
            }
            for seq, (depot, parcel, late, event, recorded) in enumerate(rows)
        ],
        LABELS,
    )
    expected = []
    for number, key in enumerate(keys):
        known = [
            (event, recorded, seq, late)
            for seq, (depot, parcel, late, event, recorded) in enumerate(rows)
            if (depot, parcel) == key and None not in key and (until is None or max(event, recorded) <= until)
        ]
        if known and (label := max(known, key=lambda row: row[:3])[3]) is not None:
            expected.append((str(number), label))

    tables = {"sent": TableScan(1, rows=observed), "arrived": TableScan(1, rows=labels)}
    found, left_out = labelled(observed_parcels, [Label(arrived.late)], tables.__getitem__, since=None, until=until)

    assert list(zip(found["driver"].to_pylist(), found[LABEL].to_pylist(), strict=True)) == expected
    assert left_out.total == len(keys) - len(expected)
    assert found.column_names == [*sent.columns, "_at", LABEL]


def test_the_keys_are_those_that_the_label_has() -> None:
    assert label_keys(observed_parcels, arrived.late) == ["depot", "parcel"]


def test_a_label_of_other_things_is_refused() -> None:
    half = ms.Source("half", schema={"depot": ms.String, "late": ms.Boolean}, event_time="at")
    with pytest.raises(Invalid, match=r"'half'.*\['driver', 'parcel'\]"):
        label_keys(observed_parcels, half.late)
