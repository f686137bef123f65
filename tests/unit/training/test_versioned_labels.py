"""Observations and labels of sources with an id: each fact is observed once, and labelled by its newest version."""

from __future__ import annotations

import random
from typing import Any

import pytest

import mainspring as ms
from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, ManualClock, parse_instant, to_datetime
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.ingest import Ingestor
from mainspring.features.offline import observe
from mainspring.training.label import Label
from mainspring.training.sets.assemble import labelled
from mainspring.training.sets.labels import LABEL

START = parse_instant("2026-01-01T00:00:00Z")
payment = ms.Entity("payment", keys={"payment": ms.Int64})
payments = ms.Source(
    "payments",
    schema={"payment": ms.Int64, "amount": ms.Float64, "fraud": ms.Boolean, "void": ms.Boolean},
    event_time="paid_at",
    recorded_time="known_at",
    id="payment",
    retracted="void",
)
PAID = ms.Observations(payments, keys=[payment], at=ms.col("paid_at"))


def row(number: int, known: int, amount: float, fraud: bool | None = None, *, void: bool = False) -> dict[str, Any]:
    paid = START + number * HOUR
    return {"payment": number, "paid_at": to_datetime(paid), "known_at": to_datetime(paid + known * DAY),
            "amount": amount, "fraud": fraud, "void": void}  # fmt: skip


@pytest.fixture
def lake() -> MemoryLake:
    made = MemoryLake()
    rows = [row(1, 0, 10.0), row(1, 2, 11.0, True), row(1, 5, 11.0, False), row(2, 0, 20.0), row(2, 1, 20.0, True),
            row(3, 0, 30.0, True), row(3, 4, 30.0, void=True)]  # fmt: skip
    Ingestor(made, MemoryLocks(), ManualClock(START)).ingest(payments, rows, keyings={})
    return made


def test_each_fact_is_observed_once_as_the_request_brought_it(lake: MemoryLake) -> None:
    found = observe(PAID, lake.scan)
    assert found.select(["payment", "amount"]).to_pylist() == [
        {"payment": 1, "amount": 10.0},
        {"payment": 2, "amount": 20.0},
    ]


@pytest.mark.parametrize("seed", range(examples(gate=2, deep=5)))
def test_a_fact_is_observed_as_of_an_instant_as_it_was_known_then(seed: int) -> None:
    """What came to be known later changes nothing: the oracle is a lake in which none of it landed."""
    chance = random.Random(seed)
    rows = [
        row(number, known, float(known), bool(chance.random() < 0.5), void=known > 0 and chance.random() < 0.5)
        for number in range(30)
        for known in sorted([0, *chance.sample(range(1, 12), chance.randrange(4))])
    ]
    whole = MemoryLake()
    Ingestor(whole, MemoryLocks(), ManualClock(START)).ingest(payments, rows, keyings={})
    for day in (2, 5, 9, 14):
        until = START + day * DAY
        then = MemoryLake()
        known_then = [each for each in rows if each["known_at"] <= to_datetime(until)]
        Ingestor(then, MemoryLocks(), ManualClock(START)).ingest(payments, known_then, keyings={})
        assert observe(PAID, whole.scan, until=until).equals(observe(PAID, then.scan, until=until))
        found, as_then = (
            labelled(PAID, [Label(payments.fraud)], lake.scan, since=None, until=until)[0] for lake in (whole, then)
        )
        assert found.equals(as_then)


@pytest.mark.parametrize(
    ("until", "matures", "labels"),
    [
        (None, None, {1: False, 2: True}),
        (START + 3 * DAY, None, {1: True, 2: True, 3: True}),  # retracted on day 4
        (START + 30 * DAY, "3d", {1: True, 2: True}),
        (START + 30 * DAY, "6d", {1: False, 2: True}),
    ],
)
def test_a_label_is_that_of_the_newest_version(
    lake: MemoryLake, until: int | None, matures: str | None, labels: dict[int, bool]
) -> None:
    label = Label(payments.fraud, matures=matures) if matures else Label(payments.fraud)
    extra = row(9, 60, 1.0)
    Ingestor(lake, MemoryLocks(), ManualClock(START)).ingest(payments, [extra], keyings={})
    found, _ = labelled(PAID, [label], lake.scan, since=None, until=until if matures is None else None)
    assert dict(zip(found["payment"].to_pylist(), found[LABEL].to_pylist(), strict=True)) == labels


def test_a_table_from_before_the_id_was_declared_is_refused_with_the_way_out() -> None:
    bare = ms.Source("payments", schema=payments.schema, event_time="paid_at", recorded_time="known_at")
    lake = MemoryLake()
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(START))
    ingestor.ingest(bare, [row(1, 0, 10.0, True)], keyings={})
    of_bare = ms.Observations(bare, keys=[payment], at=ms.col("paid_at"))
    for read in (
        lambda: observe(PAID, lake.scan),
        lambda: labelled(of_bare, [Label(payments.fraud)], lake.scan, since=None, until=None),
    ):
        with pytest.raises(Invalid, match=r"declared the id payment.*mainspring apply"):
            read()
    ingestor.conform(payments, {})
    assert observe(PAID, lake.scan).num_rows == 1
