"""Money of usage: for any usage the parts are the machine's price, and no billionth is lost or made."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.core.time import HOUR
from mainspring.cost.rates import Rates, machine_rates
from mainspring.cost.splitting import shares
from mainspring.cost.statement import OF_MACHINES, OTHER, PLATFORM, parts, spread
from mainspring.cost.usage import CAPACITY, IDLE, MACHINE, OWN, Subject, Usage

RATES = machine_rates(0.0837, "EUR", cores=2, memory_gib=8, storage_gib_month={"lake": 0.023}, out_gib=0.09)
_USERS = st.lists(st.tuples(st.booleans(), st.integers(0, 10**13)), max_size=12)


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**15), min_size=1, max_size=40))
def test_shares_are_the_total_and_each_is_within_one_of_its_exact_part(total: int, weights: list[int]) -> None:
    found = shares(total, weights)
    assert sum(found) == total
    if whole := sum(weights):
        for part, weight in zip(found, weights, strict=True):
            assert abs(part - Fraction(total * weight, whole)) < 1


def _used(subject: Subject, amount: int, measure: str = "cpu") -> Usage:
    return Usage(machine="a", start=0, subject=subject, measure=measure, amount=amount)


@given(_USERS, st.integers(0, 10**14), st.integers(0, 10**14), st.integers(0, 10**14), st.sampled_from(OF_MACHINES))
def test_the_parts_of_a_machine_are_its_capacity_and_its_price(
    users: list[tuple[bool, int]], own: int, busy: int, idle: int, measure: str
) -> None:
    direct = [
        _used(Subject("job", str(number), inside=inside), amount, measure)
        for number, (inside, amount) in enumerate(users)
    ]
    capacity = busy + idle
    machine = {CAPACITY: capacity, IDLE: idle, OWN: own}
    found = parts(
        [*direct, *(_used(Subject(MACHINE, id), each, measure) for id, each in machine.items())], lambda _: RATES
    )
    metered = sum(each.amount for each in direct)
    inside = sum(each.amount for each in direct if each.subject.inside)
    total = sum(part.amount for part in found)
    assert total == max(capacity, metered + max(0, own - inside))
    assert {part.subject: part.amount for part in found if part.subject.kind == "job"} == {
        each.subject: each.amount for each in direct if each.amount
    }
    prices = {"cpu": (RATES.cpu_hour, HOUR), "memory": (RATES.memory_gib_hour, 3600 << 30), "gpu": (0.0, 1)}
    price, units = prices[measure]
    assert sum(part.nanos or 0 for part in found) == round(Decimal(price) * 10**9 / units * total)
    both = spread(found, (PLATFORM, IDLE))
    assert sum(part.nanos or 0 for part in both) == sum(part.nanos or 0 for part in found)


def test_a_machine_hour_is_divided_as_it_was_used() -> None:
    """Two cores: 0.5 h of an endpoint inside `up`, which used 0.75; 0.25 h of a run outside; 0.4 h of others."""
    usages = [
        _used(Subject(MACHINE, CAPACITY), 2 * HOUR),
        _used(Subject(MACHINE, IDLE), 6 * HOUR // 10),
        _used(Subject(MACHINE, OWN), 3 * HOUR // 4),
        _used(Subject("endpoint", "e", inside=True), HOUR // 2),
        _used(Subject("run", "r"), HOUR // 4),
    ]
    found = {part.subject.id: part for part in parts(usages, lambda _: RATES)}
    assert {id: part.amount / HOUR for id, part in found.items()} == {
        "e": 0.5, "r": 0.25, PLATFORM: 0.25, OTHER: 0.4, IDLE: 0.6,
    }  # fmt: skip
    assert found["e"].nanos == pytest.approx(RATES.cpu_hour * 0.5 * 1e9, abs=1)
    shared = {part.subject.id: part.nanos or 0 for part in spread(found.values(), (PLATFORM,))}
    assert shared[PLATFORM] == 0
    assert shared["e"] == pytest.approx((found["e"].nanos or 0) + (found[PLATFORM].nanos or 0) * 2 / 3, abs=1)


def test_storage_bytes_and_tokens_have_prices_of_their_own_and_unknown_ones_are_unknown() -> None:
    lake, elsewhere = Subject("table", "t", "lake"), Subject("table", "t", "archive")
    usages = [_used(lake, 730 << 30, "storage"), _used(elsewhere, 5, "storage"), _used(lake, 2 << 30, "out")]
    usages += [_used(lake, 7, "rows"), _used(lake, 1_500_000, "charged")]
    known = {(each.measure, each.subject.version): each.nanos for each in parts(usages, lambda _: RATES)}
    assert known == {
        ("storage", "lake"): 23_000_000, ("storage", "archive"): None, ("out", "lake"): 180_000_000,
        ("rows", "lake"): 0, ("charged", "lake"): 1_500_000_000,
    }  # fmt: skip
    without = {(each.measure, each.subject.version): each.nanos for each in parts(usages, _no_rates)}
    assert without == {key: 1_500_000_000 if key[0] == "charged" else None for key in known}


def _no_rates(_machine: str) -> Rates | None:
    return None
