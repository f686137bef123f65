"""The faults of bench/alarms.py: two lists without a common fault, each of which changes the columns that it names."""

from __future__ import annotations

import numpy as np
import pytest

from alarms_faults import CARRIER, DESTINATION, ORIGIN, PLACEBO, ROWS, TEST, TUNE, WEATHER, Fault, Rows

NUMBERS = (*ORIGIN, *CARRIER, *DESTINATION, *WEATHER, "Schedule.hour", "Schedule.weekday", "Schedule.distance")


def day(seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    rows: Rows = {name: rng.normal(700, 500, 200).round() for name in NUMBERS}
    for name in NUMBERS[:-3]:
        rows[name][rng.random(200) < 0.1] = np.nan
    rows["Schedule.hour"] %= 24
    rows["Schedule.origin"] = rng.choice(["EWR", "JFK", "LGA"], 200).astype(object)
    rows["Schedule.carrier"] = rng.choice(["UA", "B6", "DL"], 200).astype(object)
    return rows


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return len(one) == len(other) and all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("fault", [*TUNE, *TEST], ids=lambda fault: fault.name)
def test_a_fault_changes_its_columns_and_no_other(fault: Fault) -> None:
    before = day(1)
    kept = {name: values.copy() for name, values in before.items()}
    after = fault.change(before, day(2), np.random.default_rng(3))
    assert all(same(before[name], kept[name]) for name in before), "the rows given are not changed"
    if ROWS in fault.columns:
        assert len(after["Schedule.hour"]) < 200
        return
    changed = {name for name in after if not same(after[name], before[name])}
    assert changed
    assert changed <= set(fault.columns)
    assert all(len(values) == 200 for values in after.values())


def test_the_lists_have_no_fault_in_common() -> None:
    tuned, tested = ({(fault.name, fault.columns) for fault in faults} for faults in (TUNE, TEST))
    assert len(tuned) == len(TUNE)
    assert len(tested) == len(TEST)
    assert not tuned & tested


def test_the_placebo_changes_nothing() -> None:
    before = day(1)
    after = PLACEBO.change(before, day(2), np.random.default_rng(3))
    assert all(same(after[name], values) for name, values in before.items())
