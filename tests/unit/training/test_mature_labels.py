"""Labels that mature: what training and monitoring make of them, against a plain loop over the same rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit.depth import examples
from kit.worlds import prediction, read
from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, to_datetime
from mainspring.data.model import SEQUENCE, VISIBLE_AT, TableScan
from mainspring.monitoring.joins import join_labels as join_predictions
from mainspring.monitoring.joins import label_rows
from mainspring.training.label import Label, label_keys
from mainspring.training.sets.assemble import labelled
from mainspring.training.sets.labels import LABEL, LeftOut

payment = ms.Entity("payment", keys={"payment": ms.String})
shop = ms.Entity("shop", keys={"shop": ms.String})
payments = ms.Source("payments", schema={"payment": ms.String, "shop": ms.String}, event_time="paid_at")
chargebacks = ms.Source(
    "chargebacks",
    schema={"payment": ms.String, "shop": ms.String, "fraud": ms.Boolean},
    event_time="happened_at",
    recorded_time="reported_at",
)
paid = ms.Observations(payments, keys=[payment, shop], at=ms.col("paid_at"))
TIME = pa.timestamp("us", tz="UTC")


def observed(rows: list[tuple[str | None, int]], shop_name: str | None = "s") -> pa.Table:
    """Return observations (payment, instant) as they landed, in order of time."""
    rows = sorted(rows, key=lambda row: row[1])
    at = pa.array([to_datetime(at) for _, at in rows], TIME)
    return pa.table(
        {
            "payment": pa.array([name for name, _ in rows], pa.string()),
            "shop": pa.array([shop_name] * len(rows), pa.string()),
            "paid_at": at,
            VISIBLE_AT: at,
            SEQUENCE: pa.array(range(len(rows)), pa.int64()),
        }
    )


def landed(rows: list[tuple[str | None, bool | None, int, int]]) -> TableScan:
    """Return label rows (payment, fraud, event time, recorded time) as they landed, in the order given."""
    return TableScan(
        1,
        rows=pa.table(
            {
                "payment": pa.array([row[0] for row in rows], pa.string()),
                "shop": pa.array(["s"] * len(rows), pa.string()),
                "fraud": pa.array([row[1] for row in rows], pa.bool_()),
                "happened_at": pa.array([to_datetime(row[2]) for row in rows], TIME),
                "reported_at": pa.array([to_datetime(row[3]) for row in rows], TIME),
                VISIBLE_AT: pa.array([to_datetime(max(row[2], row[3])) for row in rows], TIME),
                SEQUENCE: pa.array(range(len(rows)), pa.int64()),
            }
        ),
    )


def joined(label: Label, rows: pa.Table, scan: TableScan, until: int | None) -> tuple[list[Any], LeftOut]:
    tables = {"payments": TableScan(1, rows=rows), "chargebacks": scan}
    found, left_out = labelled(paid, [label], tables.__getitem__, since=None, until=until)
    names, at = found["payment"].to_pylist(), found["_at"].cast(pa.int64()).to_pylist()
    return list(zip(names, at, found[LABEL].to_pylist(), strict=True)), left_out


def by_payment(matures: int, otherwise: bool | None) -> Label:
    return ms.Label(chargebacks.fraud, matures=matures, otherwise=otherwise, entity=payment)


NAMES = st.sampled_from(["a", "b", "c", None])
LABELS = st.lists(
    st.tuples(NAMES, st.sampled_from([True, False, None]), st.integers(0, 9), st.integers(0, 9)), max_size=12
)


@settings(max_examples=examples(gate=20, deep=80), deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.integers(0, 9)), max_size=6),
    LABELS,
    st.integers(1, 5),
    st.sampled_from([None, False, True]),
    st.integers(0, 12),
)
@example([("a", 1)], [("a", True, 2, 2), ("a", False, 8, 8)], 3, False, 9)  # changes after it matured
@example([("a", 4)], [("a", True, 2, 2), ("b", True, 9, 9)], 3, False, 9)  # known before
def test_a_label_is_what_was_known_at_maturity(
    rows: list[tuple[str | None, int]],
    labels: list[tuple[str | None, bool | None, int, int]],
    matures: int,
    otherwise: bool | None,
    until: int,
) -> None:
    visible = [max(event, recorded) for _, _, event, recorded in labels]
    through = max((each for each in visible if each <= until), default=-1)
    expected, reasons = [], []
    for name, at in sorted(rows, key=lambda row: row[1]):
        if at >= until:  # not observed yet
            continue
        known = [
            (event, recorded, seq, value, visible[seq])
            for seq, (of, value, event, recorded) in enumerate(labels)
            if of == name and name is not None and visible[seq] <= at + matures
        ]
        _, _, _, value, seen = max(known, key=lambda row: row[:3], default=(0, 0, 0, None, 0))
        if at + matures > through:
            reasons.append("not_mature")
        elif name is None:
            reasons.append("null_key")
        elif value is not None and seen <= at:
            reasons.append("known_before")
        elif value is None and otherwise is None:
            reasons.append("null_label" if known else "no_label")
        else:
            expected.append((name, at, otherwise if value is None else value, at + matures if value is None else seen))

    label, scan = by_payment(matures, otherwise), landed(labels)
    found, left_out = joined(label, observed(rows), scan, until)
    assert found == [each[:3] for each in expected]
    assert left_out.counts == {reason: reasons.count(reason) for reason in set(reasons)}

    # the same moments as predictions: a live quality is computed from exactly the labels that training would use
    asked = read([prediction(i, at=at, keys={"payment": name}) for i, (name, at) in enumerate(rows)])
    live = join_predictions(asked, label_rows([label], paid, lambda _: scan), until)
    key = {f"p{i}": name for i, (name, _) in enumerate(rows)}
    got = [
        (key[row["id"]], at, bool(row["label"]), at + row["lag_us"])
        for row, at in zip(live.to_pylist(), live["at"].cast(pa.int64()).to_pylist(), strict=True)
    ]
    assert sorted(got) == sorted(expected)


def test_a_feed_that_fell_silent_matures_nothing() -> None:
    """Nobody reported fraud since day 50: that the newer payments have none is not known, however late it is."""
    label = ms.Label(chargebacks.fraud, matures="40d", otherwise=False, entity=payment)
    rows = observed([("a", 0), ("b", 9 * DAY), ("c", 11 * DAY), ("d", 60 * DAY)])
    found, left_out = joined(label, rows, landed([("a", True, 0, 5 * DAY), ("x", True, 0, 50 * DAY)]), 400 * DAY)
    assert found == [("a", 0, True), ("b", 9 * DAY, False)]
    assert dict(left_out.counts) == {"not_mature": 2}
    assert "2 not mature (40d old; label rows are known until 1970-02-20T00:00:00Z)" in str(left_out)


def test_an_early_positive_waits_like_the_negatives() -> None:
    """A fraud that is reported on its first day enters with the payments of its day, not before them."""
    label = ms.Label(chargebacks.fraud, matures="40d", otherwise=False, entity=payment)
    rows = observed([("a", 0), ("b", 30 * DAY), ("c", 30 * DAY)])
    found, _ = joined(label, rows, landed([("b", True, 31 * DAY, 31 * DAY), ("x", True, 0, 45 * DAY)]), None)
    assert found == [("a", 0, False)]


def test_a_null_key_that_the_label_does_not_need_loses_no_label() -> None:
    """The merchant is not known; the payment is, and its label names it."""
    scan = landed([("a", True, 2, 2)])
    rows = observed([("a", 1), (None, 1)], shop_name=None)
    found, left_out = joined(ms.Label(chargebacks.fraud, entity=payment), rows, scan, None)
    assert found == [("a", 1, True)]
    assert str(left_out) == "1 observation is left out: 1 without a key of the label (payment is null)"
    by_all, left_out = joined(Label(chargebacks.fraud), rows, scan, None)  # nobody says what the label is of
    assert by_all == []
    assert "2 without a key of the label (payment or shop is null)" in str(left_out)


@pytest.mark.parametrize("said", [{"checks": [ms.unique("payment")]}, {"id": "payment"}])
@pytest.mark.parametrize("unique_in", ["label", "observations"])
def test_the_keys_are_of_what_the_sources_say_is_unique(unique_in: str, said: dict[str, Any]) -> None:
    def source(name: str, *, unique: bool, **columns: Any) -> ms.Source:
        schema = {"payment": ms.String, "shop": ms.String, **columns}
        return ms.Source(name, schema=schema, event_time="t", **(said if unique else {}))

    asked = source("asked", unique=unique_in == "observations")
    told = source("told", unique=unique_in == "label", fraud=ms.Boolean)
    observations = ms.Observations(asked, keys=[shop, payment], at=ms.col("t"))
    assert label_keys(observations, told.fraud) == ["payment"]
    assert label_keys(observations, Label(told.fraud, entity=shop)) == ["shop"]


@pytest.mark.parametrize(
    ("column", "settings", "message"),
    [
        ("fraud", {"matures": "40d", "otherwise": 0}, "Boolean, but otherwise=0 has the type int"),
        ("amount", {"matures": "40d", "otherwise": False}, "otherwise=False has the type bool"),
        ("amount", {"matures": "40d", "otherwise": float("nan")}, "finite"),
        ("amount", {"matures": "40d", "otherwise": 1e39}, r"Float32.*otherwise=1e\+39 is out of range"),
        ("amount", {"matures": "40d", "otherwise": 10**39}, "Float32.*is out of range"),
        ("count", {"matures": "40d", "otherwise": 2**31}, "Int32.*otherwise=2147483648 is out of range"),
        ("count", {"matures": "40d", "otherwise": -(2**31) - 1}, "Int32.*is out of range"),
        ("total", {"matures": "40d", "otherwise": 2**63}, "Int64.*is out of range"),
        ("exact", {"matures": "40d", "otherwise": 10**309}, "Float64.*is out of range"),
        ("kind", {"matures": "40d", "otherwise": 1}, "String, but otherwise=1"),
        ("fraud", {"otherwise": False}, "never matures"),
        ("fraud", {"matures": "0d"}, "the invalid duration matures='0d'"),
        ("fraud", {"matures": "soon"}, "'soon' is not a duration"),
    ],
)
def test_a_label_that_cannot_be_is_refused(column: str, settings: dict[str, Any], message: str) -> None:
    source = ms.Source(
        "outcomes",
        schema={
            "fraud": ms.Boolean,
            "amount": ms.Float32,
            "kind": ms.String,
            "count": ms.Int32,
            "total": ms.Int64,
            "exact": ms.Float64,
        },
        event_time="t",
        recorded_time="known",
    )
    with pytest.raises(Invalid, match=message):
        ms.Label(getattr(source, column), **settings)


def test_the_largest_values_of_a_type_are_labels() -> None:
    source = ms.Source("outcomes", schema={"count": ms.Int32, "total": ms.Int64, "amount": ms.Float32}, event_time="t",
                       recorded_time="known")  # fmt: skip
    for column, value in (("count", 2**31 - 1), ("count", -(2**31)), ("total", -(2**63)), ("amount", 3.4028235e38)):
        assert ms.Label(getattr(source, column), matures="40d", otherwise=value).otherwise == value


def test_a_label_matures_only_where_it_is_known_when_it_became_known() -> None:
    source = ms.Source("outcomes", schema={"fraud": ms.Boolean}, event_time="t")
    with pytest.raises(Invalid, match="does not declare when its rows became known") as refused:
        ms.Label(source.fraud, matures="40d")
    assert refused.value.fix is not None
    assert "recorded_time='t'" in refused.value.fix
    same = ms.Source("outcomes", schema={"fraud": ms.Boolean}, event_time="t", recorded_time="t")
    assert ms.Label(same.fraud, matures="40d").matures_us == 40 * DAY


def test_what_is_no_label_is_refused() -> None:
    with pytest.raises(Invalid, match=r"'chargebacks\.fraud', which is not a column of a source"):
        ms.Label("chargebacks.fraud")  # type: ignore[arg-type]
    stranger = ms.Entity("stranger", keys={"stranger": ms.String})
    with pytest.raises(Invalid, match=r"lacks its keys \['stranger'\]"):
        label_keys(paid, ms.Label(chargebacks.fraud, entity=stranger))
